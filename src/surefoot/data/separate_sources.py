"""Validation and test sets with a source of their own, whose columns are read as the main source's."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.columns import Column, column_of
from surefoot.data.readers.source import RowSource
from surefoot.params.prepare_section import PrepareParams, SplitParams, SplitSource

OpenSource = Callable[[PrepareParams], RowSource]
"""Opens a source by what params.yaml says, or by what the main source's columns were taken for."""


def told_by(prepare: PrepareParams, columns: list[Column]) -> PrepareParams:
    """What a separate source is opened by: the main source's columns, each as what it was taken for there, whatever the
    values here would say.
    """
    told = {
        "columns": tuple(column.name for column in columns),
        "ignore": (),
        "kinds": {column.name: column.kind for column in columns if column.kind != "array"},
        "dates": {column.name: column.format for column in columns if column.format},
        "split": SplitParams(),
    }
    return prepare.model_copy(update=told)


def as_main(
    source: RowSource, main: pa.Schema, columns: list[Column], prepare: PrepareParams, own: SplitSource
) -> RowSource:
    """A separate source, checked to have the columns of the main one; one that is empty here is as
    good as any.

    Raises:
        UserError: naming a column that is missing, or of another type. The batches raise it for one that could be empty
        by its type, and isn't.
    """
    for wanted in [*(column.name for column in columns), prepare.target]:
        if wanted not in source.schema.names:
            raise UserError(
                f"{own.source}: has no column {wanted!r}, as {prepare.source} has ({own.key}); it has"
                f" {listed_names(source.schema.names)}"
            )
    faults: dict[str, str] = {}
    by_type = prepare.model_copy(update={"kinds": {}, "dates": {}})
    for column in columns:
        field = source.schema.field(column.name)
        if pa.types.is_null(field.type):
            continue
        other = column_of(field, by_type, own.source)
        if other.array != column.array or other.kind != column_of(main.field(column.name), by_type, own.source).kind:
            what = (
                f"{column.kind} column"
                if column.array is None
                else f"{column.array[0]} array of shape {list(column.array[1])}"
            )
            theirs = field.type if other.array is None else f"{other.array[0]} array of shape {list(other.array[1])}"
            fault = (
                f"{own.source}: column {column.name!r} is {theirs}, but in {prepare.source} it is a {what} ({own.key});"
                " they must be the same"
            )
            if not pa.types.is_floating(field.type):  # by which pandas stores a column that is empty
                raise UserError(fault)
            faults[column.name] = fault
    return replace(source, batches=_emptied(source.batches, faults)) if faults else source


def _emptied(batches: Iterator[pa.RecordBatch], faults: dict[str, str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for name, fault in faults.items():
            if batch.column(name).is_null(nan_is_null=True).false_count:
                raise UserError(fault)
            batch = batch.set_column(batch.schema.get_field_index(name), name, pa.nulls(batch.num_rows))
        yield batch
