"""Which part file rows come from: counted as they are prepared, so that ranges of rows say it later,
and no row has to.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from surefoot.base.documents import Count, Digest, Document
from surefoot.data.splits import SPLITS

if TYPE_CHECKING:
    from surefoot.data.readers.source import RowSource

STRETCH_BYTES, STRETCHES = 1 << 12, 16
RowRange = tuple[int, int]  # of rows: the first, and the one after the last


class PartFile(Document):
    """A part file of the raw data: its path, its `part_file_digest`, and how many rows of each split came of it."""

    path: str
    digest: Digest
    rows: dict[str, Count]


class PartFileRows:
    """Counts the rows of a source's part files by split, in the order in which they come; of a source without part
    files nothing.
    """

    def __init__(self, source: "RowSource") -> None:
        self._places = source.parts
        self._kept: list[int] = []  # of each file: rows that were kept
        self._counts: list[NDArray[np.int64]] = []  # of each file: rows of each split
        self._at = 0  # the file that the next rows come from, or one before it

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Take in the next rows that were kept, by their places in the source, in order."""
        if self._places is None or not len(rows):
            return
        first, last = self._places.file_of(int(rows[0])), self._places.file_of(int(rows[-1]))
        ends = np.searchsorted(rows, [self._places.first_row(file) for file in range(first + 1, last + 1)])
        self._grow(last)
        for file, count in zip(range(first, last + 1), np.diff([0, *ends, len(rows)]).tolist(), strict=True):
            self._kept[file] += count

    def split(self, splits: NDArray[np.int8]) -> None:
        """Take in the splits of the next of these rows."""
        while self._places is not None and len(splits):
            room = self._kept[self._at] - int(self._counts[self._at].sum())
            self._counts[self._at] += np.bincount(splits[:room], minlength=len(SPLITS))
            splits = splits[room:]
            self._at += bool(len(splits))

    def describe(self) -> list[PartFile]:
        """What came of each part file."""
        if self._places is None:
            return []
        self._grow(len(self._places.files) - 1)
        return [
            PartFile(
                path=path, digest=part_file_digest(Path(path)), rows=dict(zip(SPLITS, counts.tolist(), strict=True))
            )
            for path, counts in zip(self._places.files, self._counts, strict=True)
        ]

    def _grow(self, last: int) -> None:
        for _ in range(last + 1 - len(self._kept)):
            self._kept.append(0)
            self._counts.append(np.zeros(len(SPLITS), np.int64))


def part_file_digest(path: Path) -> str:
    """What tells a part file from another: of its size and its bytes; of a large one, of stretches of them."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    whole = size <= STRETCHES * STRETCH_BYTES
    starts = [0] if whole else [number * (size - STRETCH_BYTES) // (STRETCHES - 1) for number in range(STRETCHES)]
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start in starts:
            found.update(os.pread(file, size if whole else STRETCH_BYTES, start))
    finally:
        os.close(file)
    return found.hexdigest()


def rows_of_parts(parts: Sequence[PartFile], split: str, chosen: Callable[[PartFile], bool]) -> tuple[RowRange, ...]:
    """The rows of a split that are from the part files that are chosen, by their places in the order of
    the raw data.
    """
    found: list[RowRange] = []
    first = 0
    for part in parts:
        stop = first + part.rows[split]
        if chosen(part) and stop > first:
            found = [*found[:-1], (found[-1][0], stop)] if found and found[-1][1] == first else [*found, (first, stop)]
        first = stop
    return tuple(found)


def rows_in(some: Iterable[RowRange]) -> int:
    """How many rows these are."""
    return sum(stop - first for first, stop in some)
