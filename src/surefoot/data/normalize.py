"""Statistics of columns, fitted over a stream of rows, and the scaling that follows from them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Statistics:
    """Count, mean, deviation, minimum and maximum of each column of the rows seen so far."""

    columns: int
    count: int = 0
    _shift: Array = field(init=False)  # the first row: keeps the sums of squares small
    _sums: Array = field(init=False)  # of the shifted values, and of their squares
    minimum: Array = field(init=False)
    maximum: Array = field(init=False)

    def __post_init__(self) -> None:
        self._sums = np.zeros((2, self.columns))
        self.minimum = np.full(self.columns, np.inf)
        self.maximum = np.full(self.columns, -np.inf)

    def add(self, rows: Array) -> None:
        """Take in rows, of shape (rows, columns)."""
        if not len(rows):
            return
        if not self.count:
            self._shift = rows[0].copy()
        self.count += len(rows)
        # One row after another, in order: the same bits on any CPU and for any size of blocks. In one array in C's order,
        # with both sums in it, as NumPy adds a column that stands alone in pairs.
        terms = np.empty((1 + len(rows), 2, self.columns))
        terms[0] = self._sums
        terms[1:, 0] = rows - self._shift
        terms[1:, 1] = terms[1:, 0] ** 2
        self._sums = np.add.reduce(terms.reshape(len(terms), -1), axis=0).reshape(2, -1)
        self.minimum = np.minimum(self.minimum, rows.min(axis=0))
        self.maximum = np.maximum(self.maximum, rows.max(axis=0))

    @property
    def mean(self) -> Array:
        """The mean of each column."""
        mean: Array = self._shift + self._sums[0] / self.count
        return mean

    @property
    def deviation(self) -> Array:
        """The standard deviation of each column, over all rows (not the sample's); exactly 0 where it is constant."""
        mean = self._sums[0] / self.count
        variance = np.maximum(self._sums[1] / self.count - mean * mean, 0)
        return np.where(self.minimum == self.maximum, 0.0, np.sqrt(variance))


def scaling(method: str, statistics: Statistics) -> tuple[list[float], list[float]]:
    """What to subtract from each column and what to divide by, for `prepare.normalize`."""
    if method == "none":
        return [0.0] * statistics.columns, [1.0] * statistics.columns
    deviation = statistics.deviation
    return statistics.mean.tolist(), np.where(deviation == 0, 1.0, deviation).tolist()


def normalize(rows: Array, subtract: list[float], divide: list[float]) -> NDArray[np.float32]:
    """(rows - subtract) / divide, in float64, then rounded to float32."""
    scaled: NDArray[np.float32] = ((rows - np.asarray(subtract)) / np.asarray(divide)).astype(np.float32)
    return scaled
