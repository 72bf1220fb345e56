"""The fitted preparation: what becomes of each input column, fitted on the training rows, and applied the same way to
any row that comes later.

A list of plain dicts, one a column, as schema.json has it:

column, kind     its name, and numeric, boolean, category, date or array
unit             of numbers that came as texts: what stood at each, $ or % say
fill             what stands for a missing value, for each number: [0.0]; null: a missing value is an error
indicator        whether a feature says where a value was missing
subtract, divide the scaling of each number
values           a category's values as seen in training; null, at the end, is a missing value
encode           a category's: onehot, a feature a value after one for values not seen in training; or codes, one
feature with the
                 value's number from 1, and 0 for values not seen in training
parts            a date's, each a number
zone             UTC: its parts are those of the time in UTC, and a time without a zone is an error; left out: it has
none
format           how its texts are written, as strptime has it; left out: as ISO 8601 has it
first, width     its features: where they start, how many there are
names            the features' names
"""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.arrow import is_text, numbers, text_array
from surefoot.data.columns import Column, kind_told
from surefoot.data.dates import DATE, INSTANT, MOMENT, TIME, convert, date_parts, parts_of
from surefoot.data.normalization import ByteStatistics, Statistics, median, normalize, scaling
from surefoot.data.texts import few_strays
from surefoot.data.vocabulary import Vocabulary, keys, texts_of_categories
from surefoot.params.prepare_section import PrepareParams

Feature = dict[str, Any]

TILE = 1 << 16
YEAR = r"(?<!\d)(?:19|20)\d\d(?!\d)"
MONTH = r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b"
LIKE_DATE = (
    rf"{YEAR}\W{{0,2}}\d{{1,2}}(?!\d)|(?<!\d)\d{{1,2}}\W{{1,2}}{YEAR}|^\d\d?\W{{1,2}}\d\d?\W{{1,2}}\d\d(\d\d)?$|"
    rf"{YEAR}.{{1,2}}\d\d?.{{1,2}}\d\d?|{MONTH}.*\d|\d.*{MONTH}"
)
ID_VALUES = 1 << 12
"""Of a column that may count its rows so many values at most are kept, to see whether they all differ; and fewer than
twenty rows say nothing.
"""


# --- applying it ---------------------------------------------------------------------------------


def transform(columns: Mapping[str, Any] | pa.RecordBatch, features: list[Feature]) -> NDArray[Any]:
    """The inputs of a network, (rows, width): float32 of columns; of an array column its own uint8 or int64, or
    float32, flat.

    Takes Arrow arrays, or NumPy's, where NaN, NaT and None are missing values, by column name; other columns may be
    there.

    Raises:
        UserError: a missing column, or a value that the fitted preparation doesn't take.
    """
    names = columns.schema.names if isinstance(columns, pa.RecordBatch) else columns
    if absent := [feature["column"] for feature in features if feature["column"] not in names]:
        raise UserError(
            f"column {absent[0]!r} is missing; the model's inputs are"
            f" {', '.join(feature['column'] for feature in features)}"
        )
    if features[0]["kind"] == "array":
        return _array(columns[features[0]["column"]], features[0])
    given = {feature["column"]: columns[feature["column"]] for feature in features}
    rows = len(next(iter(given.values())))
    inputs = np.empty((rows, features[-1]["first"] + features[-1]["width"]), np.float32)
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which read_table refuses
        for feature in _all_but_plain(given, features, inputs):
            _APPLY[feature["kind"]](
                given[feature["column"]], feature, inputs[:, feature["first"] : feature["first"] + feature["width"]]
            )
    return inputs


