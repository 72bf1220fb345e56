"""Parquet files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.columns import kind_of_type, kind_told, left_out
from surefoot.data.dates import DATE, date_type_of, to_date_type
from surefoot.data.readers.array_columns import BATCH_BYTES
from surefoot.data.readers.raw_files import unreadable
from surefoot.data.readers.source import BytesRead, Places, RowSource, naming_all, needed_columns, plain_schema
from surefoot.data.streams import gather
from surefoot.data.vocabulary import texts_of_categories
from surefoot.params.prepare_section import PrepareParams

STREAM_BYTES = 1 << 20  # a row group is read in pieces of this size, not whole


def open_parquet(prepare: PrepareParams, files: list[Path], _labels: Path | None) -> RowSource:
    """The rows of Parquet files that have the same columns, file after file. Columns that aren't needed aren't read.

    Raises:
        UserError: a file isn't Parquet, or is cut short or damaged; its columns, or their types, aren't those of the
        first file.
    """
    progress, places = BytesRead(), Places()
    with _open(files[0]) as first:
        names = first.schema_arrow.names
        index = left_out(names, prepare, _index_of(first.schema_arrow))
        needed = needed_columns(prepare, names, files[0], index)
        lists = _lists(first, files[0], needed)
        schema = _agreed_by_all(
            pa.schema([lists.get(name) or first.schema_arrow.field(name) for name in needed]), files, prepare
        )

    def batches() -> Iterator[pa.RecordBatch]:
        rows, same = 0, None
        for path in files:
            places.start(path, rows)
            with _open(path) as file:
                found = file.schema_arrow
                if found != same:
                    _check_same(found, path, schema, names, files[0], prepare, index)
                    same = found
                for batch in _rows(file, path, schema, prepare):
                    rows += batch.num_rows
                    yield batch
            progress.read += path.stat().st_size
        if not rows:
            raise UserError(f"{files[0] if len(files) == 1 else files[0].parent}: has no rows")

    return RowSource(
        naming_all(schema, names, index),
        gather(batches(), BATCH_BYTES // 2),
        places,
        None,
        lambda: progress.read,
        places,
    )


def _lists(file: pq.ParquetFile, path: Path, needed: list[str]) -> dict[str, pa.Field]:
    """Columns of lists as what they are if all lists are as long as the first, such as embeddings: arrays."""
    found = {}
    for field in file.schema_arrow:
        if field.name in needed and _is_list(field.type):
            try:
                batch = next(file.iter_batches(1, columns=[field.name]), None)
            except (OSError, pa.ArrowException) as error:
                raise _damaged(path, error) from None
            first = batch.column(0)[0].as_py() if batch is not None and batch.num_rows else None
            if not first:
                raise UserError(
                    f"{path}: row 1, column {field.name!r}: an empty list; lists must have numbers, and as many in"
                    " each row"
                )
            numbers = field.type.value_type
            wider = (
                pa.float32()
                if pa.types.is_float16(numbers)
                else pa.int64()
                if pa.types.is_integer(numbers) and numbers != pa.uint8()
                else numbers
            )
            found[field.name] = pa.field(field.name, pa.list_(wider, len(first)))
    return found


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _index_of(schema: pa.Schema) -> list[str]:
    """The columns that pandas has written for the index of its frame."""
    try:
        given = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError, RecursionError):  # of another program's
        return []
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(str(path), buffer_size=STREAM_BYTES)
        str(file.schema_arrow)  # which decodes each name
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    return file


def _rows(file: pq.ParquetFile, path: Path, schema: pa.Schema, prepare: PrepareParams) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    count = max(1, BATCH_BYTES * metadata.num_rows // max(1, size))
    # Group by group, as iter_batches keeps what it has read until its end. For a small file threads cost more than they
    # save.
    batches = (
        batch
        for group in range(metadata.num_row_groups)
        for batch in file.iter_batches(count, row_groups=[group], columns=schema.names, use_threads=size > BATCH_BYTES)
    )
    while True:
        try:
            batch = next(batches)
            columns = [
                _brought(batch.column(field.name), field, path, _is_text_too(field.name, prepare)) for field in schema
            ]
            batch = pa.RecordBatch.from_arrays(columns, schema=schema)
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
                raise UserError(
                    f"{path}: column {field.name!r} holds a text that is not UTF-8; save it as such"
                ) from None


def _check_same(
    found: pa.Schema,
    path: Path,
    schema: pa.Schema,
    names: list[str],
    first: Path,
    prepare: PrepareParams,
    index: list[str],
) -> None:
    if twice := next((name for name in schema.names if found.names.count(name) > 1), None):
        raise UserError(f"{path}: names column {twice!r} more than once")
    # An index that only some parts have is of no matter: it is read nowhere.
    missing, more = sorted(set(names) - {*found.names, *index}), sorted(set(found.names) - {*names, *_index_of(found)})
    if missing or more:
        told = (
            f"{what}: {listed_names(which)}" for what, which in (("missing", missing), ("additional", more)) if which
        )
        raise UserError(f"{path}: its columns aren't those of {first}: {'; '.join(told)}")
    fields = [
        (
            schema.field(name)
            if _is_list(found.field(name).type) and pa.types.is_fixed_size_list(schema.field(name).type)
            else found.field(name)
        )
        for name in schema.names
    ]
    for field in plain_schema(pa.schema(fields), path):
        wanted = schema.field(field.name).type
        if (
            not pa.types.is_null(found.field(field.name).type)
            and _agreed(field.type, wanted, _is_text_too(field.name, prepare)) != wanted
        ):
            raise UserError(f"{path}: column {field.name!r} is of type {field.type}; in {first} it is of type {wanted}")


# --- parts of different types ----------------------------------------------------------------------


def _agreed_by_all(first: pa.Schema, files: list[Path], prepare: PrepareParams) -> pa.Schema:
    """The columns of the first file, in types that hold what the other files have: whole numbers and floats are floats,
    and what is empty is anything.
    """
    schema = plain_schema(first, files[0])
    types = {field.name: None if pa.types.is_null(first.field(field.name).type) else field.type for field in schema}
    for path in files[1:]:
        with _open(path) as file:
            found = file.schema_arrow
        fields = [
            schema.field(name) if _is_list(found.field(name).type) else found.field(name)
            for name in types
            if found.names.count(name) == 1
        ]
        for field, given in zip(plain_schema(pa.schema(fields), path), fields, strict=True):
            if not pa.types.is_null(given.type):
                # Where they don't agree, it is told when that file is read.
                types[field.name] = (
                    _agreed(types[field.name], field.type, _is_text_too(field.name, prepare)) or types[field.name]
                )
    return pa.schema([field if types[field.name] is None else field.with_type(types[field.name]) for field in schema])


def _is_text_too(name: str, prepare: PrepareParams) -> bool:
    """Whether a column's numbers are names of something, so that 1 and the text "1" are one."""
    return kind_told(name, prepare) == "category" if name != prepare.target else prepare.task != "regression"


