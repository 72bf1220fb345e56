"""Values brought to the type of their column, or an error that names the first that can't be."""

from collections.abc import Callable
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import numpy_values, validity, with_nulls
from surefoot.data.columns import Column, kind_of_type
from surefoot.data.dates import to_date_type

FLOAT32_MAX = float(np.finfo(np.float32).max)
EXACT = 2.0**53
"""Up to here float64 has every whole number."""
EPOCH = date(1970, 1, 1).toordinal()


def nulls_of(array: pa.Array) -> NDArray[np.bool_] | None:
    """Which values are null; None: none is."""
    if not array.null_count:
        return None
    valid = numpy_values(array)[1]
    return None if valid is None else ~valid


def cast_or_refuse(array: pa.Array, type_: pa.DataType, at: Callable[[NDArray[np.bool_]], str], what: str) -> pa.Array:
    """A cast, or an error that names the first value which can't be."""
    if array.type == type_:
        return array
    # Times finer than a microsecond are cut to one.
    safe = not (pa.types.is_temporal(array.type) and pa.types.is_temporal(type_))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type) and pa.types.is_boolean(type_):
        array = nan_to_null(array)
    if pa.types.is_boolean(type_) and pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_boolean(type_) and kind_of_type(array.type) == "numeric":
        values, valid = numpy_values(array)
        bad = (values != 0) & (values != 1) if valid is None else valid & (values != 0) & (values != 1)
        if bad.any():
            raise UserError(f"{at(bad)}{array[int(np.flatnonzero(bad)[0])].as_py()!r} is not {what}")
    try:
        return array.cast(type_, safe=safe)
    except pa.ArrowInvalid:
        low, high = 0, len(array)
    except pa.ArrowNotImplementedError as error:
        raise UserError(f"{at(np.ones(1, np.bool_))}{error}") from None
    # By halves to the first value that fails.
    while high - low > 1:
        middle = (low + high) // 2
        try:
            array.slice(low, middle - low).cast(type_, safe=safe)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    raise UserError(f"{at(np.arange(len(array)) == low)}{array[low].as_py()!r} is not {what}")


def to_dates(column: Column, array: pa.Array, at: Callable[..., str]) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Dates in the type of their column, and which are missing; a date out of the years 1 to 9999 is refused."""
    _check_years(column, array, at)  # before the cast, in which what is too far away would wrap around
    cast = to_date_type(array, column.type)
    _check_years(column, cast, at)
    return cast, nulls_of(cast)


def _check_years(column: Column, array: pa.Array, at: Callable[..., str]) -> None:
    if not (pa.types.is_date(array.type) or pa.types.is_timestamp(array.type)) or not len(array):
        return
    a_day = (
        1
        if pa.types.is_date32(array.type)
        else 86400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[getattr(array.type, "unit", "ms")]
    )
    values, _ = numpy_values(array)
    # Of instants a day less on both sides: local time may be the next day's. 9999-12-31 often says that something
    # hasn't ended.
    less = int(bool(getattr(array.type, "tz", None)))
    first, last = (date.min.toordinal() + less - EPOCH) * a_day, (date.max.toordinal() + 1 - less - EPOCH) * a_day
    if values.min() < first or values.max() >= last:
        raise UserError(
            f"{at((values < first) | (values >= last), column.name)}: a date outside of the years 1 to 9999"
        )


def nan_to_null(array: pa.Array) -> pa.Array:
    """Floats with nulls for NaN."""
    values, valid = numpy_values(array)
    nan = np.isnan(values)
    return with_nulls(values, nan if valid is None else nan | ~valid, array.type) if nan.any() else array


def to_numbers(
    column: Column, array: pa.Array, at: Callable[..., str], limit: float
) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Numbers as float64, and which are missing; one that is infinite, or more than `limit`, is refused."""
    name = column.name
    what = "a whole number that float64 can hold" if pa.types.is_integer(array.type) else "a number"
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    array = cast_or_refuse(array, pa.float64(), lambda bad: f"{at(bad, name)}: ", what)
    values, valid = numpy_values(array)
    if not len(values):
        return array, None
    # One pass for the least and one for the greatest; NaN makes both comparisons false.
    if valid is None and values.min() >= -limit and values.max() <= limit:
        return array, None
    missing = np.isnan(values) if valid is None else np.isnan(values) | ~valid
    large = (np.abs(values) > limit) & ~missing
    if large.any():
        value = float(values[np.flatnonzero(large)[0]])
        if np.isinf(value):
            why = f"{value}; a finite number is needed"
        elif limit == EXACT:
            why = f"{value:.0f} is not a whole number that float64 can hold (2^53)"
        elif limit < FLOAT32_MAX:
            why = (
                f"{value:.0f} is more than float32 can tell from its neighbours (2^24); set prepare.normalize:"
                " standard, or make it a category (prepare.kinds)"
            )
        else:
            why = f"{value!r} is more than float32 can hold ({FLOAT32_MAX:.4g})"
        raise UserError(f"{at(large, name)}: {why}")
    if not missing.any():
        return array, None
    return with_nulls(values, missing, pa.float64()), missing


def arrays_to_bytes(
    column: Column, array: pa.Array, at: Callable[..., str]
) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Lists of a fixed length as so many bytes: quick to write, and to read."""
    assert column.array is not None
    dtype = np.dtype(column.array[0])
    size = array.type.list_size
    if array.null_count:
        raise UserError(f"{at(~np.asarray(validity(array)), column.name)}: empty; an array is needed in every row")
    flat = array.values.slice(array.offset * size, len(array) * size)
    if flat.null_count:
        raise UserError(f"{at(~validity(flat).reshape(-1, size).all(1), column.name)}: an array has missing values")
    values = np.ascontiguousarray(np.from_dlpack(flat).astype(dtype, copy=False)).reshape(-1, size)
    missing = None
    if dtype.kind == "f" and not np.isfinite(values).all():
        infinite = np.isinf(values).any(1)
        if infinite.any():
            raise UserError(f"{at(infinite, column.name)}: holds an infinite value; finite numbers are needed")
        missing = np.isnan(values).any(1)
    if dtype == np.float64:
        large = (np.abs(values) > FLOAT32_MAX).any(1)
        if large.any():
            raise UserError(
                f"{at(large, column.name)}: holds a value that is more than float32 can hold ({FLOAT32_MAX:.4g})"
            )
    return pa.Array.from_buffers(column.type, len(values), [None, pa.py_buffer(values)]), missing
