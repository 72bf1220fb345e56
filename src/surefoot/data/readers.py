"""Raw data as a stream of Arrow record batches, checked on the way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv

from surefoot.errors import UserError
from surefoot.params import Prepare

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Source:
    """Rows to read once: Arrow batches of a schema; `where` names a row of the stream, from 0, for messages."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    where: Callable[[int], str]
    bytes_total: int | None
    bytes_read: Callable[[], int]


def open_source(prepare: Prepare, source: str, labels: str | None) -> Source:  # noqa: ARG001
    """Open a source; only CSV files of numbers so far."""
    path = Path(source)
    _, batches = read_csv(path, prepare.target)
    first = next(batches)
    return Source(first.schema, chain([first], batches), lambda row: f"{path}: row {row + 2}", path.stat().st_size, lambda: 0)


def read_csv(path: Path, target: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """Open a CSV file with a header row.

    Returns the names of the inputs, in file order, and the rows: each input a float64 column, the target a string column.

    Raises:
        UserError: naming file, row and column. Rows are counted from 1, the header being row 1.
    """
    names = _header(path, target)
    inputs = [name for name in names if name != target]
    types = {name: pa.float64() for name in inputs} | {target: pa.string()}
    try:
        # use_threads=False: Arrow then knows in which row a fault is.
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=["", "NA", "NaN", "nan", "null"]),
        )
    except pa.ArrowInvalid as error:
        raise UserError(_explain(path, names, error)) from None
    return inputs, _rows(path, names, reader)


def _header(path: Path, target: str) -> list[str]:
    import csv as plain

    if path.is_dir():
        raise UserError(f"{path}: is a directory; prepare.source must be a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Arrow leaves out empty lines too.
            names = next(filter(None, plain.reader(file)), [])
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; prepare.source must name a CSV file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; prepare.source must be a CSV file in UTF-8") from None
    except plain.Error as error:
        raise UserError(f"{path}: row 1: not a CSV header: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if not names:
        raise UserError(f"{path}: is empty; a header row with the column names must come first")
    if all(_is_number(name) for name in names):
        raise UserError(f"{path}: row 1 holds numbers only; a header row with the column names must come first")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: the header names column {name!r} more than once")
    if target not in names:
        raise UserError(f"{path}: has no column {target!r} (prepare.target); it has {_some(names)}")
    if len(names) == 1:
        raise UserError(f"{path}: has no column but {target!r}, so nothing to learn from")
    return names


def _rows(path: Path, names: list[str], reader: csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    first = 2  # the header is row 1
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        except pa.ArrowInvalid as error:
            raise UserError(_explain(path, names, error)) from None
        first += batch.num_rows
        yield batch
    if first == 2:
        raise UserError(f"{path}: has a header but no rows")


def _explain(path: Path, names: list[str], error: Exception) -> str:
    """Arrow says `In CSV column #3: Row #7: CSV conversion error to double: invalid value 'x'`."""
    import re

    message = str(error)
    found = re.search(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid (?:value '(.*)'|UTF8 data)", message, re.DOTALL)
    if found:
        column, row, value = found.groups()
        what = "a text that is not UTF-8" if value is None else f"{value!r} is not a number"
        return f"{path}: row {row}, column {names[int(column)]!r}: {what}"
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if found:
        row, expected, got = found.groups()
        return f"{path}: row {row}: has {got} values; the header has {expected}"
    if "Empty CSV file" in message:  # a header without a line end
        return f"{path}: has a header but no rows"
    return f"{path}: not a CSV table: {message.splitlines()[0]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
