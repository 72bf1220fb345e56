"""The first rows of a CSV file: the names of its columns; and, where they don't fit, what may be the cause."""

import codecs
import csv as plain
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.data.columns import is_number, many, some
from surefoot.data.readers.source import open_bytes, read_fully
from surefoot.params.prepare_section import CsvParams, PrepareParams

ROWS = 50  # that are looked at
START_BYTES = 1 << 16
DELIMITERS = (",", ";", "\t", "|", ":", " ")
NO_DELIMITERS = "\"'_.-()[]{}<>/\\\r\n"


def delimiter_of(csv: CsvParams, file: Path) -> str:
    """What stands between two values of a file."""
    if csv.delimiter != "auto":
        return csv.delimiter
    return "\t" if re.search(r"\.tsv(\.gz|\.zst)?$", file.name, re.IGNORECASE) else ","


def read_header(
    prepare: PrepareParams, file: Path, start: bytes, whole: bool, delimiter: str, encoding: str
) -> tuple[list[str], int]:
    """The names of the columns, one for each value of a row, and how many bytes come before the first row of values.

    `start` is how the file begins, as UTF-8; `whole`: all of it.

    Raises:
        UserError: there are no names, or no text.
    """
    csv = prepare.csv
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{file}: is a ZIP archive, or an Excel workbook; save it as CSV")
    lines = start.splitlines(keepends=True)
    reader = plain.reader((line.decode() for line in lines), delimiter=delimiter, quotechar=csv.quote)
    try:
        first = next(filter(None, reader), []) if csv.header is True else []
        length = sum(map(len, lines[: reader.line_num])) if csv.header is True else 0
        body = _whole_rows(reader, len(lines), whole)
    except UnicodeDecodeError as error:
        at = sum(map(len, lines[: reader.line_num])) + error.start
        raise UserError(
            f"{file}: byte {at} is not {encoding} text; save it as such, or name its encoding in prepare.csv.encoding"
        ) from None
    except plain.Error as error:
        raise UserError(f"{file}: row 1: not a CSV header: {error}") from None
    if b"\0" in start[:START_BYTES]:
        raise UserError(
            f"{file}: has NUL characters among its text, as UTF-16 has without a mark; name its encoding in"
            " prepare.csv.encoding: utf-16-le, say"
        )
    if csv.header is True:
        _check_names(prepare, file, first)
    if csv.quote != "'" and _fits_in_single_quotes(lines, delimiter, len(csv.given or first), body):
        raise UserError(f"""{file}: its values stand in single quotes: prepare.csv.quote: "'\"""")
    if (
        csv.header is not True
        and csv.given
        and body
        and [value.strip() for value in body[0]] == [name.strip() for name in csv.given]
    ):
        raise UserError(
            f"{file}: row 1 holds the names that params.yaml gives; prepare.csv.header: true says that row 1 is a"
            " header"
        )
    if csv.given and first and len(first) != len(csv.given) and first[-1].strip():
        raise UserError(f"{file}: row 1: has {many(len(first), 'value')}; prepare.csv.names has {len(csv.given)}")
    for number, row in enumerate([first, *body] if first else body, 1):
        if any(value != value.lstrip() and value.lstrip().startswith(csv.quote) for value in row):
            raise UserError(
                f"{file}: row {number}: a blank stands between a delimiter and a quote, which then is none; remove such"
                " blanks"
            )
    return _one_for_each(list(csv.given or first), body, row_labels=not csv.given), length


def _whole_rows(reader: Iterator[list[str]], lines: int, whole: bool) -> list[list[str]]:
    """The next rows; without one that may be cut off, or isn't text, which is told with its row when it is read."""
    rows = []
    try:
        for row in islice(filter(None, reader), ROWS):
            if not whole and reader.line_num == lines:  # type: ignore[attr-defined]
                break
            rows.append(row)
    except (UnicodeDecodeError, plain.Error):
        pass
    return rows


def _fits_in_single_quotes(lines: list[bytes], delimiter: str, values: int, body: list[list[str]]) -> bool:
    """Whether rows have as many values as there are names only where single quotes are taken for such: a delimiter
    stands within them.
    """
    if all(len(row) == values for row in body) or not any(value.startswith("'") for row in body for value in row):
        return False
    reader = plain.reader((line.decode(errors="replace") for line in lines), delimiter=delimiter, quotechar="'")
    return all(len(row) == values for row in islice(filter(None, reader), len(body)))


def _check_names(prepare: PrepareParams, file: Path, names: list[str]) -> None:
    if not names:
        raise UserError(f"{file}: is empty; a header row with the column names must come first")
    # Years, say, are names where one of them is the target's. Rows to predict have no target, and may have none of
    # their own.
    if prepare.csv.given is None and all(map(is_number, names)) and prepare.target and prepare.target not in names:
        raise UserError(
            f"{file}: row 1 holds numbers only, and none is {prepare.target!r} (prepare.target); a header row with the"
            " column names must come first, or name the columns in prepare.csv.header"
        )


def _one_for_each(names: list[str], body: list[list[str]], row_labels: bool) -> list[str]:
    """The names, as many as there are values in a row: R's row labels have none, and a delimiter at the ends of rows
    makes an empty value.
    """
    lengths = {len(row) for row in body}
    if lengths == {len(names) + 1}:
        if not any(row[-1].strip() for row in body):
            return [*names, ""]
        if row_labels and len({row[0] for row in body}) == len(body):
            return ["", *names]
    if lengths == {len(names) - 1} and not names[-1].strip():
        return names[:-1]
    return names


# --- what may be the cause ------------------------------------------------------------------------


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


def cause(prepare: PrepareParams, file: Path, encoding: str) -> str:
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
    return comment(lines[0])


def comment(line: str) -> str:
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


def names_told(error: UserError, prepare: PrepareParams, file: Path, encoding: str) -> UserError:
    """The same error, with what may be its cause."""
    told = cause(prepare, file, encoding)
    return UserError(f"{error}; {told}") if told else error


def differing(names: list[str], file: Path, others: list[str], first: Path) -> UserError:
    """What to tell of a part file whose columns aren't those of the first."""
    more, fewer = (sorted(set(one) - set(other)) for one, other in ((names, others), (others, names)))
    told = f"additional: {some(more)}" if more else f"missing: {some(fewer)}" if fewer else "the order differs"
    return UserError(f"{file}: its columns are {some(names)}; those of {first} are {some(others)}: {told}")
