"""CSV files as one stream of bytes for Arrow's reader, their header rows taken out, however many the files are."""

import codecs
import csv as plain
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv

from surefoot.data.columns import is_number, kind_told, some
from surefoot.data.readers.source import Places, Progress, Source, check_columns, naming, open_bytes, read_fully, unreadable
from surefoot.errors import UserError
from surefoot.params import Prepare

BLOCK_BYTES = 1 << 20  # fits a CPU's cache: Arrow is a third slower by blocks of 4 MB
NULLS = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null"]
KINDS = {"numeric": pa.float64(), "boolean": pa.bool_(), "category": pa.string(), "date": pa.string()}
WANTED = ((pa.types.is_floating, "a number"), (pa.types.is_integer, "a whole number"), (pa.types.is_boolean, "true or false"))
QUOTE = b'"'


def open_csv(prepare: Prepare, files: list[Path], _labels: Path | None) -> Source:
    """The rows of CSV files that have the same columns, file after file.

    A column is of the type of its kind, where prepare.kinds names it; else of the type that fits its values in the first megabyte. The
    target is a string; in regression a float64. Columns that aren't needed aren't parsed.

    Raises:
        UserError: naming file, row and column. Rows count from 1, a header included, empty lines not.
    """
    header = int(prepare.csv.header is True)
    progress, places = Progress(), Places(header)
    places.start(files[0], 0)
    schema, inferred = _infer(prepare, files)

    def batches() -> Iterator[pa.RecordBatch]:
        rows, at = 0, files[0]
        try:
            for file, batch in _read(prepare, files, schema, progress):
                if file is not at:
                    places.start(file, rows)
                    at = file
                rows += batch.num_rows
                yield batch
        except _Fault as fault:
            raise _find(prepare, files, schema, inferred, fault) from None
        if not rows:
            place = files[0] if len(files) == 1 else files[0].parent
            raise UserError(f"{place}: has {'a header but ' * header}no rows")

    return Source(schema, batches(), places, None, lambda: progress.read, places)


class _Fault(Exception):
    """What Arrow's reader says of a row, with the names of all columns."""

    def __init__(self, error: Exception, names: list[str]) -> None:
        super().__init__(str(error))
        self.names = names


def _infer(prepare: Prepare, files: list[Path]) -> tuple[pa.Schema, set[str]]:
    """The columns that are needed with their types, and which of the types are guessed from the first block."""
    text = _Text(prepare, files, Progress(), joined=True)
    try:
        needed = check_columns(prepare, text.names, files[0])
        types = {name: kind for name in needed if (kind := _declared(prepare, name))}
        try:
            schema = _reader(text, needed, types).schema
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise _find(prepare, files, pa.schema(list(types.items())), set(), _Fault(error, text.names)) from None
            schema = pa.schema([(name, types.get(name, pa.float64())) for name in needed])
    finally:
        text.close()
    return naming(pa.schema([field.with_type(_usable(field.type)) for field in schema]), text.names), {*needed} - types.keys()


def _usable(guess: pa.DataType) -> pa.DataType:
    if pa.types.is_null(guess):
        return pa.float64()  # an empty column: numbers, if anything comes
    if pa.types.is_binary(guess):
        return pa.string()  # text that isn't UTF-8, which is refused when it is read
    return guess


def _declared(prepare: Prepare, name: str) -> pa.DataType | None:
    """The type that params.yaml gives a column."""
    if name == prepare.target:
        return pa.float64() if prepare.task == "regression" else pa.string()
    kind = kind_told(name, prepare)
    return KINDS[kind] if kind else None


