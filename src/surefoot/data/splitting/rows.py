"""The clean rows of a source, and the values that they are split by."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import arrow_mask, numpy_values
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import (
    kind_of_type,
    kind_told,
)
from surefoot.data.number_notation import nulls_for_missing, told_notation
from surefoot.data.part_files import PartFileRows
from surefoot.data.readers.source import RowSource
from surefoot.data.streams import gather
from surefoot.params.prepare_section import PrepareParams

GATHER_BYTES = 8 << 20
GATHER_ROWS = 1 << 12  # what is done once a batch and column costs less of so many rows


def clean_rows(
    source: RowSource, cleaner: Cleaner, parts: PartFileRows
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
    """The clean batches of a source, each with the places of its rows in the source."""
    for _, batch, rows in clean_rows_with_raw(source, cleaner, parts):
        yield batch, rows


def clean_rows_with_raw(
    source: RowSource,
    cleaner: Cleaner,
    parts: PartFileRows,
    chosen: Callable[[pa.RecordBatch], NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
    """The same with the batches as they came; of their clean rows those that are chosen."""
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


class RowsToSplit:
    """What a way to split works on."""

    def __init__(
        self, out: Path, prepare: PrepareParams, seed: int, source: RowSource, cleaner: Cleaner, parts: PartFileRows
    ) -> None:
        self.out, self.prepare, self.seed, self.source, self.cleaner, self.parts = (
            out,
            prepare,
            seed,
            source,
            cleaner,
            parts,
        )

        name = prepare.split.column
        kind = None if name is None else kind_told(name, prepare) or kind_of_type(source.schema.field(name).type)
        self.missing = str(getattr(prepare.missing, kind, "error")) if kind else "error"
        """What becomes of a row without a value to split by."""
        self._kind = kind

    def with_raw(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
        """`clean_rows_with_raw` of the rows that can be split."""
        return clean_rows_with_raw(
            self.source, self.cleaner, self.parts, self._there if self.missing == "drop" else None
        )

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
        if missing.any() and (self.missing == "error" or by == "time"):
            ways = "drop leaves such rows out" + (", constant makes a group of them" if by == "group" else "")
            raise UserError(
                f"{self.source.where(int(rows[np.flatnonzero(missing)[0]]))}, column {name!r}: empty; prepare.split.by:"
                f" {by} needs a value in every row (prepare.missing.{self._kind}: {ways})"
            )
        return column
