"""The rows of a data set on their way into minibatches: gathered in memory, or read from files that are
larger than it.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from surefoot.data.order import OrderWindow, RowOrder, RowOrderAmong

CHUNK_BYTES = 1 << 20
# A file up to this is mapped, and stays in memory once it was read. Of a larger one that is read which is needed next.
MAPPED_BYTES = 256 << 20

Scale = dict[str, list[float]]


class Stored:
    """An array of the batch store as the network gets it: uint8, and numbers to predict, as float32, brought to scale;
    others as they are.

    It is read, not mapped, where it is large: pages of a map would count as this process's memory, and with rows in
    random order each would bring its neighbours along.

    Args:
        array: (rows, *shape), a whole array as `np.load` maps it; or one in memory.
        scale: uint8 and float64 become (x - subtract) / divide: a number each, one for each of the first axis of an
            input, or one for each value.
        large: whether to read it; None: if it is over MAPPED_BYTES.
    """

    def __init__(self, array: np.ndarray, scale: Scale | None = None, large: bool | None = None) -> None:
        self.shape = array.shape
        self.row_bytes = prod(array.shape[1:]) * (4 if array.dtype == np.uint8 else array.itemsize)  # of what is given
        self._data = torch.from_numpy(array)
        computed = {torch.uint8: torch.float32, torch.float64: torch.float64}.get(self._data.dtype)
        self._scale = (
            [_spread(scale[name], array.shape[1:], computed) for name in ("subtract", "divide")]
            if scale and computed
            else None
        )
        self._file: int | None = None
        self._held: tuple[tuple[int, int], ...] = ()  # the blocks in the buffer
        self._buffer = torch.empty((0, *self.shape[1:]), dtype=self._data.dtype)
        if isinstance(array, np.memmap) and (array.nbytes > MAPPED_BYTES if large is None else large):
            assert array.filename
            self._file, self._first = os.open(array.filename, os.O_RDONLY | os.O_CLOEXEC), array.offset
            self._stored_bytes = prod(array.shape[1:]) * array.itemsize
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: slice) -> Tensor:
        """Some consecutive rows."""
        first, stop, _ = part.indices(len(self))
        if self._file is None:
            return self._given(self._data[first:stop])
        rows = self._data.new_empty((max(0, stop - first), *self.shape[1:]))
        self._read(first, rows)
        return self._given(rows)

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows, `size` at a time."""
        return (self[first : first + size] for first in range(0, len(self), size))

    def among(self, window: OrderWindow) -> Callable[[slice], Tensor]:
        """What gives rows of a window by their places in it."""
        if self._file is None:
            indices = torch.from_numpy(window.indices())
            return lambda part: self._given(self._data.index_select(0, indices[part]))
        if window.blocks == ((0, len(self)),):
            return lambda part: self._given(self._read_rows(window.places[part]))
        places = torch.from_numpy(window.places)
        return lambda part: self._given(self._hold(window).index_select(0, places[part]))

    def _given(self, rows: Tensor) -> Tensor:
        if rows.dtype == torch.float64 and self._scale:
            return rows.sub(self._scale[0]).div_(self._scale[1]).to(torch.float32)
        if rows.dtype != torch.uint8:
            return rows
        rows = rows.to(torch.float32)
        return rows.sub_(self._scale[0]).div_(self._scale[1]) if self._scale else rows

    def _read_rows(self, numbers: np.ndarray) -> Tensor:
        """Rows that lie here and there."""
        assert self._file is not None
        rows = self._data.new_empty((len(numbers), *self.shape[1:]))
        data, size = _bytes(rows), self._stored_bytes
        for at, offset in enumerate((numbers * size + self._first).tolist()):
            _fill(self._file, offset, data[at * size : (at + 1) * size])
        return rows

    def _hold(self, window: OrderWindow) -> Tensor:
        """The rows of a window's blocks laid end to end.

        They are kept until another window's are asked for; the system is told what comes then.
        """
        if self._held != window.blocks:
            assert self._file is not None
            rows = sum(stop - first for first, stop in window.blocks)
            if len(self._buffer) < rows:
                self._buffer = self._data.new_empty((rows, *self.shape[1:]))
            self._held, at = (), 0
            for first, stop in window.blocks:
                self._read(first, self._buffer[at : at + stop - first])
                at += stop - first
            self._held = window.blocks
            if hasattr(os, "posix_fadvise"):
                for first, stop in window.ahead:
                    size = self._stored_bytes
                    os.posix_fadvise(
                        self._file, self._first + first * size, (stop - first) * size, os.POSIX_FADV_WILLNEED
                    )
        return self._buffer

    def _read(self, first: int, rows: Tensor) -> None:
        assert self._file is not None
        _fill(self._file, self._first + first * self._stored_bytes, _bytes(rows))


