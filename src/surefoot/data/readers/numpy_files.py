"""NPY and NPZ files, read in stretches of rows: nothing is loaded whole, and no pickled object is ever loaded."""

import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.readers.array_columns import (
    array_column,
    array_field,
    number_type,
    rows_in_batch,
    target_column,
    target_field,
    target_type,
)
from surefoot.data.readers.source import BytesRead, Places, RowSource
from surefoot.params.prepare_section import PrepareParams


@dataclass
class StoredArray:
    """An array in a file that stands at its first value."""

    name: str
    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    """Whether it is stored column by column: the first axis varies fastest."""
    offset: int


def open_npy(prepare: PrepareParams, files: list[Path], labels: Path | None) -> RowSource:
    """Inputs from one NPY file, (rows, ...), and targets, (rows,), from another.

    Raises:
        UserError: one isn't an array of numbers, or is cut short, or holds pickled objects; the lengths differ.
    """
    if labels is None and prepare.target:
        raise UserError(f"{files[0]}: holds the inputs alone; prepare.labels must name the NPY file of the targets")
    return _open(prepare, files[0], labels)


def open_npz(prepare: PrepareParams, files: list[Path], labels: Path | None) -> RowSource:
    """Inputs and targets from the arrays of an NPZ file that prepare.arrays names; targets from an NPY file, where
    prepare.labels names one.

    Raises:
        UserError: as `open_npy`; an array isn't there.
    """
    return _open(prepare, files[0], labels)


def _open(prepare: PrepareParams, path: Path, labels: Path | None) -> RowSource:
    progress = BytesRead()
    with ExitStack() as stack:  # closes what is open if there is an error
        inputs = _stored(stack, path, prepare.arrays.inputs)
        targets = _stored(stack, labels or path, prepare.arrays.targets) if prepare.target else None
        fields = _fields(prepare, inputs, targets)
        opened = stack.pop_all()
    places = Places()
    places.start(path, 0)

    def batches() -> Iterator[pa.RecordBatch]:
        with opened:
            rows = inputs.shape[0]
            size = sum(file.stat().st_size for file in (path, labels) if file)
            step = rows_in_batch(fields[0].type)
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                columns = [array_column(_rows(inputs, start, stop), fields[0])]
                if targets:
                    columns.append(target_column(_rows(targets, start, stop).reshape(-1), fields[1]))
                progress.read = size * stop // rows
                yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
            for stored in (inputs, targets):
                if stored and not stored.fortran:
                    _read(stored, 1)  # at its end a member of a zip is checked

    return RowSource(pa.schema(fields), batches(), places, None, lambda: progress.read)


def _fields(prepare: PrepareParams, inputs: StoredArray, targets: StoredArray | None) -> list[pa.Field]:
    kind = number_type(inputs.dtype)
    if kind is None:
        raise UserError(
            f"{inputs.name}: holds {inputs.dtype} values; inputs must be numbers of 64 bits at most:"
            f" {_way_out(inputs.dtype, 'x')}"
        )
    if not inputs.shape:
        raise UserError(f"{inputs.name}: is a single value; its first axis must be the rows")
    if not all(inputs.shape):
        raise UserError(f"{inputs.name}: is empty: its shape is {inputs.shape}")
    field = array_field(inputs.shape[1:] or (1,), kind)
    if targets is None:
        return [field]
    target = target_type(targets.dtype)
    if target is None:
        raise UserError(
            f"{targets.name}: holds {targets.dtype} values; targets must be numbers or texts:"
            f" {_way_out(targets.dtype, 'y')}"
        )
    if targets.shape not in (inputs.shape[:1], (*inputs.shape[:1], 1)):
        way = (
            "; of one-hot targets save y.argmax(1)"
            if len(targets.shape) == 2 and targets.shape[0] == inputs.shape[0]
            else ""
        )
        raise UserError(
            f"{inputs.name} has {inputs.shape[0]} rows, but {targets.name} is of shape {targets.shape}; it must be"
            f" ({inputs.shape[0]},){way}"
        )
    return [field, target_field(prepare.target, target)]


def _way_out(dtype: np.dtype, name: str) -> str:
    """How to save an array of a type that isn't taken."""
    kinds = {
        "b": "uint8",
        "S": "str",
        "U": "float32",
        "c": "",
        "M": "int64",
        "m": "int64",
        "f": "float32",
        "i": "int64",
        "u": "int64",
    }
    if dtype.kind == "c":
        return f"save its parts, `np.stack([{name}.real, {name}.imag], -1)`"
    if dtype.names or dtype.kind not in kinds:
        return (
            "save its numbers by themselves, as `np.save` does of an array of"
            f" float32{f' ({name}[{dtype.names[0]!r}])' if dtype.names else ''}"
        )
    return f"save {name}.astype({kinds[dtype.kind]!r})"