def _read(prepare: Prepare, files: list[Path], schema: pa.Schema, progress: Progress) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Batches, each with the file it is from. Raises _Fault for what Arrow refuses, with its row number across `files`."""
    text = _Text(prepare, files, progress)
    try:
        for number, batch in enumerate(_reader(text, schema.names, dict(zip(schema.names, schema.types, strict=True)))):
            yield text.blocks[number], batch  # Arrow gives a batch for each block that it reads
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise _Fault(error, text.names) from None
    finally:
        text.close()


def _reader(text: "_Text", columns: list[str], types: dict[str, pa.DataType]) -> csv.CSVStreamingReader:
    return csv.open_csv(
        pa.PythonFile(text, mode="r"),
        # Threads don't make this reader faster, and without them it knows in which row a fault is.
        read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=text.names),
        parse_options=csv.ParseOptions(delimiter=text.delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types, include_columns=columns, strings_can_be_null=True, null_values=NULLS),
    )


class _Text:
    """A file object: the text of files as UTF-8, one after the other, without their headers; a block is of one file, unless they are joined."""

    closed = False

    def __init__(self, prepare: Prepare, files: list[Path], progress: Progress, joined: bool = False) -> None:
        self._joined = joined
        self.delimiter = prepare.csv.delimiter
        if not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise UserError(f"params.yaml: prepare.csv.delimiter: {self.delimiter!r} can't stand between values; it must be an ASCII character such as , or ;")
        try:
            "".encode(prepare.csv.encoding)  # fails also for codecs of other things than text, such as hex
            codec = codecs.lookup(prepare.csv.encoding).name
        except (LookupError, UnicodeError):
            raise UserError(f"params.yaml: prepare.csv.encoding: there is no encoding {prepare.csv.encoding!r}; utf-8, latin-1 and utf-16 are some") from None
        self._encoding = None if codec in ("utf-8", "utf-8-sig") else codec
        self._given = None if prepare.csv.header is True else list(prepare.csv.header)
        self._progress = progress
        self._files = iter(files)
        self._first = files[0]
        self.blocks: list[Path] = []
        """The file of each block that was read."""
        self._stream: pa.NativeFile | None = None
        self._header = b""
        self.names = self._given or []
        self._ahead = self._open_next()

    def read(self, size: int) -> bytes:
        """A block of `size` bytes; fewer at the end of a file, and none after the last."""
        block = self._read_one(size)
        while self._joined and len(block) < size and (more := self._read_one(size - len(block))):
            block += more
        return block

    def _read_one(self, size: int) -> bytes:
        while self._stream is not None:
            file, block = self._file, self._ahead[:size]
            self._ahead = self._ahead[size:]
            if len(block) < size:
                block += self._read(size - len(block))
            if len(block) < size:
                block += self._close_part()
                self._ahead = self._open_next()
            # Of blank lines at the very start Arrow makes no batch.
            if block if self.blocks else block.strip(b"\r\n"):
                self.blocks.append(file)
                return block
        return b""

    def close(self) -> None:
        self.closed = True
        if self._stream is not None:
            self._raw.close()
            self._stream = None

    def _open_next(self) -> bytes:
        """Open the next file; its first bytes after the header, perhaps none."""
        file = next(self._files, None)
        if file is None:
            self._stream = None
            return b""
        self._file, self._before, self._quotes, self._last = file, self._progress.read, 0, b"\n"
        try:
            self._stream, self._raw = open_bytes(file)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None
        if self._encoding:
            self._stream = pa.transcoding_input_stream(self._stream, self._encoding, "utf-8")
        start = self._read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
        if self._given:
            return start
        if not (self._header and start.startswith(self._header)):
            names, length = _header(file, start, self.delimiter, self._encoding or "UTF-8")
            if not self.names:
                self.names = names
                self._header = start[:length] if start[:length].endswith((b"\n", b"\r")) else b""
            elif names != self.names:
                raise UserError(f"{file}: its columns are {some(names)}; those of {self._first} are {some(self.names)}: {_difference(names, self.names)}")
        else:
            length = len(self._header)
        return start[length:]

    def _read(self, size: int) -> bytes:
        try:
            part = read_fully(self._stream, size)
        except UnicodeDecodeError as error:
            raise UserError(f"{self._file}: is not text in {self._encoding} (prepare.csv.encoding): {error.reason}") from None
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._file, error) from None
        self._progress.read = self._before + self._raw.tell()
        self._quotes += part.count(QUOTE)
        self._last = part[-1:] or self._last
        return part

    def _close_part(self) -> bytes:
        """A line end, if the file's last row has none, so that the next file's first row isn't part of it."""
        self._raw.close()
        if self._quotes % 2:
            _check_quotes(self._file, self.delimiter, self._encoding or "utf-8-sig")
        ended, self._last = self._last in b"\r\n", b"\n"
        return b"" if ended else b"\n"


