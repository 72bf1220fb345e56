"""The first rows of a CSV file: the names of its columns, and whether its values fit them."""

import csv as plain
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names, number_of
from surefoot.data.number_notation import is_number
from surefoot.data.readers.csv_dialect import START_BYTES
from surefoot.params.prepare_section import PrepareParams

ROWS = 50  # that are looked at


def read_header(
    prepare: PrepareParams, file: Path, start: bytes, whole: bool, delimiter: str, encoding: str
) -> tuple[list[str], int]:
    """The names of the columns, one for each value of a row, and how many bytes come before the first row of values.

    `start` is how the file begins, as UTF-8; `whole`: all of it.

    Raises:
        UserError: there are no names, or no text.
    """
    csv = prepare.csv
    first, body, length = _first_rows(prepare, file, start, whole, delimiter, encoding)
    if b"\0" in start[:START_BYTES]:
        raise UserError(
            f"{file}: has NUL characters among its text, as UTF-16 has without a mark; name its encoding in"
            " prepare.csv.encoding: utf-16-le, say"
        )
    if csv.header is True:
        _check_names(prepare, file, first)
    if csv.quote != "'" and _fits_in_single_quotes(start, delimiter, len(csv.given or first), body):
        raise UserError(f"""{file}: its values stand in single quotes: prepare.csv.quote: "'\"""")
    given = csv.given or ()
    if csv.header is not True and given and body and [*map(str.strip, body[0])] == [*map(str.strip, given)]:
        raise UserError(
            f"{file}: row 1 holds the names that params.yaml gives; prepare.csv.header: true says that row 1 is a"
            " header"
        )
    if given and first and len(first) != len(given) and first[-1].strip():
        raise UserError(f"{file}: row 1: has {number_of(len(first), 'value')}; prepare.csv.names has {len(given)}")
    if row := _blank_before_quote([first, *body] if first else body, start, delimiter, csv.quote):
        raise UserError(
            f"{file}: row {row}: a blank stands between a delimiter and a quote, which then is none; remove such blanks"
        )
    return _one_for_each(list(given or first), body, row_labels=not given), length


def _first_rows(
    prepare: PrepareParams, file: Path, start: bytes, whole: bool, delimiter: str, encoding: str
) -> tuple[list[str], list[list[str]], int]:
    """The values of the header, where there is one, and of the rows after it; and the header's bytes."""
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{file}: is a ZIP archive, or an Excel workbook; save it as CSV")
    lines = start.splitlines(keepends=True)
    reader = plain.reader((line.decode() for line in lines), delimiter=delimiter, quotechar=prepare.csv.quote)
    try:
        first = next(filter(None, reader), []) if prepare.csv.header is True else []
        length = sum(map(len, lines[: reader.line_num]))
        return first, _whole_rows(reader, len(lines), whole), length
    except UnicodeDecodeError as error:
        at = sum(map(len, lines[: reader.line_num])) + error.start
        raise UserError(
            f"{file}: byte {at} is not {encoding} text; save it as such, or name its encoding in prepare.csv.encoding"
        ) from None
    except plain.Error as error:
        raise UserError(f"{file}: row 1: not a CSV header: {error}") from None


def _blank_before_quote(rows: list[list[str]], start: bytes, delimiter: str, quote: str) -> int | None:
    """The number of the first row in which a blank stands between a delimiter and a quote.

    By the text where values look so: one that stands in quotes may begin with a blank and a quote.
    """
    if not any(value[:1].isspace() and value.lstrip().startswith(quote) for row in rows for value in row):
        return None
    mark, between = re.escape(quote), re.escape(delimiter)
    values = re.compile(rf"(?:{mark}(?:[^{mark}]|{mark}{mark})*{mark})?[^{between}\r\n]*({between}|\r\n|\r|\n|$)")
    number, empty = 1, True
    for found in values.finditer(start.decode(errors="replace")):
        if re.match(rf"[^\S\r\n]+{mark}", found[0]):
            return number
        ends = found[1] != delimiter
        empty = empty and ends and found[0] == found[1]  # rows without anything aren't counted
        number, empty = (number + (not empty), True) if ends else (number, False)
        if number > len(rows):
            break
    return None


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


def _fits_in_single_quotes(start: bytes, delimiter: str, values: int, body: list[list[str]]) -> bool:
    """Whether rows have as many values as there are names only where single quotes are taken for such: a delimiter
    stands within them.
    """
    if all(len(row) == values for row in body) or not any(value.startswith("'") for row in body for value in row):
        return False
    lines = (line.decode(errors="replace") for line in start.splitlines(keepends=True))
    reader = plain.reader(lines, delimiter=delimiter, quotechar="'")
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


def differing_columns(names: list[str], file: Path, others: list[str], first: Path) -> UserError:
    """What to tell of a part file whose columns aren't those of the first."""
    more, fewer = (sorted(set(one) - set(other)) for one, other in ((names, others), (others, names)))
    told = (
        f"additional: {listed_names(more)}"
        if more
        else f"missing: {listed_names(fewer)}"
        if fewer
        else "the order differs"
    )
    return UserError(
        f"{file}: its columns are {listed_names(names)}; those of {first} are {listed_names(others)}: {told}"
    )
