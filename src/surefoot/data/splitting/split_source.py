"""Each row of the main source goes into a split: by class, row, group or time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from surefoot.data.cleaning import Cleaner
from surefoot.data.part_files import PartFileRows
from surefoot.data.readers.source import RowSource
from surefoot.data.splits import Splits
from surefoot.data.splitting.by_class import split_by_class, split_by_row
from surefoot.data.splitting.by_group import split_by_group
from surefoot.data.splitting.by_time import split_by_time
from surefoot.data.splitting.clean_rows import RowsToSplit
from surefoot.params.prepare_section import PrepareParams


def split_source(
    out: Path, prepare: PrepareParams, seed: int, source: RowSource, cleaner: Cleaner, parts: PartFileRows
) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """The clean batches of the main source, and the split of each row: a source of its own has taken a
    split's place.
    """
    own = {each.split for each in prepare.sources}
    fractions = (0.0 if "validation" in own else prepare.validation, 0.0 if "test" in own else prepare.test)
    by = _SPLITTERS[prepare.split.by if (prepare.split.by, prepare.task) != ("class", "regression") else "row"]
    return by(RowsToSplit(out, prepare, seed, source, cleaner, parts, *fractions))


_SPLITTERS: dict[str, Callable[[RowsToSplit], Iterator[tuple[pa.RecordBatch, Splits]]]] = {
    "class": split_by_class,
    "row": split_by_row,
    "group": split_by_group,
    "time": split_by_time,
}
