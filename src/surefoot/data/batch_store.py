"""The batch store: fixed-width arrays that are memory-mapped, and an index that is written last.

index.json                 batch size, rows, batches in an epoch, shapes, dtypes, task, scale, order of rows, class
counts, part files, digests
train/inputs.npy           float32, uint8 or int64 (rows, *shape), in training order: shuffled once
train/targets.npy          int64 (rows,): indices of classes; or float32
validation/..., test/...   the same, in file order
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO, FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from surefoot.base import digests, reading, writing
from surefoot.data.order import Order, OrderAmong
from surefoot.data.part_files import Range, count
from surefoot.data.splitting import SPLITS

Block = tuple[np.ndarray, np.ndarray]
Arrays = tuple["_Array", "_Array"]

# Rows are shuffled so many bytes at a time; in memory are three times as many.
BUCKET_BYTES = 32 << 20


@dataclass(frozen=True)
class Split:
    """A split's arrays, memory-mapped: inputs float32, uint8 or int64 (rows, *shape), targets int64, float32 or float64
    (rows,).
    """

    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Store:
    """An opened batch store; `only`: the training rows that are trained on, as ranges of the raw data's order, where
    not all are.
    """

    index: dict[str, Any]
    train: Split
    validation: Split
    test: Split
    only: tuple[Range, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.index["input_shape"])

    @property
    def classes(self) -> list[str]:
        """The labels; a target is an index into them."""
        return list(self.index["classes"])

    @property
    def task(self) -> str:
        """What is predicted: classification, binary or regression."""
        return str(self.index["task"])

    @property
    def outputs(self) -> int:
        """How many numbers the network must give for a row: one for each class, or one."""
        return len(self.classes) if self.task == "classification" else 1

    @property
    def target_scale(self) -> dict[str, list[float]] | None:
        """What targets, stored in their own unit, are brought to in training; None: they are trained on as they are, as
        in older stores.
        """
        return self.index.get("target_scale")

    @property
    def inputs_scaled(self) -> bool:
        """Whether inputs that are numbers are brought to one scale; also where there are none."""
        measured = [
            feature
            for feature in self.index["features"] or []
            if feature["kind"] in ("numeric", "date") or feature.get("dtype", "int64") != "int64"
        ]
        return (
            bool(self.index["scale"])
            or not measured
            or any(by != 1 for feature in measured for by in feature["divide"] or [])
        )

    @property
    def target_unit(self) -> float | None:
        """What 1 of a scaled target is in its own unit; None: they aren't scaled."""
        return self.target_scale["divide"][0] if self.target_scale else None

    @property
    def preparation(self) -> dict[str, Any]:
        """What a network's description says of its inputs and outputs, so that raw rows can be predicted."""
        return preparation(self.index)

    def schema(self) -> dict[str, Any]:
        """What a network may want to know: the task, the classes, and of each input column its kind and its place in a
        row.
        """
        return {"task": self.task, "classes": self.classes, "features": self.index["features"]}

    @property
    def batch_size(self) -> int:
        """Rows in a minibatch."""
        return int(self.index["batch_size"])

    @property
    def rows_per_epoch(self) -> int:
        """Training rows that an epoch uses: all, or whole minibatches only where `batch.drop_last` is set."""
        rows = len(self.train.targets) if self.only is None else count(self.only)
        return rows - rows % self.batch_size if self.index["drop_last"] else rows

    def order(self, seed: int, epoch: int) -> Order | OrderAmong:
        """The training rows of an epoch, in the order in which they are trained on."""
        index = self.index
        if self.only is not None:
            return OrderAmong(self.only, len(self.train.targets), seed, epoch)[: self.rows_per_epoch]
        blocks = (index["block"], index["window"]) if index["shuffle"] == "blocks" else ()
        return Order(len(self.train.targets), seed, epoch, *blocks)[: self.rows_per_epoch]


def preparation(index: dict[str, Any]) -> dict[str, Any]:
    """Of an `index.json`: what must be known to bring raw rows to a network, and its outputs to answers."""
    known = index["preparation"] | index
    return {
        name: known[name]
        for name in ("task", "classes", "input_shape", "features", "scale", "target_scale", "notation")
        if name in known
    }


