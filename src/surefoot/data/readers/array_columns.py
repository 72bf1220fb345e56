"""Arrays, and the targets beside them, as columns of Arrow batches."""

import json
from math import prod

import numpy as np
import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import text_array

INPUT = "input"
"""The column of arrays and images."""
BATCH_BYTES = 4 << 20
MOST_AXES = 32  # of a row, as of batch.shape
MOST_ROW_BYTES = 1 << 28
# Not Arrow's to_pandas_dtype, which imports pandas.
NUMPY = {pa.uint8(): np.uint8, pa.int64(): np.int64, pa.float32(): np.float32, pa.float64(): np.float64}


def number_type(dtype: np.dtype) -> np.dtype | None:
    """The type in which numbers of `dtype` are passed on: uint8, int64, float32 or float64; None if they are no
    numbers, or too wide.
    """
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint8)
    if dtype.kind in "iu" and dtype != np.uint64:
        return np.dtype(np.int64)
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    return None


def target_type(dtype: np.dtype) -> np.dtype | None:
    """The same of targets: int64, float64 or text (kind U)."""
    if dtype.kind == "U" and dtype.itemsize:
        return dtype.newbyteorder("=")
    return (
        {"u": np.dtype(np.int64), "i": np.dtype(np.int64), "f": np.dtype(np.float64)}.get(number.kind)
        if (number := number_type(dtype))
        else None
    )


def array_field(shape: tuple[int, ...], dtype: np.dtype) -> pa.Field:
    """The field `input` for rows of this shape and type.

    Raises:
        UserError: a row has more axes, or is larger, than what can be worked on.
    """
    if len(shape) > MOST_AXES:
        raise UserError(f"a row has {len(shape)} axes, which is too many: {MOST_AXES} are possible")
    if prod(shape) * dtype.itemsize > MOST_ROW_BYTES:
        raise UserError(
            f"a row of shape {list(shape)} has {prod(shape):,} values, which is too many: a row may have"
            f" {MOST_ROW_BYTES >> 20} MiB"
        )
    kind = pa.list_(pa.from_numpy_dtype(dtype), prod(shape))
    return pa.field(INPUT, kind, nullable=False, metadata={"shape": json.dumps(list(shape))})


def array_column(values: np.ndarray, field: pa.Field) -> pa.Array:
    """Rows (rows, *shape) as a column for `array_field`."""
    flat = np.ascontiguousarray(values, dtype=NUMPY[field.type.value_type]).reshape(-1)
    # From buffers: pa.array imports pandas.
    numbers = pa.Array.from_buffers(field.type.value_type, len(flat), [None, pa.py_buffer(flat)])
    return pa.Array.from_buffers(field.type, len(values), [None], children=[numbers])


def target_field(name: str, dtype: np.dtype) -> pa.Field:
    """The field of targets of a `target_type`."""
    return pa.field(name, pa.string() if dtype.kind == "U" else pa.from_numpy_dtype(dtype))


def target_column(values: np.ndarray, field: pa.Field) -> pa.Array:
    """Targets (rows,) as a column."""
    if not pa.types.is_string(field.type):
        flat = np.ascontiguousarray(values, dtype=NUMPY[field.type])
        return pa.Array.from_buffers(field.type, len(flat), [None, pa.py_buffer(flat)])
    return text_column(values.tolist())


def text_column(texts: list[str]) -> pa.Array:
    """Texts as a column.

    Raises:
        UserError: one has half a character, as a file name of another encoding has.
    """
    try:
        return text_array(texts)
    except UnicodeEncodeError as error:
        raise UserError(f"the text {error.object!r} is not valid Unicode, so it can't be a class; rename it") from None


def rows_in_batch(kind: pa.DataType) -> int:
    """How many rows of an `array_field` make a batch."""
    return max(1, BATCH_BYTES // (int(kind.list_size) * np.dtype(NUMPY[kind.value_type]).itemsize))
