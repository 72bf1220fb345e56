"""Categories and classes as texts, of which each has one spelling; and their numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import arrow_mask, is_text, numpy_values, whole_texts
from surefoot.data.number_notation import number_in


def texts_of_categories(array: pa.Array) -> pa.Array:
    """Categories of any type as texts: numbers as a file would have them, 2007 also where pandas made 2007.0 of it."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if (
        is_text(array.type)
        or pa.types.is_boolean(array.type)
        or pa.types.is_temporal(array.type)
        or pa.types.is_null(array.type)
    ):
        return array.cast(pa.string())
    return whole_texts(array)


def without_point_zero(texts: pa.Array) -> pa.Array:
    """Whole numbers without the .0 that they have where a value was missing beside them; other texts as they are."""
    return pc.replace_substring_regex(pc.replace_substring_regex(texts, r"^([+-]?[0-9]+)\.0*$", r"\1"), "^-0$", "0")


def category_keys(texts: pa.Array) -> pa.Array:
    """What two spellings of one category or class have in common: 1 and 1.0 are one, so are true, True and TRUE."""
    return pc.replace_substring_regex(
        pc.replace_substring_regex(without_point_zero(texts), "^T(rue|RUE)$", "true"), "^F(alse|ALSE)$", "false"
    )


class Vocabulary:
    """The different texts of a column in order of appearance, and so a number for each.

    One text, whatever its spelling: that of the first.
    """

    def __init__(self) -> None:
        self.values: pa.Array = pa.nulls(0, pa.string())
        self._keys: pa.Array = self.values
        self.firsts: list[int] = []
        """The row of each text, where it came first."""

    def encode(self, texts: pa.Array, row: int = 0) -> NDArray[np.int32]:
        """The number of each text (of strings, or a dictionary of them), new ones included; -1 for a null.

        `row` is that of the first text.
        """
        coded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
        if not len(coded.dictionary):
            return np.full(len(texts), -1, np.int32)
        codes, valid = numpy_values(coded.indices)
        of_coded = category_keys(coded.dictionary)
        known = pc.index_in(of_coded, value_set=self._keys)
        unknown = arrow_mask(
            numpy_values(known.is_null())[0].astype(np.bool_) & numpy_values(of_coded.is_valid())[0].astype(np.bool_)
        )
        if unknown.true_count:
            new, new_texts = of_coded.filter(unknown).dictionary_encode(), coded.dictionary.filter(unknown)
            first = np.unique(numpy_values(new.indices)[0], return_index=True)[1]
            first_texts = new_texts.take(pa.Array.from_buffers(pa.int64(), len(first), [None, pa.py_buffer(first)]))
            self.values = pa.concat_arrays([self.values, without_point_zero(first_texts)])
            self._keys = pa.concat_arrays([self._keys, new.dictionary])
            known = pc.index_in(of_coded, value_set=self._keys)
        number, there = numpy_values(known)
        found: NDArray[np.int32] = (number if there is None else np.where(there, number, np.int32(-1))).astype(
            np.int32
        )[codes]
        found = found if valid is None else np.where(valid, found, np.int32(-1))
        if len(self.firsts) < len(self.values):
            came, at = np.unique(found, return_index=True)
            places = dict(zip(came.tolist(), at.tolist(), strict=True))
            self.firsts += [row + places.get(number, 0) for number in range(len(self.firsts), len(self.values))]
        return found

    def labels(self) -> list[str]:
        """The texts."""
        labels: list[str] = self.values.to_pylist()
        return labels

    def __len__(self) -> int:
        return len(self.values)


def natural_order(label: str) -> tuple[bool, float, str]:
    """A key to sort labels by: numbers come by value, and before texts."""
    number = number_in(label)
    return (True, 0.0, label) if number is None or number != number else (False, number, label)
