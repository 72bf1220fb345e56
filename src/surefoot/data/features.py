"""The fitted preparation: what becomes of each input column, fitted on the training rows, and applied the same way to
any row that comes later.

A list of plain dicts, one a column, as schema.json has it:

column, kind     its name, and numeric, boolean, category, date or array
unit             of numbers that came as texts: what stood at each, $ or % say
fill             what stands for a missing value, for each number: [0.0]; null: a missing value is an error
indicator        whether a feature says where a value was missing
subtract, divide the scaling of each number
values           a category's values as seen in training; null, at the end, is a missing value
encode           a category's: onehot, a feature a value after one for values not seen in training; or codes, one
                 feature with the value's number from 1, and 0 for values not seen in training
parts            a date's, each a number
zone             UTC: its parts are those of the time in UTC, and a time without a zone is an error; left out: it
                 has none
format           how its texts are written, as strptime has it; left out: as ISO 8601 has it
first, width     its features: where they start, how many there are
names            the features' names
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import is_text, numpy_values, text_array
from surefoot.data.dates import DATE, INSTANT, MOMENT, TIME, date_parts, parts_of_type, to_date_column
from surefoot.data.normalization import normalize
from surefoot.data.vocabulary import category_keys, texts_of_categories

FeatureDict = dict[str, Any]
TILE = 1 << 16


def transform(columns: Mapping[str, Any] | pa.RecordBatch, features: list[FeatureDict]) -> NDArray[Any]:
    """The inputs of a network, (rows, width): float32 of columns; of an array column its own uint8 or int64, or
    float32, flat.

    Takes Arrow arrays, or NumPy's, where NaN, NaT and None are missing values, by column name; other columns may be
    there.

    Raises:
        UserError: a missing column, or a value that the fitted preparation doesn't take.
    """
    names = columns.schema.names if isinstance(columns, pa.RecordBatch) else columns
    if absent := [feature["column"] for feature in features if feature["column"] not in names]:
        raise UserError(
            f"column {absent[0]!r} is missing; the model's inputs are"
            f" {', '.join(feature['column'] for feature in features)}"
        )
    if features[0]["kind"] == "array":
        return _array(columns[features[0]["column"]], features[0])
    given = {feature["column"]: columns[feature["column"]] for feature in features}
    rows = len(next(iter(given.values())))
    inputs = np.empty((rows, features[-1]["first"] + features[-1]["width"]), np.float32)
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which read_table refuses
        for feature in _all_but_plain(given, features, inputs):
            _APPLY[feature["kind"]](
                given[feature["column"]], feature, inputs[:, feature["first"] : feature["first"] + feature["width"]]
            )
    return inputs


def _all_but_plain(
    given: Mapping[str, Any], features: list[FeatureDict], inputs: NDArray[np.float32]
) -> list[FeatureDict]:
    """Scale all whole columns of float64 in one go, as prepared tables have them; returns the features
    that are left.
    """
    plain = [
        feature
        for feature in features
        if feature["kind"] == "numeric"
        and feature["width"] == 1
        and given[feature["column"]].__class__ is pa.DoubleArray
        and not given[feature["column"]].null_count
    ]
    if not plain:
        return features
    columns = [numpy_values(given[feature["column"]])[0] for feature in plain]
    subtract, divide = (np.array([feature[key] for feature in plain]) for key in ("subtract", "divide"))
    firsts = np.array([feature["first"] for feature in plain])
    # Features side by side are copied together.
    ends = [0, *(np.flatnonzero(np.diff(firsts) != 1) + 1), len(firsts)]
    # As many rows at a time as stay in the processor's cache.
    step = max(256, TILE // len(plain))
    buffer = np.empty((len(plain), min(step, len(inputs))))
    for start in range(0, len(inputs), step):
        values = buffer[:, : len(inputs) - start]
        for row, column in zip(values, columns, strict=True):
            row[:] = column[start : start + step]
        if np.isnan(values.sum()):
            return features
        scaled = np.divide(np.subtract(values, subtract, out=values), divide, out=values).astype(np.float32)
        for begin, end in pairwise(ends):
            inputs[start : start + step, firsts[begin] : firsts[begin] + end - begin] = scaled[begin:end].T
    done = {feature["column"] for feature in plain}
    return [feature for feature in features if feature["column"] not in done]


def _fill(
    values: NDArray[np.float64], valid: NDArray[np.bool_] | None, feature: FeatureDict, out: NDArray[np.float32]
) -> None:
    """Numbers (rows, n) into the first n features; what is missing is filled in, and told by the indicator."""
    if valid is not None and not valid.all():
        if feature["fill"] is None:
            raise _is_empty(feature, valid)
        values = np.where(valid[:, None], values, np.asarray(feature["fill"]))
    out[:, : values.shape[1]] = normalize(values, feature["subtract"], feature["divide"])
    if feature["indicator"]:
        out[:, -1] = 0 if valid is None else ~valid


def _is_empty(feature: FeatureDict, valid: NDArray[np.bool_]) -> UserError:
    row = int(np.flatnonzero(~valid)[0])
    return UserError(f"column {feature['column']!r} is empty in row {row} (from 0); a value is needed in every row")


def _as_arrow(given: Any) -> pa.Array:
    return pa.array(given, from_pandas=True) if isinstance(given, np.ndarray) else given


def _numeric(given: Any, feature: FeatureDict, out: NDArray[np.float32]) -> None:
    values, valid = _numbers(given, feature["column"])
    _fill(values[:, None], valid, feature, out)


def _numbers(given: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Float64 values, and which of them are there."""
    valid = None
    if not isinstance(given, np.ndarray) or given.dtype == object:
        given = _as_arrow(given)
        if pa.types.is_null(given.type):
            return np.zeros(len(given)), np.zeros(len(given), np.bool_)
        if pa.types.is_dictionary(given.type):
            given = given.dictionary_decode()
        try:
            plain = pa.types.is_floating(given.type) or pa.types.is_boolean(given.type)
            given, valid = numpy_values(given if plain else given.cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"column {name!r} must hold numbers: {str(error).splitlines()[0]}") from None
    values = given.astype(np.float64, copy=False)
    nan = np.isnan(values)
    if nan.any():
        valid = ~nan if valid is None else valid & ~nan
    return values, valid


