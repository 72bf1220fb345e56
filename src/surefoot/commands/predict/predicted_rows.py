"""Raw rows with their predictions, batch by batch, in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.commands.predict.which_model import Model
from surefoot.data.arrow_numpy import null_where
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column, column_of
from surefoot.data.features import date_type, dates_of, transform
from surefoot.data.number_notation import Notation, nulls_for_missing
from surefoot.data.readers.array_columns import INPUT
from surefoot.data.readers.source import FILE, RowSource
from surefoot.params.prepare_section import PrepareParams
from surefoot.serving import logged_network, model_description, rows_to_predict

ROWS = 1 << 12  # that are worked on at once


def predicted_rows(model: Model, source: RowSource, path: Path, prepare: PrepareParams) -> Iterator[pa.RecordBatch]:
    """The rows with `prediction` and, of a classifier, the probability of each class; in order."""
    columns = _columns(model, source.schema, path)
    cleaner = Cleaner(
        [column for column in columns if column.kind != "category"],
        rows_to_predict.params_to_predict(
            model.features, model_description.notation_of_model(model.description), prepare
        ),
    )
    labels = [f"probability_{label}" for label in model.description["classes"]]
    taken = [name for name in ("prediction", *labels) if name in source.schema.names]
    if taken:
        raise UserError(f"{path}: has a column {taken[0]!r} already, which is to be written; rename it")
    first = 0
    for given in source.batches:
        for start in range(0, given.num_rows, ROWS):
            batch = given.slice(start, ROWS)
            inputs = _inputs(model, cleaner, batch, first, source.where)
            answers = logged_network.predict_rows(model.network, model.description, inputs)
            yield _beside(batch, answers, first, source.schema)
            first += batch.num_rows


def _columns(model: Model, schema: pa.Schema, path: Path) -> list[Column]:
    """The input columns of a source, as the model takes them.

    Raises:
        UserError: one isn't there, or is of another type.
    """
    kinds = {feature["column"]: feature["kind"] for feature in model.features}
    absent = [name for name in kinds if name not in schema.names]
    if absent:
        raise UserError(
            f"{path}: has no column {absent[0]!r}, which the model ({model.name}) needs; it has"
            f" {listed_names(schema.names)}"
        )
    found = []
    for feature in model.features:
        field = schema.field(feature["column"])
        array = pa.types.is_fixed_size_list(field.type)
        if array != (feature["kind"] == "array"):
            what = f"numbers of shape {model.description['input_shape']}" if not array else f"a {feature['kind']}"
            raise UserError(f"{path}: column {field.name!r} holds {field.type}; the model ({model.name}) needs {what}")
        if array:
            column = column_of(field, PrepareParams(source=str(path), target="-"), str(path))
            dtype, width = feature["dtype"], feature["width"]
            if (column.array or ("",))[0] != dtype or field.type.list_size != width:
                given, shape = column.array or ("", ())
                raise UserError(
                    f"{path}: its rows are {given} of shape {list(shape)}; the model ({model.name}) needs {dtype} of"
                    f" {width} values, {model.description['input_shape']}"
                    + (" (prepare.images)" if FILE in schema.names else "")
                )
        elif feature["kind"] == "category":
            column = Column(field.name, "category", pa.string())
        elif feature["kind"] == "date":
            column = Column(field.name, "date", date_type(feature))
        else:
            kind = PrepareParams(source=str(path), target="-", kinds={field.name: feature["kind"]})
            column = replace(column_of(field, kind, str(path)), unit=feature.get("unit"))
        found.append(column)
    return found


def _inputs(
    model: Model, cleaner: Cleaner, batch: pa.RecordBatch, first: int, where: Callable[[int], str]
) -> np.ndarray:
    """The prepared rows of a batch whose first is row `first` of all.

    Raises:
        UserError: naming the row and the column of a value that can't be.
    """
    notation = model_description.notation_of_model(model.description)
    given = {
        feature["column"]: _plain(batch.column(feature["column"]), feature, notation, where, first)
        for feature in model.features
    }
    others = {column.name: given[column.name] for column in cleaner.columns}
    cleaned, _ = cleaner.clean(pa.RecordBatch.from_pydict(others), first, where) if others else (None, None)
    for feature in model.features:
        name = feature["column"]
        if feature["kind"] != "category":
            assert cleaned is not None
            given[name] = cleaned.column(name)
            continue
        given[name] = rows_to_predict.as_arrow(given[name], feature, notation)
        if given[name].null_count and None not in feature["values"]:
            row = int(pc.index(given[name].is_null(), True).as_py())
            raise UserError(
                f"{where(first + row)}, column {name!r}: empty; a category is needed in every row (or"
                " prepare.missing.category: constant)"
            )
    return rows_to_predict.check_finite(
        transform(given, model.features), model.features, lambda row: where(first + row)
    )


def _plain(
    array: pa.Array, feature: dict[str, Any], notation: Notation, where: Callable[[int], str], first: int
) -> pa.Array:
    """Texts as prepare takes them: null where one stands for a missing value; dates as the model takes them."""
    if pa.types.is_string(array.type):
        array = nulls_for_missing(array, notation)
    if feature["kind"] == "date":
        dates, problem = dates_of(array, feature)
        if problem:
            raise UserError(f"{where(first + problem[0])}, column {feature['column']!r}: {problem[1]}")
        return dates
    return array


def _beside(batch: pa.RecordBatch, answers: dict[str, Any], first: int, schema: pa.Schema) -> pa.RecordBatch:
    """The rows with their predictions.

    Arrays have no place in a table: a file's name stands for an image, else the row's number from 1.
    """
    columns = {
        name: _empty_as_null(batch.column(name))
        for name in schema.names
        if not pa.types.is_fixed_size_list(schema.field(name).type)
    }
    if schema.names == [INPUT]:
        columns["row"] = pa.array(range(first + 1, first + batch.num_rows + 1), pa.int64())
    return pa.RecordBatch.from_pydict(columns | {name: pa.array(values) for name, values in answers.items()})


def _empty_as_null(column: pa.Array) -> pa.Array:
    """What CSV writes as nothing, not as quotes."""
    if not pa.types.is_string(column.type):
        return column
    return null_where(pc.equal(column, ""), column)