def _agreed(one: pa.DataType | None, other: pa.DataType, text_too: bool) -> pa.DataType | None:
    """A type for the values of both; None: there is none."""
    if one is None or one == other:
        return other
    kinds = {kind_of_type(one), kind_of_type(other)}
    if kinds == {"numeric"}:
        return pa.int64() if pa.types.is_signed_integer(one) and pa.types.is_signed_integer(other) else pa.float64()
    if kinds == {"date"} and pa.types.is_time(one) == pa.types.is_time(other):
        found = {date_type_of(one), date_type_of(other)} - {DATE}
        return found.pop() if len(found) == 1 else None if found else DATE
    if kinds == {"numeric", "category"} and text_too:
        return pa.string()
    # pandas has floats where a column of texts, say, is empty; if it isn't, that is told when it is read.
    floats = [pa.types.is_floating(kind) for kind in (one, other)]
    return (
        (other if floats[0] else one)
        if any(floats) and not pa.types.is_fixed_size_list(one) and not pa.types.is_fixed_size_list(other)
        else None
    )


def _brought(column: pa.Array, field: pa.Field, path: Path, text_too: bool) -> pa.Array:
    """A column in the type on which the parts agree."""
    if column.type == field.type:
        return column
    if pa.types.is_temporal(column.type) and pa.types.is_temporal(field.type):
        return to_date_type(column, field.type)
    if pa.types.is_floating(column.type) and not pa.types.is_floating(field.type):
        if column.is_null(nan_is_null=True).false_count == 0:
            return pa.nulls(len(column), field.type)
        if not (pa.types.is_string(field.type) and text_too) and kind_of_type(field.type) != "numeric":
            raise UserError(
                f"{path}: column {field.name!r} is of type {column.type}; in the other files it is of type {field.type}"
            )
    if pa.types.is_string(field.type) and kind_of_type(column.type) == "numeric":
        return texts_of_categories(column)
    if _is_list(column.type):
        lengths = pc.list_value_length(column)
        wrong = pc.index(pc.fill_null(pc.not_equal(lengths, field.type.list_size), True), True).as_py()
        if wrong >= 0:
            told = f"a list of {lengths[wrong].as_py()} values" if lengths[wrong].is_valid else "no list"
            raise UserError(
                f"{path}: column {field.name!r} has {told} among lists of {field.type.list_size}; they must be of one"
                " length"
            )
        return column.cast(pa.list_(field.type.value_type)).cast(field.type)
    return column.cast(field.type)


def _damaged(path: Path, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.errno:
        return unreadable(path, error)
    return UserError(f"{path}: isn't a Parquet file, or is cut short or damaged: {str(error).splitlines()[0]}")