def _boolean(given: Any, feature: FeatureDict, out: NDArray[np.float32]) -> None:
    if not isinstance(given, np.ndarray) and pa.types.is_string(given.type):
        given = given.cast(pa.bool_())
    values, valid = _numbers(given, feature["column"])
    _fill((values != 0).astype(np.float64)[:, None], valid, feature, out)


def _category(given: Any, feature: FeatureDict, out: NDArray[np.float32]) -> None:
    given = _as_arrow(given)
    if not (pa.types.is_dictionary(given.type) and is_text(given.type.value_type)):
        given = texts_of_categories(given).dictionary_encode()
    known = [value for value in feature["values"] if value is not None]
    place = {value: number for number, value in enumerate(category_keys(text_array(known)).to_pylist(), 1)}
    of_dictionary = np.array(
        [*(place.get(text, 0) for text in category_keys(given.dictionary.cast(pa.string())).to_pylist()), 0]
    )
    codes, valid = numpy_values(given.indices)
    numbered = of_dictionary[codes]
    if valid is not None:
        if None not in feature["values"]:
            raise _is_empty(feature, valid)
        numbered = np.where(valid, numbered, len(feature["values"]))
    if feature["encode"] == "codes":
        out[:, 0] = numbered
    else:
        out[:] = 0
        out[np.arange(len(numbered)), numbered] = 1


def _date(given: Any, feature: FeatureDict, out: NDArray[np.float32]) -> None:
    given, problem = dates_of(_as_arrow(given), feature)
    if problem:
        raise UserError(
            f"column {feature['column']!r} can't be taken as date: in row {problem[0]} (from 0) {problem[1]}"
        )
    values, valid = date_parts(given, feature["parts"])
    _fill(values, valid, feature, out)


def dates_of(given: pa.Array, feature: FeatureDict) -> tuple[pa.Array, tuple[int, str] | None]:
    """Texts, dates, times or timestamps as the dates of a feature; and of the first that can't be its row and why."""
    if given.type == DATE and feature["parts"] == parts_of_type(DATE):
        return given, None
    return to_date_column(given, date_type(feature), feature.get("format"))


def date_type(feature: FeatureDict) -> pa.DataType:
    """The type in which the dates of a feature come. Days alone may come with a time, which is ignored."""
    return TIME if "year" not in feature["parts"] else INSTANT if feature.get("zone") else MOMENT


def _array(given: Any, feature: FeatureDict) -> NDArray[Any]:
    dtype = np.dtype(feature["dtype"])
    if isinstance(given, np.ndarray):
        rows = given.reshape(len(given), -1)
    elif pa.types.is_fixed_size_list(given.type):
        rows = numpy_values(given.flatten())[0].reshape(len(given), -1)
    else:
        rows = from_bytes(given, dtype)
    if dtype.kind != "f":
        return rows.astype(dtype, copy=False)
    if feature["subtract"] is None:
        return rows.astype(np.float32, copy=False)
    return normalize(rows.astype(np.float64), feature["subtract"], feature["divide"])


def from_bytes(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rows of a fixed size in bytes, as prepared tables have arrays, as numbers (rows, values)."""
    size = array.type.byte_width
    return (
        np.frombuffer(array.buffers()[1], np.uint8)[array.offset * size : (array.offset + len(array)) * size]
        .view(dtype)
        .reshape(len(array), -1)
    )


_APPLY: dict[str, Callable[[Any, FeatureDict, NDArray[np.float32]], None]] = {
    "numeric": _numeric,
    "boolean": _boolean,
    "category": _category,
    "date": _date,
}