def write_split(
    out: Path,
    blocks: Iterable[Block],
    rows: int,
    shape: tuple[int, ...],
    places: Order | None = None,
    *,
    classes: int = 0,
    dtype: str = "float32",
    targets_dtype: str = "int64",
    tick: Callable[[int], object] = lambda rows: None,
) -> dict[str, Any]:
    """Write a split's blocks of (inputs, targets) into the directory `out`; row i goes to the i-th of `places`, or to
    i.

    Memory is bounded, whatever the rows. They are shuffled on disk in two passes: the first brings each row to the
    right bucket, a stretch of the file, the second puts a bucket in order.

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
        arrays = (inputs, targets)
        if places is None:
            start = 0
            for some in _counted(blocks, counts):
                for array, values in zip(arrays, some, strict=True):
                    array.write(start, values)
                    array.hash(values, hasher)
                start += len(some[1])
                tick(len(some[1]))
        else:
            size = max(1, BUCKET_BYTES // (inputs.row_bytes + targets.row_bytes))
            # The same memory all along: what is freed and taken anew adds up to more, now and then.
            rooms = [[array.room(min(size, rows)) for array in arrays] for _ in range(3)]
            with tempfile.TemporaryFile(dir=out, buffering=0) as within:
                _distribute(arrays, within, _counted(blocks, counts), places, size, rooms[0], tick)
                _put_in_order(arrays, within, size, rooms, hasher, tick)
        return {
            "rows": rows,
            "class_counts": counts.tolist(),
            "inputs": inputs.describe(),
            "targets": targets.describe(),
        }


def _distribute(
    arrays: Arrays,
    within: FileIO,
    blocks: Iterator[Block],
    places: Order,
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
    arrays: Arrays,
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

    def describe(self) -> dict[str, Any]:
        """What `index.json` says of the array, once all rows are hashed. It is on the disk then."""
        self._hashed()
        os.fsync(self._file.fileno())
        return {"dtype": self.dtype.name, "shape": self.shape, "sha256": self._hash.hexdigest()}

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


def write_index(
    out: Path,
    splits: dict[str, dict[str, Any]],
    *,
    batch_size: int,
    drop_last: bool,
    shape: tuple[int, ...],
    classes: list[str],
    preparation: dict[str, Any],
    task: str = "classification",
    scale: dict[str, list[float]] | None = None,
    target_scale: dict[str, list[float]] | None = None,
    features: list[dict[str, Any]] | None = None,
    blocks: tuple[int, int] | None = None,
    parts: list[dict[str, Any]] | None = None,
) -> None:
    """Write `index.json`.

    Args:
        out: the directory of the store.
        splits: what `write_split` said of each.
        batch_size: rows in a minibatch.
        drop_last: whether a last one that isn't full is left out.
        shape: of one input.
        classes: the labels; none for regression.
        preparation: what a row that comes later needs.
        task: classification, binary or regression.
        scale: what inputs are brought to in the training step, (x - subtract) / divide: `subtract` and `divide`, a
            number each, one for each of the first axis of an input, or one for each value of it.
        target_scale: the same of targets, a number each; None: they are trained on as they are.
        features: the preparation of tables.
        blocks: rows in a block and blocks in a window, where rows are shuffled so; None: all rows are.
        parts: the part files of the raw data, in order: path, digest, and rows by split.
    """
    rows = splits["train"]["rows"]
    index = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "shuffle": "blocks" if blocks else "full",
        "block": blocks[0] if blocks else None,
        "window": blocks[1] if blocks else None,
        "batches_per_epoch": rows // batch_size if drop_last else -(-rows // batch_size),
        "task": task,
        "outputs": len(classes) if task == "classification" else 1,
        "input_shape": shape,
        "dtype": splits["train"]["inputs"]["dtype"],
        "scale": scale,
        **({"target_scale": target_scale} if target_scale else {}),
        "classes": classes,
        "features": features,
        "preparation": preparation,
        "parts": parts or [],
        "splits": {split: splits[split] for split in SPLITS},
    }
    writing.write_json(out / "index.json", index | {"digest": digests.sha256(digests.canonical_json(index))})


def open_store(path: Path) -> Store:
    """Open the batch store in the directory `path`. Three lines read a batch from anywhere:

    store = open_store(Path("data/batches"))
    rows = store.order(seed=0, epoch=1)[: store.batch_size].indices()
    inputs, targets = store.train.inputs[rows], store.train.targets[rows]

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    index = reading.read_made_json(path / "index.json", "batch")

    def opened(split: str) -> Split:
        return Split(*(_mapped(path / split / f"{name}.npy") for name in ("inputs", "targets")))

    return Store(index, opened("train"), opened("validation"), opened("test"))


def _mapped(path: Path) -> np.ndarray:
    """An array of the store. Mode "c", copy on write: torch warns of arrays that it could not write to."""
    with reading.reading_made(path, "batch", ValueError, EOFError):
        reading.open_file(path).close()
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        return array