@dataclass(frozen=True)
class Rows:
    """A data set: inputs (rows, *shape), and targets (rows,)."""

    inputs: Tensor | Stored
    targets: Tensor | Stored

    @classmethod
    def stored(
        cls, inputs: np.ndarray, targets: np.ndarray, scale: Scale | None = None, target_scale: Scale | None = None
    ) -> "Rows":
        """Those of a split of the batch store.

        Targets are read where inputs are: to map them would take memory for each row, too.
        """
        large = inputs.nbytes > MAPPED_BYTES
        return cls(Stored(inputs, scale, large), Stored(targets, target_scale, large))


def minibatches(
    inputs: Tensor | Stored,
    targets: Tensor | Stored,
    order: Tensor | RowOrder | RowOrderAmong,
    size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows in the given order, `size` at a time, on a device; the last minibatch may be smaller.

    Rows are gathered several minibatches at once, which costs less than one by one.
    """
    sources = [array if isinstance(array, Stored) else Stored(array.numpy()) for array in (inputs, targets)]
    chunk = size * max(1, CHUNK_BYTES // (size * sum(source.row_bytes for source in sources)))
    begun: list[list[Tensor]] = []  # of a minibatch whose rows lie in several windows
    missing = 0  # rows of it
    every = ((0, len(inputs)),)
    for window in [OrderWindow(every, order.numpy(), ())] if isinstance(order, Tensor) else order.windows():
        select = [source.among(window) for source in sources]
        rows = len(window.places)
        head = min(missing, rows)
        if head:
            begun.append([some(slice(head)) for some in select])
            missing -= head
            if not missing:
                yield _joined(begun, device)
                begun = []
        whole = rows - (rows - head) % size
        for first in range(head, whole, chunk):
            part = slice(first, min(first + chunk, whole))
            yield from zip(*(some(part).to(device).split(size) for some in select), strict=True)
        if whole < rows:
            begun.append([some(slice(whole, rows)) for some in select])
            missing = size - (rows - whole)
    if begun:
        yield _joined(begun, device)


def _joined(parts: list[list[Tensor]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    inputs, targets = ((some[0] if len(some) == 1 else torch.cat(some)).to(device) for some in zip(*parts, strict=True))
    return inputs, targets


def _spread(values: list[float], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers as a tensor that goes with inputs of a shape: one for all, for each of the first axis, or
    for each value.
    """
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.reshape(shape) if len(values) == prod(shape) else tensor.reshape(-1, *[1] * (len(shape) - 1))


def _fill(file: int, offset: int, data: memoryview) -> None:
    """Read what a file has from `offset` on.

    Raises:
        EOFError: the file ends before `data` is full.
    """
    while data:
        count = os.preadv(file, [data], offset)
        if not count:
            raise EOFError("data/batches ends too early")
        data, offset = data[count:], offset + count


def _bytes(rows: Tensor) -> memoryview:
    return rows.numpy().reshape(-1).view(np.uint8).data