def _all_but_plain(given: Mapping[str, Any], features: list[Feature], inputs: NDArray[np.float32]) -> list[Feature]:
    """Scale all whole columns of float64 in one go, as prepared tables have them; returns the features
    that are left.
    """
    plain = [
        feature
        for feature in features
        if feature["kind"] == "numeric"
        and feature["width"] == 1
        and given[feature["column"]].__class__ is pa.DoubleArray
        and not given[feature["column"]].null_count
    ]
    if not plain:
        return features
    columns = [numbers(given[feature["column"]])[0] for feature in plain]
    subtract, divide = (np.array([feature[key] for feature in plain]) for key in ("subtract", "divide"))
    firsts = np.array([feature["first"] for feature in plain])
    # Features side by side are copied together.
    ends = [0, *(np.flatnonzero(np.diff(firsts) != 1) + 1), len(firsts)]
    # As many rows at a time as stay in the processor's cache.
    step = max(256, TILE // len(plain))
    buffer = np.empty((len(plain), min(step, len(inputs))))
    for start in range(0, len(inputs), step):
        values = buffer[:, : len(inputs) - start]
        for row, column in zip(values, columns, strict=True):
            row[:] = column[start : start + step]
        if np.isnan(values.sum()):
            return features
        scaled = np.divide(np.subtract(values, subtract, out=values), divide, out=values).astype(np.float32)
        for begin, end in pairwise(ends):
            inputs[start : start + step, firsts[begin] : firsts[begin] + end - begin] = scaled[begin:end].T
    done = {feature["column"] for feature in plain}
    return [feature for feature in features if feature["column"] not in done]


def _fill(
    values: NDArray[np.float64], valid: NDArray[np.bool_] | None, feature: Feature, out: NDArray[np.float32]
) -> None:
    """Numbers (rows, n) into the first n features; what is missing is filled in, and told by the indicator."""
    if valid is not None and not valid.all():
        if feature["fill"] is None:
            row = int(np.flatnonzero(~valid)[0])
            raise UserError(
                f"column {feature['column']!r} is empty in row {row} (from 0); a value is needed in every row"
            )
        values = np.where(valid[:, None], values, np.asarray(feature["fill"]))
    out[:, : values.shape[1]] = normalize(values, feature["subtract"], feature["divide"])
    if feature["indicator"]:
        out[:, -1] = 0 if valid is None else ~valid


def _numeric(given: Any, feature: Feature, out: NDArray[np.float32]) -> None:
    values, valid = _numbers(given, feature["column"])
    _fill(values[:, None], valid, feature, out)


def _numbers(given: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Float64 values, and which of them are there."""
    if isinstance(given, np.ndarray) and given.dtype == object:
        given = pa.array(given, from_pandas=True)
    if not isinstance(given, np.ndarray):
        if pa.types.is_null(given.type):
            return np.zeros(len(given)), np.zeros(len(given), np.bool_)
        if pa.types.is_dictionary(given.type):
            given = given.dictionary_decode()
        try:
            given, valid = numbers(
                given
                if pa.types.is_floating(given.type) or pa.types.is_boolean(given.type)
                else given.cast(pa.float64())
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"column {name!r} must hold numbers: {str(error).splitlines()[0]}") from None
    else:
        valid = None
    values = given.astype(np.float64, copy=False)
    nan = np.isnan(values)
    if nan.any():
        valid = ~nan if valid is None else valid & ~nan
    return values, valid


def _boolean(given: Any, feature: Feature, out: NDArray[np.float32]) -> None:
    if not isinstance(given, np.ndarray) and pa.types.is_string(given.type):
        given = given.cast(pa.bool_())
    values, valid = _numbers(given, feature["column"])
    _fill((values != 0).astype(np.float64)[:, None], valid, feature, out)


def _category(given: Any, feature: Feature, out: NDArray[np.float32]) -> None:
    if isinstance(given, np.ndarray):
        given = pa.array(given, from_pandas=True)
    if not (pa.types.is_dictionary(given.type) and is_text(given.type.value_type)):
        given = texts_of_categories(given).dictionary_encode()
    known = [value for value in feature["values"] if value is not None]
    place = {value: number for number, value in enumerate(keys(text_array(known)).to_pylist(), 1)}
    of_dictionary = np.array(
        [*(place.get(text, 0) for text in keys(given.dictionary.cast(pa.string())).to_pylist()), 0]
    )
    codes, valid = numbers(given.indices)
    numbered = of_dictionary[codes]
    if valid is not None:
        if None not in feature["values"]:
            raise UserError(
                f"column {feature['column']!r} is empty in row {int(np.flatnonzero(~valid)[0])} (from 0); a value is"
                " needed in every row"
            )
        numbered = np.where(valid, numbered, len(feature["values"]))
    if feature["encode"] == "codes":
        out[:, 0] = numbered
    else:
        out[:] = 0
        out[np.arange(len(numbered)), numbered] = 1


def _date(given: Any, feature: Feature, out: NDArray[np.float32]) -> None:
    if isinstance(given, np.ndarray):
        given = pa.array(given, from_pandas=True)
    given, problem = dates_of(given, feature)
    if problem:
        raise UserError(
            f"column {feature['column']!r} can't be taken as date: in row {problem[0]} (from 0) {problem[1]}"
        )
    values, valid = date_parts(given, feature["parts"])
    _fill(values, valid, feature, out)


def dates_of(given: pa.Array, feature: Feature) -> tuple[pa.Array, tuple[int, str] | None]:
    """Texts, dates, times or timestamps as the dates of a feature; and of the first that can't be its row and why."""
    if given.type == DATE and feature["parts"] == parts_of(DATE):
        return given, None
    return convert(given, date_type(feature), feature.get("format"))


def date_type(feature: Feature) -> pa.DataType:
    """The type in which the dates of a feature come: also of days alone with a time, which is left aside."""
    return TIME if "year" not in feature["parts"] else INSTANT if feature.get("zone") else MOMENT


def _array(given: Any, feature: Feature) -> NDArray[Any]:
    dtype = np.dtype(feature["dtype"])
    if isinstance(given, np.ndarray):
        rows = given.reshape(len(given), -1)
    elif pa.types.is_fixed_size_list(given.type):
        rows = numbers(given.flatten())[0].reshape(len(given), -1)
    else:
        rows = _of_bytes(given, dtype)
    if dtype.kind != "f":
        return rows.astype(dtype, copy=False)
    if feature["subtract"] is None:
        return rows.astype(np.float32, copy=False)
    return normalize(rows.astype(np.float64), feature["subtract"], feature["divide"])


def _of_bytes(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    size = array.type.byte_width
    return (
        np.frombuffer(array.buffers()[1], np.uint8)[array.offset * size : (array.offset + len(array)) * size]
        .view(dtype)
        .reshape(len(array), -1)
    )


_APPLY: dict[str, Callable[[Any, Feature, NDArray[np.float32]], None]] = {
    "numeric": _numeric,
    "boolean": _boolean,
    "category": _category,
    "date": _date,
}


# --- fitting it ----------------------------------------------------------------------------------


class Fit:
    """Learns from the training rows of one column, batch by batch; then `feature` says what it learned."""

    def __init__(self, column: Column, prepare: PrepareParams) -> None:
        self.column = column
        self.missing = 0
        self._prepare = prepare

    @property
    def policy(self) -> str:
        """What becomes of a missing value."""
        return str(getattr(self._prepare.missing, self.column.kind))

    def add(self, array: pa.Array) -> None:
        """Take in the column of some training rows, as `columns.Cleaner` gives it."""
        raise NotImplementedError

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> Feature:
        """The column's dict, but for its place; `blocks` yields its training values again."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """What statistics.json says of the column."""
        raise NotImplementedError

    @property
    def constant(self) -> bool:
        """Whether it had the same value in every row."""
        return False

    @property
    def empty(self) -> bool:
        """Whether it had no value in any row."""
        return False

    @property
    def distinct(self) -> bool:
        """Whether it is a category with another value in every row, as an id has."""
        return False

    @property
    def counting(self) -> bool:
        """Whether it holds whole numbers that rise or fall from row to row, or count the rows in another order, as an
        id or a row's number does.
        """
        return False

    @property
    def like_days(self) -> bool:
        """Whether its whole numbers may be days, as 20241231 is."""
        return False


class Numbers(Fit):
    """Numeric and boolean columns, and dates, whose parts are numbers."""

    def __init__(self, column: Column, prepare: PrepareParams) -> None:
        super().__init__(column, prepare)
        self._parts = parts_of(column.type) if column.kind == "date" else None
        self._measured = Statistics(len(self._parts or [None]))
        # Of whole numbers that all differ, as far as is seen, the multiples of a number that grows with them.
        self._sample: NDArray[np.float64] | None = np.zeros(0) if column.kind == "numeric" else None
        self._every, self._last, self._steps = 1.0, np.nan, {-1.0, 1.0}

    def _values(self, array: pa.Array) -> NDArray[np.float64]:
        values, valid = date_parts(array, self._parts) if self._parts else numbers(array)
        values = values.reshape(len(array), -1).astype(np.float64, copy=False)
        return values if valid is None else values[valid]

    def add(self, array: pa.Array) -> None:
        values = self._values(array)
        self.missing += len(array) - len(values)
        self._measured.add(values)
        if self._sample is not None and len(values):
            self._sample = self._sampled(self._sample, values[:, 0])

    def _sampled(self, sample: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The sample with those of more values; None where they don't all differ, or aren't whole."""
        if (values != np.floor(values)).any():
            return None
        steps = np.sign(np.diff(values, prepend=values[0] if np.isnan(self._last) else self._last))[
            int(np.isnan(self._last)) :
        ]
        self._steps = {step for step in self._steps if (steps == step).all()}
        self._last = float(values[-1])
        sample = np.append(sample, values[np.mod(values, self._every) == 0])
        if len(np.unique(sample)) < len(sample):
            return None
        while len(sample) > ID_VALUES:
            self._every *= 2
            sample = sample[np.mod(sample, self._every) == 0]
        return sample

    @property
    def constant(self) -> bool:
        # A value that is missing in some rows says something.
        return bool((self._measured.minimum >= self._measured.maximum).all()) and not (
            self.missing and self._measured.count
        )

    @property
    def empty(self) -> bool:
        return not self._measured.count

    @property
    def counting(self) -> bool:
        if self._sample is None or self._measured.count < 20 or self.missing:
            return False
        span = float(self._measured.maximum[0] - self._measured.minimum[0])
        # Some of the numbers are in other splits.
        return bool(self._steps) or (len(self._sample) >= 20 and span < 2 * self._measured.count)

    @property
    def like_days(self) -> bool:
        if not self.column.integer or self.empty or kind_told(self.column.name, self._prepare):
            return False
        ends = [int(end[0]) for end in (self._measured.minimum, self._measured.maximum)]
        return all(19000101 <= end <= 21001231 and 1 <= end // 100 % 100 <= 12 and 1 <= end % 100 <= 31 for end in ends)

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> Feature:
        name, measured = self.column.name, self._measured
        fill = None
        if self.policy == "constant":
            fill = [0.0 if self.column.kind == "boolean" else self._prepare.missing.fill] * measured.columns
        elif self.policy == "mean":
            fill = measured.mean.tolist()
        elif self.policy == "median":

            def of(part: int) -> Callable[[], Iterable[NDArray[np.float64]]]:
                return lambda: (self._values(array)[:, part] for array in blocks())

            fill = [median(of(part), measured.count) for part in range(measured.columns)]
        indicator = fill is not None and self._prepare.missing.indicator
        subtract, divide = scaling("none" if self.column.kind == "boolean" else self._prepare.normalize, measured)
        names = [f"{name}.{part}" for part in self._parts] if self._parts else [name]
        parts: Feature = {"parts": self._parts} if self._parts else {}
        parts |= {"format": self.column.format} if self.column.format else {}
        parts |= {"zone": "UTC"} if self.column.type == INSTANT else {}
        return {
            "fill": fill,
            "indicator": indicator,
            "subtract": subtract,
            "divide": divide,
            **parts,
            "names": names + [f"{name}=missing"] * indicator,
        }

    def statistics(self) -> dict[str, Any]:
        measured = self._measured
        of_column = [
            (
                dict(zip(("mean", "deviation", "minimum", "maximum"), map(float, values), strict=True))
                if measured.count
                else {}
            )
            for values in zip(measured.mean, measured.deviation, measured.minimum, measured.maximum, strict=True)
        ]
        return {
            "missing": self.missing,
            **(dict(zip(self._parts, of_column, strict=True)) if self._parts else of_column[0]),
        }


class Categories(Fit):
    """Category columns, of which the numbers of a vocabulary come."""

    def __init__(self, column: Column, prepare: PrepareParams, vocabulary: Vocabulary) -> None:
        super().__init__(column, prepare)
        self._vocabulary = vocabulary
        self._counts = np.zeros(0, np.int64)

    def add(self, array: pa.Array) -> None:
        counts = np.bincount(np.from_dlpack(array) + 1, minlength=len(self._vocabulary) + 1)
        self.missing += int(counts[0])
        self._counts = counts[1:] + np.pad(self._counts, (0, len(counts) - 1 - len(self._counts)))

    def _counted(self) -> dict[str, int]:
        labels = self._vocabulary.labels()
        # Not by count: a row more would change the features' order.
        return {
            label: int(count)
            for label, count in sorted(zip(labels, self._counts, strict=False), key=lambda pair: natural(pair[0]))
            if count
        }

    @property
    def strays(self) -> list[str]:
        """The texts that are no numbers, where there are but a few of them among numbers."""
        counted = self._counted()
        texts = [label for label in counted if natural(label)[0]]
        rows = sum(counted[label] for label in texts)
        return texts if few_strays(sum(counted.values()) - rows, rows, len(counted) - len(texts), len(texts)) else []

    @property
    def numbers(self) -> int:
        """How many of its values read as numbers."""
        return sum(not natural(label)[0] for label in self._counted())

    @property
    def with_units(self) -> bool:
        """Whether its values are numbers with the same text behind each, as 25 kg."""
        behind = [re.fullmatch(r"[+-]?\d[\d.,]*\s*([^\d\s.,:/-][^\d]*)", label) for label in self._counted()]
        return len(behind) >= 5 and None not in behind and len({found[1] for found in behind if found}) == 1

    @property
    def like_dates(self) -> bool:
        """Whether its values have the look of dates in a way that isn't known: a year beside a month, or a month's
        name.
        """
        labels = [*self._counted()]
        return len(labels) >= 12 and all(
            re.search(LIKE_DATE, label, re.IGNORECASE) and len(label) <= 40 for label in labels
        )

    @property
    def different(self) -> int:
        """How many values it has."""
        return int((self._counts > 0).sum())

    @property
    def constant(self) -> bool:
        return int((self._counts > 0).sum()) + (self.missing > 0) < 2

    @property
    def empty(self) -> bool:
        return not self._counts.any()

    @property
    def told(self) -> bool:
        """Whether params.yaml says that it is a category."""
        return kind_told(self.column.name, self._prepare) is not None

    @property
    def distinct(self) -> bool:
        return (
            len(self._counts) > 0
            and int(self._counts.max()) == 1
            and int(self._counts.sum()) >= 20
            and not self.missing
        )

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> Feature:
        name, encode = self.column.name, self._prepare.categories
        values: list[str | None] = [*self._counted(), *([None] if self.policy == "constant" else [])]
        onehot = [f"{name}=(other)", *(f"{name}=(missing)" if value is None else f"{name}={value}" for value in values)]
        return {
            "fill": None,
            "indicator": False,
            "subtract": [],
            "divide": [],
            "values": values,
            "encode": encode,
            "names": onehot if encode == "onehot" else [name],
        }

    def statistics(self) -> dict[str, Any]:
        return {"missing": self.missing, "counts": self._counted()}


class Arrays(Fit):
    """An array column."""

    def __init__(self, column: Column, prepare: PrepareParams) -> None:
        super().__init__(column, prepare)
        assert column.array is not None
        self._dtype, self.shape = np.dtype(column.array[0]), column.array[1]
        self._size = int(np.prod(self.shape))
        # Three axes are channels, height, width: each channel has a mean of its own.
        self._measured: Statistics | ByteStatistics | None = None
        if self._dtype == np.uint8:
            self._measured = ByteStatistics(self.shape[0] if len(self.shape) == 3 else 1)
        elif self._dtype.kind == "f":
            self._measured = Statistics(self._size)

    def add(self, array: pa.Array) -> None:
        rows = _of_bytes(array, self._dtype)
        if isinstance(self._measured, ByteStatistics):
            self._measured.add(rows.reshape(len(rows), self._measured.channels, -1))
        elif self._measured is not None:
            self._measured.add(rows.astype(np.float64))

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> Feature:
        scaled = isinstance(self._measured, Statistics) and self._prepare.normalize == "standard"
        subtract, divide = (
            scaling("standard", self._measured) if scaled and isinstance(self._measured, Statistics) else (None, None)
        )
        return {
            "dtype": self._dtype.name,
            "fill": None,
            "indicator": False,
            "subtract": subtract,
            "divide": divide,
            "names": [],
        }

    def scale(self) -> dict[str, list[float]] | None:
        """The scaling of bytes, by channel, which is left to the training step."""
        if self._prepare.normalize == "none" or not isinstance(self._measured, ByteStatistics):
            return None
        return {"subtract": self._measured.mean, "divide": [deviation or 1.0 for deviation in self._measured.deviation]}

    def statistics(self) -> dict[str, Any]:
        if isinstance(self._measured, ByteStatistics):
            return {"mean": self._measured.mean, "deviation": self._measured.deviation}
        if isinstance(self._measured, Statistics) and self._measured.count:
            return {"minimum": float(self._measured.minimum.min()), "maximum": float(self._measured.maximum.max())}
        return {}


def fit(column: Column, prepare: PrepareParams, vocabularies: Mapping[str, Vocabulary]) -> Fit:
    """What learns from a column of this kind."""
    if column.kind == "array":
        return Arrays(column, prepare)
    return (
        Categories(column, prepare, vocabularies[column.name])
        if column.kind == "category"
        else Numbers(column, prepare)
    )


def features(fits: list[Fit], blocks: Callable[[str], Callable[[], Iterable[pa.Array]]]) -> list[Feature]:
    """The fitted preparation; `blocks(column)()` yields a column's training values again."""
    found, first = [], 0
    for fitted in fits:
        column = fitted.column
        unit = {"unit": column.unit} if column.unit else {}
        feature = {"column": column.name, "kind": column.kind, **unit, **fitted.feature(blocks(column.name))}
        names = feature.pop("names")
        width = int(np.prod(fitted.shape)) if isinstance(fitted, Arrays) else len(names)
        found.append({**feature, "first": first, "width": width, "names": names})
        first += width
    return found


def natural(label: str) -> tuple[bool, float, str]:
    """To sort by: numbers by value and before texts."""
    try:
        # Python reads more as a number than people do: 1_000, and digits of any script.
        number = float(label if label.isascii() and "_" not in label else "text")
    except ValueError:
        return True, 0.0, label
    return (True, 0.0, label) if number != number else (False, number, label)
