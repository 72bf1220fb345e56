"""`surefoot predict`: predictions beside the raw rows of a file, batch by batch, in bounded memory."""

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from surefoot.base import paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names, number_of
from surefoot.commands.options import A_RUN, option
from surefoot.data.arrow_numpy import null_where
from surefoot.data.batch_index import read_index
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column, column_of
from surefoot.data.features import date_type, dates_of, transform
from surefoot.data.number_notation import Notation, nulls_for_missing
from surefoot.data.readers.array_columns import INPUT
from surefoot.data.readers.open_source import open_rows
from surefoot.data.readers.source import FILE, RowSource
from surefoot.params.params_yaml import load_params
from surefoot.params.prepare_section import PrepareParams
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock
from surefoot.serving import logged_network, model_description, rows_to_predict
from surefoot.tracking import find_runs, mlflow_client, mlflow_store, tag_names
from surefoot.training import numerics

ENDINGS = (".csv", ".parquet", ".pq")
ROWS = 1 << 12  # that are worked on at once


@dataclass(frozen=True)
class Model:
    """A network with the preparation of its inputs; `name` for messages."""

    name: str
    network: Any
    description: dict[str, Any]

    @property
    def features(self) -> list[dict[str, Any]]:
        """The preparation, a dict for each input column."""
        return list(self.description["features"])


@option("file", metavar="FILE", help="a file or directory of any format that prepare reads; it needs no target")
@option("--out", metavar="FILE", help="where to write, .csv or .parquet (default: CSV to standard output)")
@option(
    "--model",
    metavar="MODEL",
    help="a safetensors file, or models:/NAME@ALIAS of MLflow (default: models/model.safetensors)",
)
@option("--run", metavar="RUN", help=f"use the model of {A_RUN}")
def main(file: str, out: str | None, model: str | None, run: str | None) -> None:
    """Write predictions beside the rows of a file."""
    write_predictions(Path(file), Path(out) if out else None, model, run)


def write_predictions(source: Path, out: Path | None, model: str | None = None, run: str | None = None) -> None:
    """Write the rows of a file, each with its prediction, to another or, as CSV, to standard output; all of them, or
    nothing.

    Args:
        source: a file or directory of any format that prepare reads, without a target, or with one.
        out: a CSV or Parquet file, by its ending; None: standard output.
        model: a safetensors file for the network in params.yaml; or `models:/NAME@ALIAS` or the like in MLflow.
        run: the id or name of a run in MLflow, whose model it shall be. Neither: models/model.safetensors.

    Raises:
        UserError: there is no such model; the rows can't be read, or don't fit the model, naming row and column; `out`
        is there already.
    """
    if model and run:
        raise UserError("--model and --run: give one of them")
    _check_out(source, out)
    params = load_params(paths.PARAMS)
    opened = open_rows(params.prepare, source)
    with ExitStack() as stack:
        # A thread reads ahead: it must have ended when Python does.
        stack.enter_context(closing(opened.batches))  # type: ignore[type-var]
        numerics.pin(params.numerics, params.threads, params.deterministic)
        loaded = (
            _from_mlflow(stack, model, run)
            if run or (model and ":/" in model)
            else _from_workspace(params, Path(model) if model else None)
        )
        rows = _write(stack, _batches(loaded, opened, source, params.prepare), out)
    if out:
        terminal.print_lines(f"{out}: {number_of(rows, 'row')} with the predictions of {loaded.name}")


