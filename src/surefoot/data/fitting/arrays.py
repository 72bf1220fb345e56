"""What is learned of arrays: the scaling of each value, or of the bytes of each channel."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from surefoot.data.columns import Column
from surefoot.data.features import FeatureDict, from_bytes
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.normalization import ByteStatistics, Statistics, scaling
from surefoot.params.prepare_section import PrepareParams


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
