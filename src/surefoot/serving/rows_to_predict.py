"""Raw rows to predict: brought to what the preparation takes, and refused where prepare would refuse them."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.base.errors import UserError
from surefoot.data.arrow_numpy import text_array
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column
from surefoot.data.features import date_type, dates_of
from surefoot.data.number_notation import USUAL, Notation, nulls_for_missing
from surefoot.data.vocabulary import category_keys, natural_order, texts_of_categories
from surefoot.params.prepare_section import MissingParams, PrepareParams

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def cleaner_of(features: list[dict[str, Any]], notation: Notation) -> Cleaner:
    """The cleaner that refuses what prepare refuses, such as an infinite number or a boolean 7. Categories, of which
    any is taken, and arrays aren't among its columns.
    """
    import pyarrow as pa

    types: dict[str, Callable[[dict[str, Any]], pa.DataType]] = {
        "numeric": lambda _: pa.float64(),
        "boolean": lambda _: pa.bool_(),
        "date": date_type,
    }
    columns = [
        Column(feature["column"], feature["kind"], types[feature["kind"]](feature), unit=feature.get("unit"))
        for feature in features
        if feature["kind"] in types
    ]
    return Cleaner(columns, params_to_predict(features, notation, PrepareParams(source="-", target="-")))


def params_to_predict(features: list[dict[str, Any]], notation: Notation, prepare: PrepareParams) -> PrepareParams:
    """The params that rows to predict are cleaned by: there is no target, and a missing value is filled in if the
    preparation has something for it, else it is an error.
    """
    filled = {feature["kind"] for feature in features if feature.get("fill") is not None}
    missing = MissingParams().model_copy(update=dict.fromkeys(filled, "constant") | {"values": notation.missing})
    csv = prepare.csv.model_copy(update={"decimal": notation.decimal, "thousands": notation.thousands})
    return prepare.model_copy(update={"target": "", "missing": missing, "csv": csv})


def check_finite(inputs: np.ndarray, features: list[dict[str, Any]], named: Callable[[int], str]) -> np.ndarray:
    """Prepared rows, (rows, width), in which every number is one.

    Raises:
        UserError: naming the row and the column of one that isn't.
    """
    if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
        row, place = (int(at) for at in np.argwhere(~np.isfinite(inputs))[0])
        name = next(
            feature["column"] for feature in features if feature["first"] <= place < feature["first"] + feature["width"]
        )
        why = (
            "NaN; a number is needed everywhere"
            if np.isnan(inputs[row, place])
            else "scaled, the value is more than float32 can hold"
        )
        raise UserError(f"{named(row)}, column {name!r}: {why}")
    return inputs


def may_be_missing(feature: dict[str, Any]) -> bool:
    """Whether the preparation has something for a missing value of this feature."""
    return feature["fill"] is not None or None in feature.get("values", [])


def as_arrow(column: "pd.Series", feature: dict[str, Any], notation: Notation = USUAL) -> "pa.Array":
    """A column as pandas reads it, turned into what the preparation takes: dates may be texts, categories numbers, and
    what is missing NaN, None or a text for it.

    Raises:
        UserError: it holds what it can't.
    """
    import pyarrow as pa

    try:
        # Of times with a zone pandas gives Arrow no values any more.
        zoned = getattr(getattr(column, "dtype", None), "tz", None) is not None
        array = pa.array(column.dt.tz_convert(None) if zoned else column, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        array = array.cast(pa.timestamp(array.type.unit, "UTC")) if zoned else array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        if pa.types.is_string(array.type):
            array = nulls_for_missing(array, notation)
        return _AS_ARROW[feature["kind"]](array, feature)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(
            f"column {feature['column']!r} can't be taken as {feature['kind']}: {str(error).splitlines()[0]}"
        ) from None


def _as_numeric(array: "pa.Array", _: dict[str, Any]) -> "pa.Array":
    import pyarrow as pa

    return array.cast(pa.float64(), safe=False) if pa.types.is_integer(array.type) else array


def _as_category(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    """Texts; of numbers those that a file would have.

    Refused where the texts seen in training are others: 01234 is no number's.
    """
    import pyarrow as pa

    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        # What pandas would have read as these numbers; the texts that they give must be the same.
        known = [value for value in feature["values"] if value is not None and not natural_order(value)[0]]
        spellings = category_keys(text_array(known)).to_pylist()
        as_numbers = texts_of_categories(
            pa.array([natural_order(value)[1] for value in known], pa.float64())
        ).to_pylist()
        if pa.types.is_integer(array.type):  # exact, also where a float isn't
            as_numbers = [
                str(int(text)) if re.fullmatch(r"-?[0-9]+", text) else other
                for text, other in zip(spellings, as_numbers, strict=True)
            ]
        other = next(
            (value for value, text, of_number in zip(known, spellings, as_numbers, strict=True) if text != of_number),
            None,
        )
        if other is not None:
            raise UserError(
                f"column {feature['column']!r} holds values of type {array.type}, but its categories are texts, such as"
                f" {other!r}: read it as text (dtype={{{feature['column']!r}: str}})"
            )
    return texts_of_categories(array)


def _as_date(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    dates, problem = dates_of(array, feature)
    if problem:
        raise UserError(
            f"column {feature['column']!r} can't be taken as date: in row {problem[0]} (from 0) {problem[1]}"
        )
    return dates


_AS_ARROW: dict[str, Callable[["pa.Array", dict[str, Any]], "pa.Array"]] = {
    "numeric": _as_numeric,
    "boolean": lambda array, _: array,
    "category": _as_category,
    "date": _as_date,
}
