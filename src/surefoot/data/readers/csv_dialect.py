"""How a CSV file is written: its delimiter, and its encoding."""

import codecs
import re
from pathlib import Path

from surefoot.data.readers.raw_files import open_bytes, read_fully
from surefoot.params.prepare_section import CsvParams

START_BYTES = 1 << 16


def delimiter_of(csv: CsvParams, file: Path) -> str:
    """What stands between two values of a file."""
    if csv.delimiter != "auto":
        return csv.delimiter
    return "\t" if re.search(r"\.tsv(\.gz|\.zst)?$", file.name, re.IGNORECASE) else ","


def is_utf8(file: Path) -> bool:
    """Whether a file begins with text in UTF-8."""
    stream, raw = open_bytes(file)
    with raw:
        start = read_fully(stream, START_BYTES)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # which may be cut within a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def encoding_by_mark(file: Path) -> str | None:
    """The encoding that a byte order mark tells."""
    stream, raw = open_bytes(file)
    with raw:
        try:
            mark = read_fully(stream, 4)
        except OSError:  # told when it is read
            return None
    if mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if mark.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return "utf-16" if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None
