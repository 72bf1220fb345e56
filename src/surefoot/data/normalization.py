"""Statistics of columns, fitted over a stream of rows in bounded memory, and the scaling that follows from them."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LANES = 4096


@dataclass
class Statistics:
    """Count, mean, deviation, minimum and maximum of each column of the rows seen so far."""

    columns: int
    count: int = 0
    _shift: Array = field(init=False)  # the first row: keeps the sums of squares small
    _sums: Array = field(init=False)  # of the shifted values, and of their squares, in lanes
    minimum: Array = field(init=False)
    maximum: Array = field(init=False)

    def __post_init__(self) -> None:
        # A power of two, so that the lanes fold in halves.
        lanes = 1 << max(0, (LANES // self.columns).bit_length() - 1)
        self._sums = np.zeros((2, lanes, self.columns))
        self.minimum = np.full(self.columns, np.inf)
        self.maximum = np.full(self.columns, -np.inf)

    def add(self, rows: Array) -> None:
        """Take in rows, of shape (rows, columns)."""
        if not len(rows):
            return
        if not self.count:
            self._shift = rows[0].copy()
        # Row i goes into lane i modulo the lanes, each lane adding its rows in order: the same bits on any CPU and for
        # any size of blocks, with additions of whole lanes only, which are fast.
        lanes = self._sums.shape[1]
        lane = self.count % lanes
        cuts = [0, *range(min(lanes - lane, len(rows)), len(rows), lanes), len(rows)]
        terms = rows - self._shift
        for sums in self._sums:
            for start, stop in pairwise(cuts):
                at = lane if start == 0 else 0
                sums[at : at + stop - start] += terms[start:stop]
            terms *= terms
        self.count += len(rows)
        self.minimum = np.minimum(self.minimum, rows.min(axis=0))
        self.maximum = np.maximum(self.maximum, rows.max(axis=0))

    def _totals(self) -> Array:
        sums = self._sums
        while sums.shape[1] > 1:
            half = sums.shape[1] // 2
            sums = sums[:, :half] + sums[:, half:]
        return sums[:, 0]

    @property
    def mean(self) -> Array:
        """The mean of each column; 0 if there was no row."""
        if not self.count:
            return np.zeros(self.columns)
        mean: Array = self._shift + self._totals()[0] / self.count
        return mean

    @property
    def deviation(self) -> Array:
        """The standard deviation of each column, over all rows (not the sample's); exactly 0 where it is constant."""
        if not self.count:
            return np.zeros(self.columns)
        sums = self._totals()
        mean = sums[0] / self.count
        variance = np.maximum(sums[1] / self.count - mean * mean, 0)
        return np.where(self.minimum == self.maximum, 0.0, np.sqrt(variance))


@dataclass
class ByteStatistics:
    """Mean and deviation of the values 0 to 255 in each channel of uint8 arrays: exact, as whole numbers are."""

    channels: int
    count: int = 0  # values a channel
    _sums: list[int] = field(init=False)
    _squares: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._sums, self._squares = [0] * self.channels, [0] * self.channels

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Take in rows, of shape (rows, channels, values)."""
        self.count += rows.shape[0] * rows.shape[2]
        # A few rows at a time: their squares as 16 bits stay in the processor's cache.
        step = max(1, (1 << 18) // max(1, rows[0].size)) if len(rows) else 1
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            sums = some.sum(axis=(0, 2), dtype=np.uint64)
            squares = np.square(some, dtype=np.uint16).sum(axis=(0, 2), dtype=np.uint64)
            self._sums = [had + int(new) for had, new in zip(self._sums, sums, strict=True)]
            self._squares = [had + int(new) for had, new in zip(self._squares, squares, strict=True)]

    @property
    def mean(self) -> list[float]:
        """The mean of each channel."""
        return [total / self.count for total in self._sums]

    @property
    def deviation(self) -> list[float]:
        """The standard deviation of each channel; 0 where it is constant."""
        return [
            float(np.sqrt((self.count * squares - total * total) / self.count**2))
            for total, squares in zip(self._sums, self._squares, strict=True)
        ]


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


def in_own_unit(values: NDArray[np.floating[Any]], scale: dict[str, list[float]]) -> NDArray[np.float64]:
    """What `scale` was subtracted from and divided by, back again: in float64, so that a price keeps its cents and a
    huge number its size.
    """
    restored: NDArray[np.float64] = values.astype(np.float64) * scale["divide"] + scale["subtract"]
    return restored
