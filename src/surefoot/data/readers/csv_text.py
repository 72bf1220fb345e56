"""The text of CSV files as one stream of UTF-8, without their headers."""

import codecs
import csv as python_csv
import io
from pathlib import Path

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.data.readers.csv_dialect import delimiter_of, encoding_by_mark, is_utf8
from surefoot.data.readers.csv_header import differing_columns, read_header
from surefoot.data.readers.raw_files import open_bytes, read_fully, unreadable
from surefoot.data.readers.source import BytesRead
from surefoot.params.prepare_section import PrepareParams

BLOCK_BYTES = 1 << 20  # fits a CPU's cache: Arrow is a third slower by blocks of 4 MB


class CsvText:
    """A file object: the text of files as UTF-8, one after the other, without their headers; a block is of one file,
    unless they are joined.
    """

    closed = False

    def __init__(self, prepare: PrepareParams, files: list[Path], progress: BytesRead, joined: bool = False) -> None:
        self._joined = joined
        self.block_bytes = BLOCK_BYTES
        self._prepare = prepare
        self.delimiter = delimiter_of(prepare.csv, files[0])
        if not self.delimiter.isascii() or self.delimiter in f"{prepare.csv.quote}\r\n":
            raise UserError(
                f"params.yaml: prepare.csv.delimiter: {self.delimiter!r} can't stand between values; it must be an"
                " ASCII character such as , or ;"
            )
        self._told = codecs.lookup(prepare.csv.encoding).name
        self._encoding: str | None = None
        self._quote = prepare.csv.quote.encode()
        self._progress = progress
        self._files = iter(files)
        self._first = files[0]
        self.blocks: list[Path] = []
        """The file of each block that was read."""
        self._stream: pa.NativeFile | None = None
        self._header = b""
        self.names: list[str] = []
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

    @property
    def decoder(self) -> str:
        """Python's name of the file's encoding."""
        return self._encoding or "utf-8-sig"

    def close(self) -> None:
        """Close the file that is open."""
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
        told = encoding_by_mark(file) or self._told
        self._encoding = None if told in ("utf-8", "utf-8-sig") else told
        if self._encoding:
            self._stream = pa.transcoding_input_stream(self._stream, self._encoding, "utf-8")
        start = self._read(self.block_bytes).removeprefix(codecs.BOM_UTF8)
        if self._prepare.csv.header is not True and self.names:
            return start
        if not (self._header and start.startswith(self._header)):
            names, length = read_header(
                self._prepare, file, start, len(start) < self.block_bytes, self.delimiter, self._encoding or "UTF-8"
            )
            if not self.names:
                self.names = names
                self._header = start[:length] if start[:length].endswith((b"\n", b"\r")) else b""
            elif names != self.names:
                raise differing_columns(names, file, self.names, self._first)
        else:
            length = len(self._header)
        return start[length:]

    def _read(self, size: int) -> bytes:
        try:
            part = read_fully(self._stream, size)
        except UnicodeError as error:  # of UTF-16 without its mark it is no UnicodeDecodeError
            why = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            other = "; it is UTF-8: prepare.csv.encoding: utf-8" if is_utf8(self._file) else ""
            raise UserError(
                f"{self._file}: is not text in {self._encoding} (prepare.csv.encoding): {why}{other}"
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._file, error) from None
        self._progress.read = self._before + self._raw.tell()
        self._quotes += part.count(self._quote)
        self._last = part[-1:] or self._last
        return part

    def _close_part(self) -> bytes:
        """A line end, if the file's last row has none, so that the next file's first row isn't part of it."""
        self._raw.close()
        if self._quotes % 2:
            _check_quotes(self._file, self.delimiter, self._prepare.csv.quote, self.decoder)
        ended, self._last = self._last in b"\r\n", b"\n"
        return b"" if ended else b"\n"


def _check_quotes(file: Path, delimiter: str, quote: str, encoding: str) -> None:
    """Refuse a file that ends inside quotes, which Arrow takes as a value; by Python's slow reader, as an odd quote can
    be right: 5" pipe.
    """
    stream, raw = open_bytes(file)
    row = 0
    with raw, io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="") as text:
        reader = python_csv.reader(text, delimiter=delimiter, quotechar=quote, strict=True)
        try:
            for values in reader:
                row += bool(values)
        except python_csv.Error as error:
            if "expected after" not in str(error):
                raise UserError(
                    f"{file}: row {row + 1}: a quote is opened and never closed; the file may be cut short"
                ) from None
