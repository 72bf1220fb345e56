"""Parquet files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from surefoot.data.columns import left_out, some
from surefoot.data.readers.source import BATCH_BYTES, Places, Progress, Source, check_columns, naming, plain_schema, to_schema
from surefoot.errors import UserError
from surefoot.params import Prepare

STREAM_BYTES = 1 << 20  # a row group is read in pieces of this size, not whole


def open_parquet(prepare: Prepare, files: list[Path], _labels: Path | None) -> Source:
    """The rows of Parquet files that have the same columns, file after file. Columns that aren't needed aren't read.

    Raises:
        UserError: a file isn't Parquet, or is cut short or damaged; its columns, or their types, aren't those of the first file.
    """
    progress, places = Progress(), Places()
    with _open(files[0]) as first:
        names = first.schema_arrow.names
        index = left_out(names, prepare, _index_of(first.schema_arrow))
        needed = check_columns(prepare, names, files[0], index)
        schema = plain_schema(pa.schema([first.schema_arrow.field(name) for name in needed]), files[0])

    def batches() -> Iterator[pa.RecordBatch]:
        rows, same = 0, None
        for path in files:
            places.start(path, rows)
            with _open(path) as file:
                found = file.schema_arrow
                if found != same:
                    _check_same(found, path, schema, names, files[0])
                    same = found
                for batch in _rows(file, path, schema):
                    rows += batch.num_rows
                    yield batch
            progress.read += path.stat().st_size
        if not rows:
            raise UserError(f"{files[0] if len(files) == 1 else files[0].parent}: has no rows")

    return Source(naming(schema, names, index), _gathered(batches()), places, None, lambda: progress.read, places)


def _index_of(schema: pa.Schema) -> list[str]:
    """The columns that pandas has written for the index of its frame."""
    try:
        given = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):  # of another program's
        return []
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(str(path), buffer_size=STREAM_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _rows(file: pq.ParquetFile, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    count = max(1, BATCH_BYTES * metadata.num_rows // max(1, size))
    # Group by group, as iter_batches keeps what it has read until its end. For a small file threads cost more than they save.
    batches = (
        batch
        for group in range(metadata.num_row_groups)
        for batch in file.iter_batches(count, row_groups=[group], columns=schema.names, use_threads=size > BATCH_BYTES)
    )
    while True:
        try:
            batch = to_schema(next(batches), schema)
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error) from None
        _check_texts(batch, path)
        yield batch


def _check_texts(batch: pa.RecordBatch, path: Path) -> None:
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_string(field.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                raise UserError(f"{path}: column {field.name!r} holds a text that is not UTF-8; save it as such") from None


def _check_same(found: pa.Schema, path: Path, schema: pa.Schema, names: list[str], first: Path) -> None:
    if twice := next((name for name in schema.names if found.names.count(name) > 1), None):
        raise UserError(f"{path}: names column {twice!r} more than once")
    if found.names != names and set(found.names) != set(names):
        missing, more = sorted(set(names) - set(found.names)), sorted(set(found.names) - set(names))
        raise UserError(
            f"{path}: its columns aren't those of {first}: "
            + "; ".join(f"{what}: {some(which)}" for what, which in (("missing", missing), ("additional", more)) if which)
        )
    for field in plain_schema(pa.schema([found.field(name) for name in schema.names]), path):
        if field.type != schema.field(field.name).type and not pa.types.is_null(found.field(field.name).type):
            raise UserError(f"{path}: column {field.name!r} is of type {field.type}; in {first} it is of type {schema.field(field.name).type}")


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about BATCH_BYTES, however small they come."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= BATCH_BYTES // 2:
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: isn't a Parquet file, or is cut short or damaged: {str(error).splitlines()[0]}")
