"""Dates and times: how their texts are read, in which form a column of them is kept, and their parts as numbers.

Instants, times with a zone or with their distance from UTC, are kept and taken apart as UTC: so the same instant gives
the same numbers, however it comes.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import is_text, numpy_values, text_array, whole_texts, with_nulls
from surefoot.params.date_formats import CLOCK, ISO, format_pattern, is_time_format

NO_ZONE_HERE = "has a time zone, and the others have none"
ZONE_HERE = (
    "has no time zone, and the others have one: write them with their distance from UTC, as in 2024-12-31T23:59:59Z"
)
PARTS = ("year", "month", "day", "weekday", "hour", "minute", "second")
DATE, TIME, MOMENT, INSTANT = pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.timestamp("us", "UTC")
"""The types in which dates are kept: days, times of a day, both, and both in UTC."""
FORMAT = b"format"
"""Under this key a field's metadata has the format of dates that were texts."""
# Without a format by params.yaml, texts are read in the one of these that fits them all.
KNOWN = (
    *(
        ISO,
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%m/%d/%Y",
        "%d/%m/%Y",
        "%m.%d.%Y",
        "%d.%m.%Y",
        "%m-%d-%Y",
        "%d-%m-%Y",
        "%m %d %Y",
        "%d %m %Y",
    ),
    *(
        "%b %d %Y",
        "%b %d, %Y",
        "%b-%d-%Y",
        "%d %b %Y",
        "%d. %b %Y",
        "%d-%b-%Y",
        "%d/%b/%Y",
        "%d%b%Y",
        "%Y-%b-%d",
        "%Y %b %d",
        CLOCK,
    ),
)
TWO_DIGITS = tuple(known.replace("%Y", "%y") for known in KNOWN if "%Y" in known)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class DatesRead(NamedTuple):
    """What texts say, in microseconds since 1970 (of a time alone: since midnight); and which of them are dates, name a
    time of the day, and a zone.
    """

    values: NDArray[np.int64]
    found: NDArray[np.bool_]
    timed: NDArray[np.bool_]
    zoned: NDArray[np.bool_]


def read_dates(texts: pa.Array, form: str) -> DatesRead:
    """Texts by a format; where that doesn't fit a text, as ISO 8601 has it. A null isn't found."""
    coded = texts.dictionary_encode()
    if not len(coded.dictionary):
        return DatesRead(np.zeros(len(texts), np.int64), *(np.zeros(len(texts), np.bool_) for _ in range(3)))
    distinct = pc.utf8_trim_whitespace(coded.dictionary)
    result, matched = _read(distinct, form)
    if form not in (ISO, CLOCK) and not matched.all():
        iso, _ = _read(distinct, CLOCK if is_time_format(form) else ISO)
        result = DatesRead(*(np.where(matched, one, other) for one, other in zip(result, iso, strict=True)))
    codes, valid = numpy_values(coded.indices)
    result = DatesRead(*(values[codes] for values in result))
    return result if valid is None else result._replace(found=result.found & valid)


def _read(texts: pa.Array, form: str) -> tuple[DatesRead, NDArray[np.bool_]]:
    """What texts without nulls say, and which of them have the look of the format."""
    expression = format_pattern(form)
    parts = pc.extract_regex(texts, expression)
    groups = set(re.findall(r"\?P<(\w)>", expression))
    matched = numpy_values(parts.is_valid())[0].astype(np.bool_)

    # Where a text doesn't match, a group is null, and its number 0. (What makes a scalar of Python's, as fill_null
    # does, imports pandas.)
    def text(group: str) -> pa.Array:
        return pc.struct_field(parts, group)

    def there(group: str) -> NDArray[np.bool_]:
        return numpy_values(pc.binary_length(text(group)))[0] > 0 if group in groups else np.zeros(len(texts), np.bool_)

    def number(group: str, default: int = 0) -> NDArray[np.int64]:
        if group not in groups:
            return np.full(len(texts), default, np.int64)
        found: NDArray[np.int64] = numpy_values(
            pc.replace_substring_regex(text(group), "^$", str(default)).cast(pa.int64())
        )[0]
        return found

    year, month, day = number("Y", 1970), number("m", 1), number("d", 1)
    if "y" in groups:  # as POSIX has it
        year = number("y") + np.where(number("y") < 69, 2000, 1900)
    if "b" in groups:
        names = pc.utf8_slice_codeunits(pc.utf8_lower(text("b")), 0, 3)
        month = numpy_values(pc.index_in(names, value_set=text_array(MONTHS)))[0].astype(np.int64) + 1
    months = np.clip((year - 1970) * 12 + month - 1, -(1 << 20), 1 << 20)
    first, after = (
        when.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for when in (months, months + 1)
    )
    right = matched & (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= after - first)
    hour = number("H")
    if "p" in groups:
        of_twelve = there("p")
        late = of_twelve & numpy_values(pc.match_substring(text("p"), "p", ignore_case=True))[0].astype(np.bool_)
        right &= ~of_twelve | ((hour >= 1) & (hour <= 12))
        hour = np.where(of_twelve, hour % 12 + 12 * late, hour)
    right &= hour <= 23
    fraction = number("f")
    if "f" in groups:  # digits beyond microseconds are cut off
        fraction = numpy_values(pc.utf8_slice_codeunits(pc.utf8_rpad(text("f"), 6, "0"), 0, 6).cast(pa.int64()))[0]
    seconds = (first + day - 1) * 86400 + hour * 3600 + number("M") * 60 + number("S") + number("s")
    if "z" in groups:
        seconds = seconds - _offset(text("z"))
    return DatesRead(seconds * 10**6 + fraction, right, there("H") | there("s"), there("z") | there("s")), matched