def _header(file: Path, start: bytes, delimiter: str, encoding: str) -> tuple[list[str], int]:
    """The names in the first row that isn't empty, and how many bytes it and what is before it take."""
    lines = start.splitlines(keepends=True)
    reader = plain.reader((line.decode() for line in lines), delimiter=delimiter)
    try:
        names = next(filter(None, reader), [])
    except UnicodeDecodeError as error:
        at = sum(map(len, lines[: reader.line_num])) + error.start
        raise UserError(f"{file}: byte {at} is not {encoding} text; save it as such, or name its encoding in prepare.csv.encoding") from None
    except plain.Error as error:
        raise UserError(f"{file}: row 1: not a CSV header: {error}") from None
    if not names:
        raise UserError(f"{file}: is empty; a header row with the column names must come first")
    if all(map(is_number, names)):
        raise UserError(f"{file}: row 1 holds numbers only; a header row with the column names must come first, or name the columns in prepare.csv.header")
    return names, sum(map(len, lines[: reader.line_num]))


def _check_quotes(file: Path, delimiter: str, encoding: str) -> None:
    """Refuse a file that ends inside quotes, which Arrow takes as a value; by Python's slow reader, as an odd quote can be right: 5" pipe."""
    stream, raw = open_bytes(file)
    row = 0
    with raw, io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="") as text:
        reader = plain.reader(text, delimiter=delimiter, strict=True)
        try:
            for values in reader:
                row += bool(values)
        except plain.Error as error:
            if "expected after" not in str(error):
                raise UserError(f"{file}: row {row + 1}: a quote is opened and never closed; the file may be cut short") from None


def _find(prepare: Prepare, files: list[Path], schema: pa.Schema, inferred: set[str], fault: _Fault) -> UserError:
    """What to tell of a fault. Of several files, read one by one, it is the first that has one."""
    if len(files) == 1:
        return _explain(prepare, files[0], schema, inferred, fault)
    for file in files:
        try:
            for _ in _read(prepare, [file], schema, Progress()):
                pass
        except _Fault as found:
            return _explain(prepare, file, schema, inferred, found)
    return _explain(prepare, files[0].parent, schema, inferred, fault)


def _explain(prepare: Prepare, file: Path, schema: pa.Schema, inferred: set[str], fault: _Fault) -> UserError:
    """Arrow says `In CSV column #3: Row #7: CSV conversion error to double: invalid value 'x'`."""
    header = prepare.csv.header is True
    message = str(fault)
    found = re.search(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid (?:value '(.*)'|UTF8 data)", message, re.DOTALL)
    if found:
        column, row, value = found.groups()
        name = fault.names[int(column)]
        place = f"{file}: row {int(row) + header}, column {name!r}"
        if value is None:
            return UserError(f"{place}: a text that is not UTF-8; save it as such, or name its encoding in prepare.csv.encoding")
        kind = schema.field(name).type if name in schema.names else pa.float64()
        wanted = next((text for test, text in WANTED if test(kind)), "a date or time such as 2024-12-31 or 2024-12-31 23:59:59")
        hint = f", as those before it; where it is right, say what the column holds: prepare.kinds: {{{name}: {_wider(kind)}}}" if name in inferred else ""
        return UserError(f"{place}: {value!r} is not {wanted}{hint}")
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if found:
        row, expected, got = found.groups()
        return UserError(f"{file}: row {int(row) + header}: has {got} values; {'the header' if header else 'prepare.csv.header'} has {expected}")
    if "straddl" in message:
        return UserError(f"{file}: a row is longer than {BLOCK_BYTES} bytes, or a quote is opened and never closed")
    return UserError(f"{file}: not a CSV table: {message.splitlines()[0]}")


def _wider(kind: pa.DataType) -> str:
    return "numeric" if pa.types.is_integer(kind) else "date" if pa.types.is_date(kind) else "category"


def _difference(names: list[str], others: list[str]) -> str:
    return _these(set(names) - set(others), "additional") or _these(set(others) - set(names), "missing") or "the order differs"


def _these(names: set[str], what: str) -> str:
    return f"{what}: {some(sorted(names))}" if names else ""
