"""IDX files, as MNIST ships them: images in one, labels in another, plain or gzip."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.data.readers.array_columns import (
    MOST_AXES,
    array_column,
    array_field,
    number_type,
    rows_in_batch,
    target_column,
    target_field,
    target_type,
)
from surefoot.data.readers.raw_files import open_bytes, read_fully, unreadable
from surefoot.data.readers.source import BytesRead, Places, RowSource
from surefoot.params.prepare_section import PrepareParams

# https://yann.lecun.com/exdb/mnist: the third byte of a file is the type of its values, all big-endian.
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# So many bytes at most come of one byte of a compressed file: 1,032 with gzip, some more with Zstandard.
MOST_COMPRESSED = 1 << 15


@dataclass
class Idx:
    """An IDX file that stands at its first value."""

    path: Path
    stream: pa.NativeFile
    raw: pa.NativeFile
    shape: tuple[int, ...]
    dtype: np.dtype


def open_idx(prepare: PrepareParams, files: list[Path], labels: Path | None) -> RowSource:
    """Images (rows, height, width) as rows of shape [1, height, width], or arrays of another number of axes as they
    are; and their labels.

    Raises:
        UserError: a file isn't IDX, or is cut short; there isn't a label for each image.
    """
    images = _open(files[0])
    targets = _open(labels) if labels else None
    if targets and len(targets.shape) != 1:
        raise UserError(
            f"{labels}: holds values of shape {list(targets.shape[1:])}; labels are single numbers (prepare.labels)"
        )
    if targets and images.shape[0] != targets.shape[0]:
        raise UserError(
            f"{files[0]} has {images.shape[0]} rows, but {labels} has {targets.shape[0]} labels; each row needs one"
        )
    if not prod(images.shape):
        raise UserError(f"{files[0]}: is empty: its shape is {list(images.shape)}")
    shape = images.shape[1:] or (1,)
    kind = number_type(images.dtype)
    assert kind is not None
    fields = [array_field((1, *shape) if len(shape) == 2 else shape, kind)]
    if targets:
        target = target_type(targets.dtype)
        assert target is not None
        fields.append(target_field(prepare.target, target))
    progress, places = BytesRead(), Places()
    places.start(files[0], 0)

    def batches() -> Iterator[pa.RecordBatch]:
        rows = images.shape[0]
        step = rows_in_batch(fields[0].type)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            columns = [array_column(_values(images, count), fields[0])]
            if targets:
                columns.append(target_column(_values(targets, count), fields[1]))
            progress.read = sum(file.raw.tell() for file in (images, targets) if file)
            yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        for file in filter(None, (images, targets)):
            if _bytes(file, 1):
                raise UserError(f"{file.path}: goes on after the {rows} rows that its header announces")
            file.raw.close()

    return RowSource(pa.schema(fields), batches(), places, None, lambda: progress.read)


def labels_of(path: Path) -> Path:
    """The file of the labels that belongs to a file of images, by its name: train-labels-idx1-ubyte.gz to
    train-images-idx3-ubyte.gz.

    Raises:
        UserError: there is none.
    """
    name = re.sub(r"idx\d", "idx1", path.name.replace("images", "labels"))
    for candidate in (name, name.removesuffix(".gz"), f"{name}.gz"):
        if candidate != path.name and path.with_name(candidate).is_file():
            return path.with_name(candidate)
    raise UserError(f"{path}: there is no file {name!r} of labels beside it; prepare.labels must name it")


def _open(path: Path) -> Idx:
    try:
        stream, raw = open_bytes(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    file = Idx(path, stream, raw, (), np.dtype("u1"))
    start = _bytes(file, 4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES or not start[3]:
        raise UserError(f"{path}: isn't an IDX file: it begins with {start.hex(' ') or 'nothing'}")
    file.dtype = np.dtype(TYPES[start[2]])
    sizes = _bytes(file, 4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise UserError(f"{path}: is cut short in its header")
    file.shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    # Before anything of that size is asked for: of a file that isn't compressed all must be there.
    held = path.stat().st_size * (MOST_COMPRESSED if stream is not raw else 1)
    if prod(file.shape) * file.dtype.itemsize > held:
        raise _short(file)
    return file


def _short(file: Idx) -> UserError:
    shown = f"{list(file.shape[1:])}" if len(file.shape) <= MOST_AXES else f"{len(file.shape) - 1} axes"
    return UserError(f"{file.path}: is cut short: its header announces {file.shape[0]:,} rows of shape {shown}")


def _values(file: Idx, rows: int) -> np.ndarray:
    """The next rows."""
    size = rows * prod(file.shape[1:]) * file.dtype.itemsize
    data = _bytes(file, size)
    if len(data) < size:
        raise _short(file)
    return np.frombuffer(data, file.dtype).reshape(rows, *file.shape[1:])


def _bytes(file: Idx, size: int) -> bytes:
    try:
        return read_fully(file.stream, size)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.path, error) from None
