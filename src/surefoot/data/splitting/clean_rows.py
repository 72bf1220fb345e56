"""The clean rows of a source, and the values that they are split by."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import arrow_mask, numpy_values
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import kind_of_type, kind_told
from surefoot.data.number_notation import nulls_for_missing, told_notation
from surefoot.data.part_files import PartFileRows
from surefoot.data.readers.source import RowSource
from surefoot.data.streams import gather
from surefoot.params.prepare_section import PrepareParams

GATHER_BYTES = 8 << 20
GATHER_ROWS = 1 << 12  # what is done once a batch and column costs less of so many rows


def clean_rows(
    source: RowSource,
    cleaner: Cleaner,
    parts: PartFileRows,
    chosen: Callable[[pa.RecordBatch], NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
    """The rows of a source that are kept: as they came, cleaned, and their places in the source.

    `chosen` says of rows as they came which are kept at all.
    """
    first = 0
    for raw in gather(source.batches, GATHER_BYTES, GATHER_ROWS):
        batch, kept = cleaner.clean(raw, first, source.where)
        rows = np.arange(first, first + raw.num_rows)
        first += raw.num_rows
        if kept is not None:
            raw, rows = raw.filter(arrow_mask(kept)), rows[kept]
        if chosen is not None and not (these := chosen(raw)).all():
            raw, batch, rows = raw.filter(arrow_mask(these)), batch.filter(arrow_mask(these)), rows[these]
        parts.keep(rows)
        yield raw, batch, rows


def missing_values(array: pa.Array) -> NDArray[np.bool_]:
    """Which values are null or NaN."""
    return numpy_values(array.is_null(nan_is_null=True))[0].astype(np.bool_)


@dataclass(frozen=True)
class RowsToSplit:
    """What a way to split works on: the rows of the main source; `validation` and `test` are fractions of them."""

    out: Path
    prepare: PrepareParams
    seed: int
    source: RowSource
    cleaner: Cleaner
    parts: PartFileRows
    validation: float
    test: float

    @cached_property
    def _kind(self) -> str | None:
        """What the split column holds."""
        name = self.prepare.split.column
        if name is None:
            return None
        return kind_told(name, self.prepare) or kind_of_type(self.source.schema.field(name).type)

    @property
    def _policy(self) -> str:
        """What becomes of a row without a value to split by."""
        return str(getattr(self.prepare.missing, self._kind, "error")) if self._kind else "error"

    def clean(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
        """`clean_rows` of those that can be split."""
        chosen = self._there if self._policy == "drop" and self.prepare.split.by in ("group", "time") else None
        return clean_rows(self.source, self.cleaner, self.parts, chosen)

    def _there(self, raw: pa.RecordBatch) -> NDArray[np.bool_]:
        there = ~missing_values(self._values(raw))
        self.cleaner.drop(f"{self.prepare.split.column!r} (prepare.split.column) is missing", ~there)
        return there

    def _values(self, raw: pa.RecordBatch) -> pa.Array:
        column = raw.column(str(self.prepare.split.column))
        return nulls_for_missing(column, told_notation(self.prepare)) if pa.types.is_string(column.type) else column

    def column(self, raw: pa.RecordBatch, rows: NDArray[np.int64]) -> pa.Array:
        """The split column; where missing values aren't filled in, or it is a time, without any."""
        name, by = str(self.prepare.split.column), self.prepare.split.by
        column = self._values(raw)
        missing = missing_values(column)
        if missing.any() and (self._policy == "error" or by == "time"):
            ways = "drop leaves such rows out" + (", constant makes a group of them" if by == "group" else "")
            raise UserError(
                f"{self.source.where(int(rows[np.flatnonzero(missing)[0]]))}, column {name!r}: empty; prepare.split.by:"
                f" {by} needs a value in every row (prepare.missing.{self._kind}: {ways})"
            )
        return column
