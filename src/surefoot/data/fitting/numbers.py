"""What is learned of numbers, booleans and dates: fill values and scaling; and whether they look like ids or days."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.columns import Column, kind_told
from surefoot.data.dates import INSTANT, date_parts, parts_of_type
from surefoot.data.features import FeatureDict
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.normalization import Statistics, scaling
from surefoot.data.quantiles import median
from surefoot.params.prepare_section import PrepareParams

ID_VALUES = 1 << 12
"""Of a column that may count its rows so many values at most are kept, to see whether they all differ; and fewer than
twenty rows say nothing.
"""


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

    def doubts(self) -> set[str]:
        measured = self._measured
        found = {
            "empty": not measured.count,
            # A value that is missing in some rows says something.
            "constant": measured.count and not self.missing and bool((measured.minimum >= measured.maximum).all()),
            "counting": self._counts_rows(),
            "zeros": self.column.zeros,
            "like days": self._like_days(),
        }
        return {doubt for doubt, there in found.items() if there}

    def _counts_rows(self) -> bool:
        """Whether it holds whole numbers that rise or fall from row to row, or count the rows in another order, as an
        id or a row's number does.
        """
        if self._sample is None or self._measured.count < 20 or self.missing:
            return False
        span = float(self._measured.maximum[0] - self._measured.minimum[0])
        # Some of the numbers are in other splits.
        return bool(self._steps) or (len(self._sample) >= 20 and span < 2 * self._measured.count)

    def _like_days(self) -> bool:
        """Whether its whole numbers may be days, as 20241231 is."""
        if not self.column.integer or not self._measured.count or kind_told(self.column.name, self._prepare):
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