def _offset(zones: pa.Array) -> NDArray[np.int64]:
    """Seconds east of UTC: of +01:00, -0530, Z."""
    digits = pc.replace_substring_regex(zones, pattern=r"^[^+-].*$|[+:-]", replacement="")
    padded: NDArray[np.int64] = numpy_values(pc.utf8_rpad(digits, 4, "0").cast(pa.int64()))[0]
    seconds: NDArray[np.int64] = padded // 100 * 3600 + padded % 100 * 60
    return np.where(numpy_values(pc.starts_with(zones, pattern="-"))[0].astype(np.bool_), -seconds, seconds)


def as_date_type(result: DatesRead, type_: pa.DataType) -> pa.Array:
    """What was read as DATE, TIME, MOMENT or INSTANT; nulls where nothing was found."""
    values = np.where(result.found, result.values, 0)
    if type_ == DATE:
        return with_nulls((values // (86400 * 10**6)).astype(np.int32), ~result.found, type_)
    return with_nulls(values, ~result.found, type_)


def to_date_type(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Dates, times or timestamps of any unit and zone as DATE, TIME, MOMENT or INSTANT. What is finer than a
    microsecond is cut off.

    Raises:
        pa.ArrowException: it can't be.
    """
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))  # the same instants
        if type_ == DATE:
            array = array.cast(pa.timestamp(array.type.unit))
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        array = pc.floor_temporal(array, unit="microsecond")  # a cast cuts towards 1970
    return array.cast(type_, safe=False)


def date_type_of(type_: pa.DataType) -> pa.DataType:
    """The one of DATE, TIME, MOMENT and INSTANT in which a type of Arrow's is kept."""
    if pa.types.is_date32(type_):
        return DATE
    if pa.types.is_time(type_):
        return TIME
    return INSTANT if pa.types.is_timestamp(type_) and type_.tz else MOMENT


def parts_of_type(type_: pa.DataType) -> list[str]:
    """The parts that dates of a type have."""
    return list(PARTS[:4] if pa.types.is_date32(type_) else PARTS[4:] if pa.types.is_time(type_) else PARTS)


def date_parts(dates: pa.Array, parts: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Each part of each date as a number, (rows, parts), and which dates are there.

    Weekdays count from Monday, 0; seconds have fractions.
    """
    if pa.types.is_null(dates.type):
        dates = dates.cast(MOMENT)
    midnight_only = pa.types.is_date32(dates.type)
    columns = []
    for part in parts:
        if midnight_only and part in ("hour", "minute", "second"):
            columns.append(np.zeros(len(dates)))
            continue
        values = numpy_values(getattr(pc, "day_of_week" if part == "weekday" else part)(dates))[0].astype(np.float64)
        columns.append(values + numpy_values(pc.subsecond(dates))[0] if part == "second" else values)
    return np.column_stack(columns), None if not dates.null_count else numpy_values(dates)[1]


def to_date_column(array: pa.Array, type_: pa.DataType, form: str | None) -> tuple[pa.Array, tuple[int, str] | None]:
    """Texts, whole numbers that have a format of digits, dates and times as DATE, TIME, MOMENT or INSTANT; and of the
    first that can't be its row and why.
    """
    if array.is_null(nan_is_null=True).false_count == 0:
        return pa.nulls(len(array), type_), None
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text(array.type) or (form and (pa.types.is_integer(array.type) or pa.types.is_floating(array.type))):
        return _convert_texts(date_texts(array), type_, form or (CLOCK if type_ == TIME else ISO))
    if not pa.types.is_temporal(array.type) or pa.types.is_duration(array.type):
        fault = "is no date"
    elif pa.types.is_timestamp(array.type) and type_ != DATE and bool(array.type.tz) != (type_ == INSTANT):
        fault = NO_ZONE_HERE if array.type.tz else ZONE_HERE
    else:
        try:
            return to_date_type(array, type_), None
        except pa.ArrowException:
            fault = f"is no {'time of a day' if type_ == TIME else 'date'}"
    row = int(np.flatnonzero(numpy_values(array.is_valid())[0])[0])
    return pa.nulls(len(array), type_), (row, f"{array[row].as_py()} ({array.type}) {fault}")


def date_texts(array: pa.Array) -> pa.Array:
    """Texts, or whole numbers as such: 20240131 may be a date."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if is_text(array.type) else whole_texts(array)


def _convert_texts(texts: pa.Array, type_: pa.DataType, form: str) -> tuple[pa.Array, tuple[int, str] | None]:
    result = read_dates(texts, form)
    there = numpy_values(texts.is_valid())[0].astype(np.bool_)
    faults = [
        (f"is not a {describe_format(form)}", there & ~result.found),
        (NO_ZONE_HERE, there & result.zoned & np.bool_(type_ != INSTANT)),
        (ZONE_HERE, there & ~result.zoned & np.bool_(type_ == INSTANT)),
        (
            "names a time of the day, which those before it don't; prepare.kinds: date reads both",
            there & result.timed & np.bool_(type_ == DATE),
        ),
    ]
    wrong = [(int(np.flatnonzero(rows)[0]), why) for why, rows in faults if rows.any()]
    problem = None
    if wrong:
        row, why = min(wrong, key=lambda pair: pair[0])
        problem = row, f"{texts[row].as_py()!r} {why}"
    return as_date_type(result, type_), problem


def describe_format(form: str) -> str:
    """What a text of a format is."""
    if form == ISO:
        return "date or time such as 2024-12-31 or 2024-12-31 23:59:59"
    if form == CLOCK:
        return "time such as 9:05 or 23:59:59"
    example = datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC).strftime(form)
    return f"date such as {example} ({form})"
