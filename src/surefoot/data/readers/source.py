"""What every reader gives, and what several of them need."""

import hashlib
import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from stat import S_ISDIR

import numpy as np
import pyarrow as pa

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.base.reading import check_regular
from surefoot.data.arrow import text_array
from surefoot.data.columns import is_chosen, left_out, matches, some
from surefoot.params.prepare_section import PrepareParams

BATCH_BYTES = 4 << 20
BESIDE = (
    r"thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|(readme|licen[cs]e|copying|citation)([ ._-].*)?|"
    r".*\.(dvc|md|rst|html?|pdf|docx?|log|ini|py|ipynb|bak|tmp|swp|part|crdownload)|_success|_(common_)?metadata|~\$.*|.*~"
)
BESIDE_DIRECTORIES = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")
BESIDE_IMAGES = r"\.(txt|csv|tsv|json|jsonl|xml|ya?ml|parquet|xlsx?|zip|sha256|md5)$"
MOST_AXES = 32  # of a row, as of batch.shape
MOST_ROW_BYTES = 1 << 28
# Not Arrow's to_pandas_dtype, which imports pandas.
NUMPY = {pa.uint8(): np.uint8, pa.int64(): np.int64, pa.float32(): np.float32, pa.float64(): np.float64}
INPUT = "input"
"""The column of arrays and images."""
FILE = "file"
"""Beside images that are to be predicted, the column of their files."""