def _check_out(source: Path, out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {out}: its ending must be one of {', '.join(ENDINGS)}: it says what is written")
    if out.exists():
        raise UserError(f"--out {out}: is there already; remove it, or give another name")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no directory {out.parent}")
    if out.resolve().is_relative_to(paths.RAW.resolve()) or (
        source.is_dir() and out.resolve().is_relative_to(source.resolve())
    ):
        raise UserError(
            f"--out {out}: would lie among the raw data, and the next run would take it for rows; write it elsewhere"
        )


# --- the model -----------------------------------------------------------------------------------


def _from_workspace(params: Params, weights: Path | None) -> Model:
    path = weights or paths.MODEL
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file"
            if weights
            else f"there is no model yet: {path} doesn't exist; `make repro` makes one"
        )
    index = read_index(paths.BATCHES)  # which has the preparation
    trained, made = (
        dvc_lock.recorded_md5("train", "deps", paths.BATCHES),
        dvc_lock.recorded_md5("batch", "outs", paths.BATCHES),
    )
    if weights is None and trained and made and trained != made:
        raise UserError(
            f"{path} was trained on other batches than {paths.BATCHES} has now: `make repro` trains on these, or give a"
            " run (--run)"
        )
    chosen = params.train.model
    description = {"factory": chosen.factory, "arguments": chosen.arguments, **index.network_description()}
    return Model(str(path), logged_network.network_with_weights(description, path), description)


def _from_mlflow(stack: ExitStack, uri: str | None, run: str | None) -> Model:
    """A logged model.

    It brings the code of its network along, which runs: as with `mlflow models serve`, it must come from somebody you
    trust.
    """
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    name = uri
    if run:
        from surefoot.run.recorded_run import find_recorded

        recorded = find_recorded(run)
        model_id = recorded.run.data.tags.get(tag_names.MODEL)
        if not model_id or not re.fullmatch(r"[\w-]+", model_id):
            raise UserError(
                f"run {recorded.title} has no model in MLflow: it is {recorded.run.info.status}; `surefoot sync` brings"
                " what it lacks"
            )
        name, uri = f"run {recorded.title}", f"models:/{model_id}"
    path = _fetch(str(uri), scratch)
    sys.path.insert(0, str(path / "code"))
    stack.callback(sys.path.remove, str(path / "code"))
    return Model(str(name), *logged_network.load_logged_network(path / "data" / "network"))


def _fetch(uri: str, scratch: Path) -> Path:
    """Download a model of MLflow's.

    Raises:
        UserError: MLflow is out of reach, or doesn't have it.
    """
    mlflow_store.configure()
    try:
        return find_runs.fetch_model(uri, scratch)
    except mlflow_client.Failure as error:
        where = mlflow_store.without_password(mlflow_store.store_uri())
        raise UserError(f"{uri}: MLflow at {where} doesn't give this model: {error}") from None


# --- the rows ------------------------------------------------------------------------------------


def _batches(model: Model, source: RowSource, path: Path, prepare: PrepareParams) -> Iterator[pa.RecordBatch]:
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


# --- writing -------------------------------------------------------------------------------------


def _write(stack: ExitStack, batches: Iterator[pa.RecordBatch], out: Path | None) -> int:
    """Write batches beside, then rename; or, where there is no name, to standard output when all is well.

    Returns the rows.
    """
    if out is None:
        spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        rows = _write_csv(spool, batches)
        spool.seek(0)
        sys.stdout.flush()
        if terminal.is_terminal(sys.stdout):
            terminal.print_lines(
                *(line.rstrip("\n") for line in io.TextIOWrapper(spool, encoding="utf-8", newline="\n")),
                longest=sys.maxsize,
            )
        else:
            shutil.copyfileobj(spool, sys.stdout.buffer)
        return rows
    try:
        with writing.written_beside(out) as beside, beside.open("wb") as file:
            return (_write_csv if out.suffix.lower() == ".csv" else _write_parquet)(file, batches)
    except OSError as error:
        raise writing.unwritable(out, error) from None


def _write_csv(file: Any, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    for batch in batches:
        # Arrow quotes every text, or none; most need none.
        style = "needed" if any(map(_needs_quotes, [*batch.columns, pa.array(batch.schema.names)])) else "none"
        csv.write_csv(batch, file, csv.WriteOptions(include_header=not rows, quoting_style=style, quoting_header=style))
        rows += batch.num_rows
    return rows


def _needs_quotes(column: pa.Array) -> bool:
    if not pa.types.is_string(column.type):
        return False
    return bool(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py())


def _write_parquet(file: Any, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    with ExitStack() as stack:
        writer = None
        for batch in batches:
            writer = writer or stack.enter_context(pq.ParquetWriter(file, batch.schema))
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