def _stored(stack: ExitStack, path: Path, name: str) -> StoredArray:
    """Open an array: a file by itself, or the member `name` of an NPZ file."""
    shown = str(path)
    try:
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = [member.removesuffix(".npy") for member in archive.namelist()]
            if name not in members:
                raise UserError(
                    f"{path}: has no array {name!r}, it has {listed_names(members)}; prepare.arrays names those that"
                    f" count{_names_that_fit(members)}"
                )
            shown = f"{path}: array {name!r}"
            member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
            size = archive.getinfo(member).file_size
            file = stack.enter_context(archive.open(member))
        else:
            file = stack.enter_context(path.open("rb"))
            if file.read(4) == b"PK\x03\x04":
                raise UserError(f"{path}: is cut short or damaged: an NPZ file has its list of arrays at the end")
            file.seek(0)
            size = path.stat().st_size
        major, _ = npy.read_magic(file)
        shape, fortran, dtype = (npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0)(file)
    except (UserError, OSError):
        raise
    except Exception as error:  # NumPy's parser raises many kinds on damaged data
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{shown}: isn't an array as NumPy saves it, or is cut short: {why}") from None
    if dtype.hasobject:
        raise UserError(
            f"{shown}: holds pickled Python objects, which can run any code when loaded; "
            "save an array of numbers, of texts as `y.astype(str)`, or of lists of one length as `np.stack(x)`"
        )
    if not all(type(size) is int and size >= 0 for size in shape):
        raise UserError(f"{shown}: isn't an array as NumPy saves it: its shape is {shape}")
    stored = StoredArray(shown, file, shape, dtype, fortran and len(shape) > 1, file.tell())
    if size < stored.offset + dtype.itemsize * prod(shape):
        raise _short(stored)
    return _copied(stack, stored) if stored.fortran and isinstance(file, zipfile.ZipExtFile) else stored


def _copied(stack: ExitStack, stored: StoredArray) -> StoredArray:
    """The array in a temporary file, as a member of a zip can only be read from start to end."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    while part := _read(stored, 1 << 20):
        copy.write(part)
    copy.flush()
    return replace(stored, file=copy, offset=0)


def _rows(stored: StoredArray, start: int, stop: int) -> np.ndarray:
    """Rows `start` to `stop`, the next that haven't been read."""
    size = stored.dtype.itemsize * prod(stored.shape[1:])
    if stored.fortran:
        # A row is spread over the whole file. Not mapped: the pages around each touched value would fill the memory.
        columns = np.empty((prod(stored.shape[1:]), stop - start), stored.dtype)
        for number, column in enumerate(columns):
            if (
                os.preadv(
                    stored.file.fileno(),
                    [column],
                    stored.offset + (number * stored.shape[0] + start) * stored.dtype.itemsize,
                )
                < column.nbytes
            ):
                raise _short(stored)
        return columns.T.reshape(stop - start, *stored.shape[1:], order="F")
    data = _read(stored, size * (stop - start))
    if len(data) < size * (stop - start):
        raise _short(stored)
    return np.frombuffer(data, stored.dtype).reshape(stop - start, *stored.shape[1:])


def _read(stored: StoredArray, size: int) -> bytes:
    try:
        return stored.file.read(size)
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{stored.name}: is cut short or damaged: {error}") from None


def _short(stored: StoredArray) -> UserError:
    return UserError(f"{stored.name}: is cut short: it should hold {stored.shape} {stored.dtype} values")


# Names in use: Keras', MedMNIST's, scikit-learn's.
INPUTS, TARGETS = "x|images?|data|inputs?|features", "y|labels?|targets?"
SPLIT = "train|valid(?:ation)?|val|test"


def _names_that_fit(members: list[str]) -> str:
    """The names in prepare.arrays, where those in the file tell; else nothing."""
    found: dict[str, str] = {}
    for key, names in (("inputs", INPUTS), ("targets", TARGETS)):
        for member in members:
            if fits := re.fullmatch(rf"(?:({SPLIT})_)?(?:{names})(?:_({SPLIT}))?", member, re.IGNORECASE):
                told = (fits[1] or fits[2] or "train").lower()
                split = {"train": "", "test": "test_"}.get(told, "validation_")
                found.setdefault(f"{split}{key}", member)
    if not {"inputs", "targets"} <= found.keys() or len(found) % 2:
        return ""
    by_split = sorted(found, key=lambda key: (key.rpartition("_")[0], key))
    return f": {{{', '.join(f'{key}: {found[key]}' for key in by_split)}}}"
