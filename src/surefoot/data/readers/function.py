"""A reader of the user's: `module:function`, such as sources.mine:rows in src/sources/mine.py."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, find_function
from surefoot.data.readers.array_columns import INPUT, array_column, array_field, number_type
from surefoot.data.readers.source import BytesRead, RowSource, naming_all, needed_columns, plain_schema, to_schema
from surefoot.params.prepare_section import PrepareParams

GIVES = "a pyarrow.RecordBatch, a pyarrow.Table or a dict of arrays, or an iterator of such"


def open_function(prepare: PrepareParams, key: str, path: str) -> RowSource:
    """What `function()` returns: a record batch, a table or a dict of arrays, or an iterator of such.

    In a dict, arrays of one axis are columns; one of more is the input, each of its rows an array of that shape. A
    target that has the name prepare.arrays.targets, `y`, gets the name prepare.target.

    Raises:
        UserError: it can't be imported or called, or fails, with the file and line; it gives something else, or columns
        other than at first.
    """
    function = find_function(key, path)
    progress = BytesRead()
    try:
        given = function()
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {path}() failed: {describe_error(error)}") from None
    single = isinstance(given, (pa.RecordBatch, pa.Table, Mapping))
    pieces = _pieces(prepare, key, path, iter([given]) if single else _iterator(key, path, given))
    first = next(pieces, None)
    if first is None:
        raise UserError(f"{key}: {path}() gives no rows")
    needed = needed_columns(prepare, first.schema.names, f"{path}()")
    schema = plain_schema(pa.schema([first.schema.field(name) for name in needed]), f"{path}()")

    def batches() -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in chain([first], pieces):
            missing = [name for name in needed if name not in batch.schema.names]
            if (
                missing
                or plain_schema(found := pa.schema([batch.schema.field(name) for name in needed]), f"{path}()")
                != schema
            ):
                told = f"lacks column {missing[0]!r}" if missing else f"is {_shown(found)}"
                raise UserError(
                    f"{key}: {path}() gives a batch, from row {rows + 1} on, that {told}; its first was"
                    f" {_shown(schema)}"
                )
            rows += batch.num_rows
            progress.read += batch.nbytes
            yield to_schema(batch, schema)

    return RowSource(
        naming_all(schema, first.schema.names),
        batches(),
        lambda row: f"{path}(): row {row + 1}",
        None,
        lambda: progress.read,
    )


def _iterator(key: str, path: str, given: Any) -> Iterator[Any]:
    try:
        return iter(given)
    except TypeError:
        raise UserError(f"{key}: {path}() returned a {type(given).__name__}; {GIVES} is needed") from None


def _pieces(prepare: PrepareParams, key: str, path: str, given: Iterator[Any]) -> Iterator[pa.RecordBatch]:
    """What is given as record batches with rows in them."""
    while True:
        try:
            piece = next(given)
            if isinstance(piece, Mapping):
                piece = _from_arrays(prepare, f"{key}: {path}()", piece)
        except StopIteration:
            return
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{key}: {path}() failed: {describe_error(error)}") from None
        if not isinstance(piece, (pa.RecordBatch, pa.Table)):
            raise UserError(f"{key}: {path}() gives a {type(piece).__name__}; {GIVES} is needed")
        for batch in piece.to_batches() if isinstance(piece, pa.Table) else [piece]:
            if batch.num_rows:
                yield batch


def _from_arrays(prepare: PrepareParams, place: str, arrays: Mapping[str, Any]) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    fields: list[pa.Field] = []
    for name, values in arrays.items():
        values = values if isinstance(values, pa.Array) else np.asanyarray(values)  # any: a masked array keeps its mask
        if isinstance(values, np.ndarray) and values.ndim > 1:
            kind = number_type(values.dtype)
            if kind is None:
                raise UserError(
                    f"{place}: array {name!r} holds {values.dtype} values; inputs must be numbers of 64 bits at most"
                )
            if np.ma.is_masked(values):
                raise UserError(f"{place}: array {name!r} has masked values; a number is needed everywhere")
            fields.append(array_field(values.shape[1:], kind))
            columns.append(array_column(values, fields[-1]))
        else:
            columns.append(values if isinstance(values, pa.Array) else pa.array(values))
            renamed = name == prepare.arrays.targets and prepare.target not in arrays
            fields.append(pa.field(prepare.target if renamed else str(name), columns[-1].type))
    lengths = {name: len(column) for name, column in zip(arrays, columns, strict=True)}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{place}: the arrays differ in length: {lengths}")
    if sum(field.name == INPUT for field in fields) > 1:
        raise UserError(f"{place}: more than one array has more than one axis; there can be one array of inputs")
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
