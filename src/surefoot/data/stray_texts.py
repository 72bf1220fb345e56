"""What a column of texts holds: numbers, or numbers but for a few texts that stray among them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import arrow_mask, numpy_values
from surefoot.data.number_notation import SIGN, UNIT, Notation, number_pattern, text_counts, texts_to_numbers, unit_in
from surefoot.data.vocabulary import natural_order


@dataclass(frozen=True)
class Mixture:
    """Texts, some of which are numbers in a notation."""

    notation: Notation
    unit: str | None
    numbers: NDArray[np.bool_]
    strays: dict[str, int]
    """The texts that are none, and how often they are there."""
    different: int
    """How many different texts are numbers."""
    mixed: bool = False
    """Whether those that are none are numbers, too, but with another unit, or without one."""
    below_zero: bool = False
    """Whether those that are none are written as bookkeepers write what is below 0: (5) or 5-."""

    @property
    def is_numbers(self) -> bool:
        """Whether all are, and there are some."""
        return bool(self.numbers.any()) and not self.strays

    @property
    def is_numbers_but_for_a_few(self) -> bool:
        """Whether they are numbers but for a few texts: in a tenth of the rows, or few different ones among many
        different numbers.
        """
        return (
            self.mixed
            or self.below_zero
            or few_strays(int(self.numbers.sum()), sum(self.strays.values()), self.different, len(self.strays))
        )


def few_strays(number_rows: int, text_rows: int, numbers: int, texts: int) -> bool:
    """Whether a column is one of numbers but for a few texts, by the rows of both kinds, and how many different ones
    there are of each.
    """
    return texts > 0 and (
        10 * text_rows <= number_rows + text_rows or (text_rows <= number_rows and 4 * texts <= numbers)
    )


def stray_texts(counts: Mapping[str, int]) -> list[str]:
    """The texts that are no numbers, with the rows that each is in, where there are only a few of them among numbers: a
    column of numbers with a slip in it comes as texts.
    """
    texts = [text for text in counts if natural_order(text)[0]]
    rows = sum(counts[text] for text in texts)
    few = few_strays(sum(counts.values()) - rows, rows, len(counts) - len(texts), len(texts))
    return texts if few else []


def mixture_of(texts: pa.Array, notation: Notation, any_unit: bool = False) -> Mixture:
    """Plain texts, nulls among them: which are numbers, all with one unit, or with none.

    `any_unit`: it may be any text, such as kg.
    """
    found = [_mixture(texts, notation, unit) for unit in dict.fromkeys((unit_in(texts, any_unit), None))]
    best = max(found, key=lambda one: int(one.numbers.sum()))
    if not best.strays or not best.numbers.any():
        return best
    bare = pc.replace_substring_regex(
        pc.replace_substring_regex(texts, rf"^({SIGN})\s*{UNIT}\s*", r"\1"), rf"\s*{UNIT}$", ""
    )
    mixed = pc.all(pc.match_substring_regex(bare, number_pattern(notation))).as_py()
    return replace(best, mixed=mixed, below_zero=all(re.fullmatch(r"\(.*\d.*\)|.*\d-", text) for text in best.strays))


def _mixture(texts: pa.Array, notation: Notation, unit: str | None) -> Mixture:
    values, bad = texts_to_numbers(texts, notation, unit)
    is_number = ~numpy_values(values.is_null())[0].astype(np.bool_)
    return Mixture(
        notation,
        unit,
        is_number,
        text_counts(texts.filter(arrow_mask(bad))),
        len(texts.filter(arrow_mask(is_number)).unique()),
    )


def mixture_by_any(texts: pa.Array, notations: Iterable[Notation]) -> Mixture | None:
    """The first notation by which texts are numbers; or else are but for a few texts."""
    found = [mixture_of(texts, notation) for notation in notations]
    return next((one for one in found if one.is_numbers), None) or next(
        (one for one in found if one.is_numbers_but_for_a_few), None
    )
