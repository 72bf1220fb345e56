"""The arrays of the batch store as they are written: shuffled on disk, in bounded memory."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO, FileIO
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from surefoot.data.batch_index import ArrayFile, SplitFiles
from surefoot.data.order import RowOrder

Block = tuple[np.ndarray, np.ndarray]
TwoArrays = tuple["_Array", "_Array"]
# Rows are shuffled so many bytes at a time; in memory are three times as many.
BUCKET_BYTES = 32 << 20


def write_split(
    out: Path,
    blocks: Iterable[Block],
    rows: int,
    shape: tuple[int, ...],
    places: RowOrder | None = None,
    *,
    classes: int = 0,
    dtype: str = "float32",
    targets_dtype: str = "int64",
    tick: Callable[[int], object] = lambda rows: None,
) -> SplitFiles:
    """Write a split's blocks of (inputs, targets) into the directory `out`; row i goes to the i-th of `places`, or to
    i.

    Memory is bounded, whatever the rows.

    Args:
        out: a directory, which must not be there yet.
        blocks: a few MB each.
        rows: in all blocks together.
        shape: of one input.
        places: a permutation of the rows.
        classes: how many there are to count; 0: targets aren't classes.
        dtype: of inputs.
        targets_dtype: of targets.
        tick: is told of rows as they are written: each once, or once in each pass.

    Returns what `index.json` says of the split.

    Raises:
        OSError: the disk is full, or can't be written; mostly before the first row.
    """
    out.mkdir()
    counts = np.zeros(classes, np.int64)
    with (
        _Array(out / "inputs.npy", dtype, (rows, *shape)) as inputs,
        _Array(out / "targets.npy", targets_dtype, (rows,)) as targets,
        ThreadPoolExecutor(1) as hasher,
    ):
        if places is None:
            _write_as_they_come((inputs, targets), _counted(blocks, counts), hasher, tick)
        else:
            _write_shuffled((inputs, targets), _counted(blocks, counts), places, out, hasher, tick)
        return SplitFiles(rows=rows, class_counts=counts.tolist(), inputs=inputs.describe(), targets=targets.describe())


def _write_as_they_come(
    arrays: TwoArrays, blocks: Iterator[Block], hasher: ThreadPoolExecutor, tick: Callable[[int], object]
) -> None:
    start = 0
    for block in blocks:
        for array, values in zip(arrays, block, strict=True):
            array.write(start, values)
            array.hash(values, hasher)
        start += len(block[1])
        tick(len(block[1]))


def _write_shuffled(
    arrays: TwoArrays,
    blocks: Iterator[Block],
    places: RowOrder,
    out: Path,
    hasher: ThreadPoolExecutor,
    tick: Callable[[int], object],
) -> None:
    """In two passes, in bounded memory: the first brings each row to the right bucket, a stretch of the file, the
    second puts a bucket in order.
    """
    size = max(1, BUCKET_BYTES // sum(array.row_bytes for array in arrays))
    # The same memory all along: what is freed and taken anew adds up to more, now and then.
    rooms = [[array.room(min(size, len(places))) for array in arrays] for _ in range(3)]
    with tempfile.TemporaryFile(dir=out, buffering=0) as within:
        _distribute(arrays, within, blocks, places, size, rooms[0], tick)
        _put_in_order(arrays, within, size, rooms, hasher, tick)


def _distribute(
    arrays: TwoArrays,
    within: FileIO,
    blocks: Iterator[Block],
    places: RowOrder,
    size: int,
    room: list[np.ndarray],
    tick: Callable[[int], object],
) -> None:
    """The first pass: each row goes to the bucket that its place is in, a stretch of `size` rows, and its place in
    there to the file `within`.
    """
    rows = len(places)
    filled = np.arange(0, rows, size)  # of each bucket: where its next row goes
    start = 0
    for group in _grouped(blocks, room):
        to = places[start : start + len(group[1])].indices()
        # NumPy sorts 16 bits by radix, several times as fast.
        bucket = (to // size).astype(np.uint16 if len(filled) < 1 << 16 else np.int64)
        by_bucket = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=len(filled)))
        for number, some in enumerate(np.split(by_bucket, ends[:-1])):
            if len(some):
                for array, values in zip(arrays, group, strict=True):
                    array.write(int(filled[number]), values.take(some, axis=0))
                _write(within, 4 * int(filled[number]), (to[some] - number * size).astype(np.uint32))
                filled[number] += len(some)
        start += len(to)
        tick(len(to))


def _put_in_order(
    arrays: TwoArrays,
    within: FileIO,
    size: int,
    rooms: list[list[np.ndarray]],
    hasher: ThreadPoolExecutor,
    tick: Callable[[int], object],
) -> None:
    """The second pass: each bucket is read, put in order and written back."""
    rows = arrays[0].shape[0]
    for first in range(0, rows, size):
        count = min(size, rows - first)
        source = np.empty(count, np.int64)
        source[_read(within, 4 * first, np.empty(count, np.uint32))] = np.arange(count)
        # Two rooms in turn: the one is hashed while the other is filled.
        for array, room, ordered in zip(arrays, rooms[0], rooms[1 + first // size % 2], strict=True):
            # "clip" as any other mode would take memory for a second copy; no index is out of bounds.
            values = array.read(first, room[:count]).take(source, axis=0, out=ordered[:count], mode="clip")
            array.write(first, values)
            array.hash(values, hasher)
        tick(count)


def _counted(blocks: Iterable[Block], counts: np.ndarray) -> Iterator[Block]:
    """The same blocks; the rows of each class are added up in `counts`."""
    for inputs, targets in blocks:
        if len(counts):
            counts += np.bincount(targets.astype(np.int64), minlength=len(counts))
        yield inputs, targets


def _grouped(blocks: Iterator[Block], room: list[np.ndarray]) -> Iterator[Block]:
    """The same rows, as many at a time as there is room for: small pieces of a large file would be written slowly."""
    filled, size = 0, len(room[0])
    for block in blocks:
        some = [values.reshape(-1, *into.shape[1:]) for into, values in zip(room, block, strict=True)]
        done = 0
        while done < len(some[0]):
            count = min(size - filled, len(some[0]) - done)
            for into, values in zip(room, some, strict=True):
                into[filled : filled + count] = values[done : done + count]
            filled, done = filled + count, done + count
            if filled == size:
                yield room[0], room[1]
                filled = 0
    if filled:
        yield room[0][:filled], room[1][:filled]


class _Array:
    """A .npy file of known shape, written and read by rows, and hashed as its rows are written in order."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = np.dtype(dtype), shape
        self.row_bytes = prod(shape[1:]) * self.dtype.itemsize
        header = BytesIO()
        write_array_header_1_0(header, {"descr": dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})
        self._first = header.tell()
        self._hash = hashlib.sha256(header.getvalue())
        self._hashing: Future[None] | None = None
        self._file = FileIO(path, "w+")
        try:
            _reserve(self._file, self._first + shape[0] * self.row_bytes)
            _write(self._file, 0, np.frombuffer(header.getvalue(), np.uint8))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "_Array":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: int, values: np.ndarray) -> None:
        """Write rows from the number `row` on."""
        _write(self._file, self._first + row * self.row_bytes, self._ours(values))

    def read(self, row: int, values: np.ndarray) -> np.ndarray:
        """Read rows from the number `row` on."""
        return _read(self._file, self._first + row * self.row_bytes, values)

    def room(self, rows: int) -> np.ndarray:
        """Memory for so many rows."""
        return np.empty((rows, *self.shape[1:]), self.dtype)

    def hash(self, values: np.ndarray, hasher: ThreadPoolExecutor) -> None:
        """Hash the next rows in another thread; first those before must be done, so that memory stays bounded."""
        self._hashed()
        self._hashing = hasher.submit(self._hash.update, _bytes(self._ours(values)))

    def describe(self) -> ArrayFile:
        """What `index.json` says of the array, once all rows are hashed. It is on the disk then."""
        self._hashed()
        os.fsync(self._file.fileno())
        return ArrayFile(dtype=self.dtype.name, shape=list(self.shape), sha256=self._hash.hexdigest())

    def _hashed(self) -> None:
        if self._hashing:
            self._hashing.result()

    def _ours(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, self.dtype)


def _bytes(values: np.ndarray) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _write(file: FileIO, offset: int, values: np.ndarray) -> None:
    data = _bytes(values)
    while data:
        written = os.pwrite(file.fileno(), data, offset)
        data, offset = data[written:], offset + written


def _read(file: FileIO, offset: int, values: np.ndarray) -> np.ndarray:
    data = _bytes(values)
    while data:
        count = os.preadv(file.fileno(), [data], offset)
        data, offset = data[count:], offset + count
    return values


def _reserve(file: FileIO, size: int) -> None:
    """Take the space on the disk now: one that is too small is told of before the work, not after it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that can't
                raise
