"""What every reader gives, and what several of them need."""

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.columns import is_chosen, left_out, matches
from surefoot.data.readers.array_columns import NUMPY
from surefoot.params.prepare_section import PrepareParams

FILE = "file"
"""Beside images that are to be predicted, the column of their files."""


@dataclass(frozen=True)
class RowSource:
    """Rows to come, from one place.

    A table has columns of Arrow's numbers, booleans, strings, dates and times; nulls are missing values; the schema's
    metadata names those that were left out, too, under `columns`. Arrays and images are one column `input` of
    fixed-size lists, each a row, its shape in the field's metadata as JSON under `shape`, beside the target.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    """About 1 to 4 MB each. Raises UserError for what is wrong in the data."""
    where: Callable[[int], str]
    """Names row i of the stream, from 0, for messages: `data/raw/x.csv: row 12`.

    Rows of a file count from 1, a header included. May take long.
    """
    bytes_total: int | None
    """Bytes of the files, as they lie on the disk; None where that isn't known."""
    bytes_read: Callable[[], int]
    """How many of them are read by now."""
    parts: "Places | None" = None
    """Which of its files each row is from, where they are part files; a file is known by the time its first row comes.
    """


@dataclass
class BytesRead:
    """How far a reader is; only ever set by the thread that reads."""

    read: int = 0


@dataclass
class Places:
    """In which file each row of a stream is: filled as files are opened."""

    header: int = 0
    """Rows before the first in each file."""

    def __post_init__(self) -> None:
        self.files: list[str] = []
        self._first: list[int] = []

    def start(self, file: Path, row: int) -> None:
        """From row `row` of the stream on, rows are in `file`."""
        self.files.append(str(file))
        self._first.append(row)

    def __call__(self, row: int) -> str:
        """`file: row N`."""
        at = self.file_of(row)
        return f"{self.files[at]}: row {row - self._first[at] + 1 + self.header}"

    def file_of(self, row: int) -> int:
        """The number, in `files`, of the file that a row is in."""
        return bisect_right(self._first, row) - 1

    def first_row(self, file: int) -> int:
        """The row that a file begins with, by its number in `files`."""
        return self._first[file]


def is_needed(prepare: PrepareParams, column: str) -> bool:
    """Whether a column is an input, the target, or what rows are split by."""
    if column in (prepare.target, prepare.split.column):
        return True
    return is_chosen(column, prepare) and not matches(column, prepare.ignore)


def needed_columns(
    prepare: PrepareParams, names: list[str], place: Path | str, index: Collection[str] = ()
) -> list[str]:
    """Those of `names` that are needed, in order; those in `index` aren't.

    Raises:
        UserError: one comes twice; the target, or the column to split by, isn't there; there is nothing but the target.
    """
    seen = set(names)
    for key, wanted in (("prepare.target", prepare.target), ("prepare.split.column", prepare.split.column)):
        if wanted and wanted not in seen:
            raise UserError(f"{place}: has no column {wanted!r} ({key}); it has {listed_names(names)}")
    needed = [name for name in names if is_needed(prepare, name) and name not in index]
    once: set[str] = set()
    for name in needed:
        if name in once:
            raise UserError(
                f"{place}: names column {name!r} more than once; rename one, or leave both out (prepare.ignore)"
            )
        once.add(name)
    if not set(needed) - {prepare.target, prepare.split.column}:
        # A column to split by is an input only where prepare.columns names it; prepare sees to that.
        index = (
            f" ({listed_names(left)}: an index, by its name, which is none unless prepare.columns names it)"
            if (left := left_out(names, prepare, index))
            else ""
        )
        raise UserError(
            f"{place}: has no input column beside {' and '.join(map(repr, needed))}, so nothing to learn from; it has"
            f" {listed_names(names)}{index}"
        )
    return needed


def naming_all(schema: pa.Schema, names: list[str], index: list[str] | None = None) -> pa.Schema:
    """The schema of a source that leaves columns out; its metadata names all, which patterns in params.yaml may mean,
    and those left out as an index.
    """
    return schema.with_metadata({"columns": json.dumps(names), "index": json.dumps(index or [])})


def plain_schema(schema: pa.Schema, place: Path | str) -> pa.Schema:
    """The schema in which columns of a table are passed on: decimals as float64, dictionaries as their values, large
    and view strings as strings.

    A column of nothing but nulls is float64.

    Raises:
        UserError: a column has a type that can't be an input.
    """
    fields = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            kind = pa.string()
        elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
            kind = pa.float64()
        known = (
            pa.types.is_floating(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_string(kind)
        )
        known = known or pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind)
        if pa.types.is_fixed_size_list(kind):
            numbers = kind.value_type
            known = numbers in NUMPY and kind.list_size > 0
            shape = (field.metadata or {}).get(b"shape") or json.dumps([kind.list_size]).encode()
            field = field.with_metadata({b"shape": shape})
        else:
            field = field.remove_metadata()
        if not known:
            raise UserError(
                f"{place}: column {field.name!r} is of type {field.type}, which can't be an input; "
                "numbers, booleans, strings, dates and times can; name the column in prepare.ignore"
            )
        fields.append(field.with_type(kind))
    return pa.schema(fields)


def to_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with its columns chosen, ordered and cast as `schema` says."""
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    columns = [batch.column(field.name) for field in schema]
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
