"""What every kind of column has that is learned from its training rows."""

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from surefoot.data.columns import Column
from surefoot.data.features import FeatureDict
from surefoot.params.prepare_section import PrepareParams


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
        """Take in the column of some training rows, as `cleaning.Cleaner` gives it."""
        raise NotImplementedError

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
        """The column's dict, but for its place; `blocks` yields its training values again."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """What statistics.json says of the column."""
        raise NotImplementedError

    def doubts(self) -> set[str]:
        """What may be otherwise than it was taken for, or teaches nothing: keys of `column_notes.DOUBTS`."""
        return set()
