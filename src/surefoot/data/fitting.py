"""What is learned from the training rows of each input column: fill values, scaling, categories."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.base.wording import quoted_names, yaml_key
from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import (
    Column,
    kind_told,
)
from surefoot.data.dates import INSTANT, date_parts, parts_of_type
from surefoot.data.features import FeatureDict, from_bytes
from surefoot.data.normalization import ByteStatistics, Statistics, scaling
from surefoot.data.quantiles import median
from surefoot.data.readers.source import RowSource
from surefoot.data.stray_texts import few_strays
from surefoot.data.vocabulary import Vocabulary, natural_order
from surefoot.params.prepare_section import PrepareParams

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

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
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


class NumbersFit(Fit):
    """Numeric and boolean columns, and dates, whose parts are numbers."""

    def __init__(self, column: Column, prepare: PrepareParams) -> None:
        super().__init__(column, prepare)
        self._parts = parts_of_type(column.type) if column.kind == "date" else None
        self._measured = Statistics(len(self._parts or [None]))
        # Of whole numbers that all differ, as far as is seen, the multiples of a number that grows with them.
        self._sample: NDArray[np.float64] | None = np.zeros(0) if column.kind == "numeric" else None
        self._every, self._last, self._steps = 1.0, np.nan, {-1.0, 1.0}

    def _values(self, array: pa.Array) -> NDArray[np.float64]:
        values, valid = date_parts(array, self._parts) if self._parts else numpy_values(array)
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

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
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
        parts: FeatureDict = {"parts": self._parts} if self._parts else {}
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


class CategoriesFit(Fit):
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
            for label, count in sorted(zip(labels, self._counts, strict=False), key=lambda pair: natural_order(pair[0]))
            if count
        }

    @property
    def strays(self) -> list[str]:
        """The texts that are no numbers, where there are but a few of them among numbers."""
        counted = self._counted()
        texts = [label for label in counted if natural_order(label)[0]]
        rows = sum(counted[label] for label in texts)
        return texts if few_strays(sum(counted.values()) - rows, rows, len(counted) - len(texts), len(texts)) else []

    @property
    def numbers(self) -> int:
        """How many of its values read as numbers."""
        return sum(not natural_order(label)[0] for label in self._counted())

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

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
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


class ArraysFit(Fit):
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
        rows = from_bytes(array, self._dtype)
        if isinstance(self._measured, ByteStatistics):
            self._measured.add(rows.reshape(len(rows), self._measured.channels, -1))
        elif self._measured is not None:
            self._measured.add(rows.astype(np.float64))

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
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


def new_fit(column: Column, prepare: PrepareParams, vocabularies: Mapping[str, Vocabulary]) -> Fit:
    """What learns from a column of this kind."""
    if column.kind == "array":
        return ArraysFit(column, prepare)
    return (
        CategoriesFit(column, prepare, vocabularies[column.name])
        if column.kind == "category"
        else NumbersFit(column, prepare)
    )


def fitted_features(fits: list[Fit], blocks: Callable[[str], Callable[[], Iterable[pa.Array]]]) -> list[FeatureDict]:
    """The fitted preparation; `blocks(column)()` yields a column's training values again."""
    found, first = [], 0
    for fitted in fits:
        column = fitted.column
        unit = {"unit": column.unit} if column.unit else {}
        feature = {"column": column.name, "kind": column.kind, **unit, **fitted.feature(blocks(column.name))}
        names = feature.pop("names")
        width = int(np.prod(fitted.shape)) if isinstance(fitted, ArraysFit) else len(names)
        found.append({**feature, "first": first, "width": width, "names": names})
        first += width
    return found


def refuse_stray_texts(fits: Iterable[Fit], prepare: PrepareParams, cleaner: Cleaner, source: RowSource) -> None:
    """A column of numbers in which some are no numbers would else be taken for a category."""
    for fitted in fits:
        name = fitted.column.name
        strays = fitted.strays if isinstance(fitted, CategoriesFit) and not kind_told(name, prepare) else []
        if strays:
            vocabulary = cleaner.vocabularies[name]
            row = vocabulary.firsts[vocabulary.labels().index(strays[0])]
            raise UserError(
                f"{source.where(row)}, column {name!r}: {strays[0]!r} is not a number, as almost all of the others are",
                f"texts among its numbers: {quoted_names(strays, 5)}: mend them, or add to prepare.missing.values what"
                f" stands for a missing value; or prepare.kinds: {{{yaml_key(name)}: category}} where the column holds"
                " no numbers",
            )
