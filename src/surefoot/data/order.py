"""The order of rows: a pure function of (rows, seed, epoch), so that nothing about it needs saving, and a stretch of it
can be had by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from surefoot.data.splitmix64 import mix64

Places = NDArray[np.int64]
# A permutation of more rows than this is computed where it is asked for; up to this it is held in memory, 8 MB.
HELD_ROWS = 1 << 20
CHUNK_ROWS = 1 << 16
ROUNDS = 6


class OrderWindow(NamedTuple):
    """Some consecutive rows of an order."""

    blocks: tuple[tuple[int, int], ...]  # the rows that they are among, as stretches (first, end) of what is on disk
    places: Places  # indices into the rows of those stretches laid end to end
    ahead: tuple[tuple[int, int], ...]  # the stretches of the window after this

    def indices(self) -> Places:
        """The rows by their numbers on disk."""
        if len(self.blocks) == 1 and self.blocks[0][0] == 0:
            return self.places
        return np.concatenate([np.arange(*block) for block in self.blocks])[self.places]


@dataclass(frozen=True)
class RowOrder:
    """The rows of an epoch in the order in which they are trained on, or a stretch of them: each row once.

    Without `block` all rows are permuted. With it blocks of rows are permuted, and the rows of each `window` blocks
    that come after one another. Epoch 0 is the order on disk; training counts from 1.
    """

    rows: int
    seed: int
    epoch: int
    block: int | None = None
    window: int = 1
    start: int = 0
    stop: int | None = None

    def __len__(self) -> int:
        return (self.rows if self.stop is None else self.stop) - self.start

    def __getitem__(self, part: slice) -> "RowOrder":
        """A stretch: order[first:end]."""
        first, end, step = part.indices(len(self))
        if step != 1:
            raise ValueError("a stretch of an order has no step")
        return replace(self, start=self.start + first, stop=self.start + max(first, end))

    def windows(self) -> Iterator[OrderWindow]:
        """The stretch, window by window.

        Where all rows are permuted it is cut into parts that take little memory, each among all rows.
        """
        at, end = self.start, self.start + len(self)
        if self.block is None:
            size = HELD_ROWS if self.rows <= HELD_ROWS else CHUNK_ROWS
            for first in range(at, end, size):
                yield OrderWindow(
                    ((0, self.rows),), permuted(self.rows, (self.seed, self.epoch), first, min(end, first + size)), ()
                )
            return
        number, first = self._window_of(at)
        blocks = self._blocks(number)
        while at < end:
            rows = sum(last - begin for begin, last in blocks)
            until = min(end, first + rows)
            places = np.random.default_rng([self.seed, self.epoch, number + 1]).permutation(rows)[
                at - first : until - first
            ]
            ahead = self._blocks(number + 1)
            yield OrderWindow(blocks, places, ahead)
            at, first, number, blocks = until, first + rows, number + 1, ahead

    def indices(self) -> Places:
        """The rows of the stretch, in memory as a whole."""
        return np.concatenate([np.empty(0, np.int64), *(window.indices() for window in self.windows())])

    def _short_block(self) -> tuple[int, int]:
        """How many blocks are full, and where among them the one comes that isn't: drawn by itself, so that where a
        window begins needs no search.
        """
        assert self.block
        full = self.rows // self.block
        return full, int(np.random.default_rng([self.seed, self.epoch, 0, 1]).integers(full + 1))

    def _blocks(self, number: int) -> tuple[tuple[int, int], ...]:
        """The blocks of a window; none after the last."""
        assert self.block
        full, place = self._short_block()
        count = full + (self.rows % self.block > 0)
        wanted = range(number * self.window, min((number + 1) * self.window, count))
        if count == full:
            place = count
        # The k-th of all blocks is the k-th of the full ones, less one after the short one's place.
        chosen = [full if k == place else _one(full, (self.seed, self.epoch), k - (k > place)) for k in wanted]
        return tuple((block * self.block, min((block + 1) * self.block, self.rows)) for block in chosen)

    def _window_of(self, at: int) -> tuple[int, int]:
        """The window that a place in the order lies in, and the place that it begins at."""
        assert self.block
        _, place = self._short_block()
        short = self.rows % self.block
        size = self.window * self.block

        def begin(number: int) -> int:
            return number * size - (self.block - short if short and number * self.window > place else 0)  # type: ignore[operator]

        number = at // size
        # The short block lets later windows begin earlier, by less than a block.
        if begin(number + 1) <= at:
            number += 1
        return number, begin(number)


@dataclass(frozen=True)
class RowOrderAmong:
    """Some of the rows in the order in which an epoch trains on them, or a stretch of it: all of them are permuted,
    whatever their number.

    Args:
        ranges: which rows, by their places in the order of the raw data: first, and one after the last.
        rows: all rows that lie on the disk, in the order that epoch 0 of `Order` gave them.
        seed: of the run.
        epoch: counts from 1.
        start: of the stretch.
        stop: of the stretch; None: the end.
    """

    ranges: tuple[tuple[int, int], ...]
    rows: int
    seed: int
    epoch: int
    start: int = 0
    stop: int | None = None

    def __len__(self) -> int:
        return (sum(stop - first for first, stop in self.ranges) if self.stop is None else self.stop) - self.start

    def __getitem__(self, part: slice) -> "RowOrderAmong":
        """A stretch: order[first:end]."""
        first, end, step = part.indices(len(self))
        if step != 1:
            raise ValueError("a stretch of an order has no step")
        return replace(self, start=self.start + first, stop=self.start + max(first, end))

    def windows(self) -> Iterator[OrderWindow]:
        """The stretch in parts that take little memory, each among all rows."""
        sizes = np.cumsum([stop - first for first, stop in self.ranges])
        shift = np.array([first for first, _ in self.ranges]) - np.concatenate([[0], sizes[:-1]])
        end = self.start + len(self)
        for first in range(self.start, end, CHUNK_ROWS):
            chosen = permuted(int(sizes[-1]), (self.seed, self.epoch), first, min(end, first + CHUNK_ROWS))
            raw = chosen + shift[np.searchsorted(sizes, chosen, side="right")]
            yield OrderWindow(((0, self.rows),), _permute(raw, self.rows, (self.seed, 0)), ())

    def indices(self) -> Places:
        """The rows of the stretch by their numbers on disk, in memory as a whole."""
        return np.concatenate([np.empty(0, np.int64), *(window.indices() for window in self.windows())])


def permuted(rows: int, seed: tuple[int, ...], start: int, stop: int) -> Places:
    """Places start to stop of a permutation of range(rows): NumPy's of few rows, and of many one that needs no memory
    but for what is asked for.
    """
    if rows <= HELD_ROWS:
        return _permutation(rows, seed)[start:stop]
    return _permute(np.arange(start, stop), rows, seed)


def _permute(places: Places, rows: int, seed: tuple[int, ...]) -> Places:
    """Where a permutation of range(rows) brings these places."""
    if rows <= HELD_ROWS:
        return _permutation(rows, seed)[places]
    return _walk(places.astype(np.uint64), rows, seed).astype(np.int64)


@lru_cache(2)
def _permutation(rows: int, seed: tuple[int, ...]) -> Places:
    return np.random.default_rng(seed).permutation(rows)


def _one(rows: int, seed: tuple[int, ...], place: int) -> int:
    return int(permuted(rows, seed, place, place + 1)[0])


def _walk(numbers: NDArray[np.uint64], rows: int, seed: tuple[int, ...]) -> NDArray[np.uint64]:
    """A permutation of range(rows): one of the next power of two, applied again to what it brings outside (cycle
    walking).
    """
    bits = (rows - 1).bit_length()
    keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    numbers = _feistel(numbers, bits, keys)
    outside = np.flatnonzero(numbers >= rows)
    while len(outside):
        numbers[outside] = _feistel(numbers[outside], bits, keys)
        outside = outside[numbers[outside] >= rows]
    return numbers


def _feistel(numbers: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of range(2**bits): each half in turn is changed by a hash of the other, which can be undone."""
    half = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = numbers >> half, numbers & low_mask
    for first, second in keys.reshape(-1, 2):
        high ^= mix64(low ^ first) & high_mask
        low ^= mix64(high ^ second) & low_mask
    return (high << half) | low
