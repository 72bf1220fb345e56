"""Arrow's arrays as NumPy's and back, without pandas, which Arrow's own ways import."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def numpy_values(array: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The values of an array of numbers, booleans, dates or times, and which are there (None: all); a value that isn't
    is 0.

    Without Arrow's own to_numpy, which imports pandas.
    """
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    elif pa.types.is_date32(array.type) or pa.types.is_time32(array.type):
        array = array.view(pa.int32())
    elif pa.types.is_temporal(array.type):
        array = array.view(pa.int64())
    if not array.null_count:
        whole = pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], 0, array.offset)
        return np.from_dlpack(whole), None
    valid = validity(array)
    data = np.frombuffer(array.buffers()[1], dtype=dtype_of(array.type))[array.offset : array.offset + len(array)]
    return np.where(valid, data, data.dtype.type(0)), valid


def dtype_of(type_: pa.DataType) -> np.dtype[Any]:
    """NumPy's type of an Arrow type of numbers."""
    # Not type_.to_pandasdtype_of(), which imports pandas.
    name = str(type_)
    return np.dtype({"double": "float64", "float": "float32", "halffloat": "float16"}.get(name, name))


def validity(array: pa.Array) -> NDArray[np.bool_]:
    """Which values are there."""
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    return np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[array.offset :].astype(np.bool_)


def arrow_mask(chosen: NDArray[np.bool_]) -> pa.BooleanArray:
    """A mask as an Arrow array: from its bits, as pa.array imports pandas."""
    return pa.BooleanArray.from_buffers(
        pa.bool_(), len(chosen), [None, pa.py_buffer(np.packbits(chosen, bitorder="little"))]
    )


def with_nulls(values: NDArray[Any], missing: NDArray[np.bool_], type_: pa.DataType) -> pa.Array:
    """An array of these values, null where they are missing."""
    valid = np.packbits(~missing, bitorder="little")
    return pa.Array.from_buffers(type_, len(values), [pa.py_buffer(valid), pa.py_buffer(np.ascontiguousarray(values))])


def whole_texts(array: pa.Array) -> pa.Array:
    """Numbers as the texts that a file has of them: 2007, also where pandas makes 2007.0 of it."""
    if pa.types.is_floating(array.type):
        values, valid = numpy_values(array.cast(pa.float64()))
        missing = np.isnan(values) if valid is None else np.isnan(values) | ~valid
        values = np.where(missing, 0.0, values)
        whole = (np.abs(values) < 2**53) & (values == np.floor(values))
        integers = with_nulls(np.where(whole, values, 0).astype(np.int64), missing, pa.int64()).cast(pa.string())
        return integers if whole.all() else pc.if_else(arrow_mask(whole), integers, array.cast(pa.string()))
    return array.cast(pa.string())


def is_text(type_: pa.DataType) -> bool:
    """Whether an array of this type holds texts."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def text_array(texts: Sequence[str]) -> pa.StringArray:
    """Texts as an array. Not by pa.array, which imports pandas."""
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def null_where(chosen: pa.BooleanArray, array: pa.Array) -> pa.Array:
    """The array, with nulls where chosen."""
    return pc.if_else(chosen, pa.nulls(1, array.type)[0], array)  # pa.scalar imports pandas