@dataclass(frozen=True)
class Source:
    """Rows to come, from one place.

    A table has columns of Arrow's numbers, booleans, strings, dates and times; nulls are missing values; the schema's
    metadata names those that
    were left out, too, under `columns`. Arrays and images are one column
    `input` of fixed-size lists, each a row, its shape in the field's metadata as JSON under `shape`, beside the target.
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
class Progress:
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


# --- columns


def is_needed(prepare: PrepareParams, column: str) -> bool:
    """Whether a column is an input, the target, or what rows are split by."""
    if column in (prepare.target, prepare.split.column):
        return True
    return is_chosen(column, prepare) and not matches(column, prepare.ignore)


def check_columns(
    prepare: PrepareParams, names: list[str], place: Path | str, index: Collection[str] = ()
) -> list[str]:
    """Those of `names` that are needed, in order; those in `index` aren't.

    Raises:
        UserError: one comes twice; the target, or the column to split by, isn't there; there is nothing but the target.
    """
    seen = set(names)
    for key, wanted in (("prepare.target", prepare.target), ("prepare.split.column", prepare.split.column)):
        if wanted and wanted not in seen:
            raise UserError(f"{place}: has no column {wanted!r} ({key}); it has {some(names)}")
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
            f" ({some(left)}: an index, by its name, which is none unless prepare.columns names it)"
            if (left := left_out(names, prepare, index))
            else ""
        )
        raise UserError(
            f"{place}: has no input column beside {' and '.join(map(repr, needed))}, so nothing to learn from; it has"
            f" {some(names)}{index}"
        )
    return needed


def naming(schema: pa.Schema, names: list[str], index: list[str] | None = None) -> pa.Schema:
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


# --- arrays


def number_type(dtype: np.dtype) -> np.dtype | None:
    """As which of uint8, int64, float32, float64 numbers of `dtype` are passed on; None for no numbers, or too wide
    ones.
    """
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint8)
    if dtype.kind in "iu" and dtype != np.uint64:
        return np.dtype(np.int64)
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    return None


def target_type(dtype: np.dtype) -> np.dtype | None:
    """The same of targets: int64, float64 or text (kind U)."""
    if dtype.kind == "U" and dtype.itemsize:
        return dtype.newbyteorder("=")
    return (
        {"u": np.dtype(np.int64), "i": np.dtype(np.int64), "f": np.dtype(np.float64)}.get(number.kind)
        if (number := number_type(dtype))
        else None
    )


def array_field(shape: tuple[int, ...], dtype: np.dtype) -> pa.Field:
    """The field `input` for rows of this shape and type.

    Raises:
        UserError: a row has more axes, or is larger, than what can be worked on.
    """
    if len(shape) > MOST_AXES:
        raise UserError(f"a row has {len(shape)} axes, which is too many: {MOST_AXES} are possible")
    if prod(shape) * dtype.itemsize > MOST_ROW_BYTES:
        raise UserError(
            f"a row of shape {list(shape)} has {prod(shape):,} values, which is too many: a row may have"
            f" {MOST_ROW_BYTES >> 20} MiB"
        )
    kind = pa.list_(pa.from_numpy_dtype(dtype), prod(shape))
    return pa.field(INPUT, kind, nullable=False, metadata={"shape": json.dumps(list(shape))})


def array_column(values: np.ndarray, field: pa.Field) -> pa.Array:
    """Rows (rows, *shape) as a column for `array_field`."""
    flat = np.ascontiguousarray(values, dtype=NUMPY[field.type.value_type]).reshape(-1)
    # From buffers: pa.array imports pandas.
    numbers = pa.Array.from_buffers(field.type.value_type, len(flat), [None, pa.py_buffer(flat)])
    return pa.Array.from_buffers(field.type, len(values), [None], children=[numbers])


def target_field(name: str, dtype: np.dtype) -> pa.Field:
    """The field of targets of a `target_type`."""
    return pa.field(name, pa.string() if dtype.kind == "U" else pa.from_numpy_dtype(dtype))


def target_column(values: np.ndarray, field: pa.Field) -> pa.Array:
    """Targets (rows,) as a column."""
    if not pa.types.is_string(field.type):
        flat = np.ascontiguousarray(values, dtype=NUMPY[field.type])
        return pa.Array.from_buffers(field.type, len(flat), [None, pa.py_buffer(flat)])
    return text_column(values.tolist())


def text_column(texts: list[str]) -> pa.Array:
    """Texts as a column.

    Raises:
        UserError: one has half a character, as a file name of another encoding has.
    """
    try:
        return text_array(texts)
    except UnicodeEncodeError as error:
        raise UserError(f"the text {error.object!r} is not valid Unicode, so it can't be a class; rename it") from None


def rows_in_batch(kind: pa.DataType) -> int:
    """How many rows of an `array_field` make a batch."""
    return max(1, BATCH_BYTES // (int(kind.list_size) * np.dtype(NUMPY[kind.value_type]).itemsize))


# --- files


def entries(directory: Path) -> list[Path]:
    """What lies in a directory, by name; but for what is hidden."""
    with os.scandir(directory) as found:
        return [directory / name for name in sorted(entry.name for entry in found if not entry.name.startswith("."))]


def data_entries(directory: Path, form: str) -> list[Path]:
    """The entries but for what lies beside data: what Windows and DVC put there, a README; beside images also texts
    such as captions.
    """
    return [entry for entry in entries(directory) if not is_beside(entry, form)]


def is_beside(entry: Path, form: str) -> bool:
    """Whether an entry of a directory of such data is none of them, by its name."""
    if entry.name.lower() in BESIDE_DIRECTORIES:
        return True
    return bool(
        re.fullmatch(BESIDE, entry.name, re.IGNORECASE)
        or (form == "images" and re.search(BESIDE_IMAGES, entry.name, re.IGNORECASE))
    ) and (not entry.is_dir())


def stamp(path: Path) -> tuple[str, int]:
    """What changes when a file, or anything below a directory, does; and how many bytes there are.

    Raises:
        OSError: it isn't there, or can't be read.
    """
    status = path.stat()
    if not S_ISDIR(status.st_mode):
        check_regular(path, status)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}", status.st_size
    digest, size = hashlib.sha256(), 0
    for entry in data_entries(path, "images"):
        text, count = stamp(entry)
        digest.update(f"{entry.name}\0{text}\n".encode())
        size += count
    return digest.hexdigest(), size


def open_bytes(path: Path) -> tuple[pa.NativeFile, pa.NativeFile]:
    """The bytes of a file, decompressed if they are gzip or Zstandard (by how they begin, whatever its name); and the
    file itself.

    Reading raises OSError where the compressed data is damaged or cut short.
    """
    raw = pa.OSFile(str(path))
    start = raw.read(4)
    raw.seek(0)
    codec = "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start == b"\x28\xb5\x2f\xfd" else None
    return (pa.CompressedInputStream(raw, codec) if codec else raw), raw


def read_fully(stream: pa.NativeFile, size: int) -> bytes:
    """`size` bytes; fewer only at the end."""
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unreadable(path: Path | str, error: Exception) -> UserError:
    """What to tell of a file whose bytes can't be had."""
    if "compressed stream" in str(error) or "inflate" in str(error) or "decompress" in str(error).lower():
        return UserError(f"{path}: its compressed data is damaged or cut short: {error}")
    if isinstance(error, OSError):
        return UserError(f"{path}: can't be read: {limits.reason(error)}")
    return UserError(f"{path}: can't be read: {str(error).splitlines()[0]}")
