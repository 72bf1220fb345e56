"""Why the columns of a CSV file aren't those that are needed: another delimiter, a comment, a title."""

import csv as plain
import re
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.data.readers.csv_dialect import START_BYTES, delimiter_of, is_utf8
from surefoot.data.readers.csv_header import ROWS
from surefoot.data.readers.raw_files import open_bytes, read_fully
from surefoot.params.prepare_section import PrepareParams

DELIMITERS = (",", ";", "\t", "|", ":", " ")
NO_DELIMITERS = "\"'_.-()[]{}<>/\\\r\n"


def likely_cause(prepare: PrepareParams, file: Path, encoding: str) -> str:
    """Why the columns of a file aren't those that are needed, as far as its first rows tell: with what to do; empty
    where they don't.
    """
    stream, raw = open_bytes(file)
    with raw:
        start = read_fully(stream, START_BYTES)
    if encoding.partition("-")[0] not in ("utf", "utf8") or encoding.startswith(("utf-16", "utf-32")):
        first = start.split(b"\n", 1)[0]
        if (
            prepare.target.encode() in first
            and prepare.target not in first.decode(encoding, errors="replace")
            and is_utf8(file)
        ):
            return f"it is UTF-8, not {encoding}: prepare.csv.encoding: utf-8"
    text = start.decode(encoding, errors="replace").removeprefix("\ufeff")
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()][:ROWS]
    if len(text) >= START_BYTES // 4 and len(lines) < ROWS:
        lines = lines[:-1]
    return next((told for told in (look(prepare, file, lines) for look in CAUSES) if told), "") if lines else ""


def _page(_: PrepareParams, __: Path, lines: list[str]) -> str:
    kinds = {"<": "a web page, or XML", "{": "JSON", "[{": "JSON"}
    return next((f"it looks like {kind}" for start, kind in kinds.items() if lines[0].lstrip().startswith(start)), "")


def _sep(_: PrepareParams, __: Path, lines: list[str]) -> str:
    found = re.fullmatch(r'"?sep=(.)"?', lines[0].strip())
    return (
        f'row 1 names the delimiter, as Excel writes it; remove the row, and set prepare.csv.delimiter: "{found[1]}"'
        if found
        else ""
    )


def _comment(_: PrepareParams, __: Path, lines: list[str]) -> str:
    return looks_like_comment(lines[0])


def looks_like_comment(line: str) -> str:
    """What to tell of a row that has the look of a comment; empty where it hasn't."""
    return (
        f"{line[:40]!r} looks like a comment, of which a CSV table has none: remove such lines"
        if re.match(r"\s*(#|%|//|--)", line)
        else ""
    )


def _blanks_around(prepare: PrepareParams, file: Path, lines: list[str]) -> str:
    names = next(plain.reader(lines, delimiter=delimiter_of(prepare.csv, file), quotechar=prepare.csv.quote))
    name = next((name for name in names if name != prepare.target and name.strip() == prepare.target), None)
    return f"blanks belong to a name: prepare.target: {name!r}" if name else ""


def _single_quotes(prepare: PrepareParams, file: Path, lines: list[str]) -> str:
    cells = re.split(re.escape(delimiter_of(prepare.csv, file)), lines[-1])
    quoted = [cell for cell in cells if re.match(r"\s*'|.*'\s*$", cell)]
    return (
        """its values stand in single quotes: prepare.csv.quote: "'\""""
        if 2 * len(quoted) > len(cells) and prepare.csv.quote != "'"
        else ""
    )


def _other_delimiter(prepare: PrepareParams, file: Path, lines: list[str]) -> str:
    here = delimiter_of(prepare.csv, file)
    wanted = {len(prepare.csv.given)} if prepare.csv.given else None
    ours = _lengths(lines, here, prepare.csv.quote)
    found = {}
    others = [
        sign for sign in dict.fromkeys(lines[0]) if sign.isascii() and not sign.isalnum() and sign not in NO_DELIMITERS
    ]
    for delimiter in dict.fromkeys((*DELIMITERS, *others)):
        lengths = _lengths(lines, delimiter, prepare.csv.quote)
        names = next(plain.reader(lines, delimiter=delimiter, quotechar=prepare.csv.quote))
        fits = (
            len(set(lengths)) == 1
            and lengths[0] > 1
            and (wanted is None or set(lengths) == wanted)
            and not (delimiter == " " and here in lines[0])
        )
        if (
            delimiter != here
            and fits
            and (
                prepare.target in names
                or prepare.csv.given
                or set(ours) == {1}
                or (ours[0] == 1 and len(set(ours)) > 1)
            )
        ):
            found[delimiter] = (prepare.target in names, lengths[0])
    if found:
        best = max(found, key=lambda delimiter: found[delimiter])
        if all(line.count(best) == 2 * line.count(2 * best) for line in lines):
            return f"its values seem to stand between {2 * best!r}, which is more than one character; save it with one"
        return f"its values seem to stand between {_named(best)}: prepare.csv.delimiter: {_yaml(best)}"
    if here not in "".join(lines) and len(split := {len(line.split()) for line in lines}) == 1 and max(split) > 1:
        return "its values seem to stand between blanks, as many as fit; save it with one delimiter"
    return ""


def _lengths(lines: list[str], delimiter: str, quote: str) -> list[int]:
    try:
        return [len(row) for row in plain.reader(lines, delimiter=delimiter, quotechar=quote)] or [0]
    except plain.Error:
        return [0]


def _named(delimiter: str) -> str:
    return {"\t": "tabs", " ": "blanks"}.get(delimiter, repr(delimiter))


def _yaml(delimiter: str) -> str:
    return (
        '"\\t"' if delimiter == "\t" else f'"{delimiter}"' if delimiter.isprintable() else f'"\\x{ord(delimiter):02x}"'
    )


def _quoted_whole(prepare: PrepareParams, file: Path, lines: list[str]) -> str:
    delimiter = delimiter_of(prepare.csv, file)
    rows = list(plain.reader(lines, delimiter=delimiter, quotechar=prepare.csv.quote))
    return (
        "each row stands in quotes as a whole; save it without these"
        if all(len(row) == 1 and delimiter in row[0] for row in rows)
        else ""
    )


def _title(prepare: PrepareParams, file: Path, lines: list[str]) -> str:
    lengths = _lengths(lines, delimiter_of(prepare.csv, file), prepare.csv.quote)
    more = next((number for number, length in enumerate(lengths, 1) if length > 1), None)
    if prepare.csv.header is not True or lengths[0] > 1 or more is None:
        return ""
    return (
        f"row 1, taken for the header, has one value, and row {more} has {lengths[more - 1]}: the header must be the"
        " first row"
    )


CAUSES = (_page, _sep, _blanks_around, _other_delimiter, _comment, _single_quotes, _quoted_whole, _title)


def with_likely_cause(error: UserError, prepare: PrepareParams, file: Path, encoding: str) -> UserError:
    """The same error, with what may be its cause."""
    told = likely_cause(prepare, file, encoding)
    return UserError(f"{error}; {told}") if told else error
