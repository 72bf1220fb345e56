"""What texts mean: which stand for a missing value, and which are numbers, as people write them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import arrow_mask, null_where, numpy_values, text_array
from surefoot.params.prepare_section import MISSING_VALUES, PrepareParams

# A sign of a currency, its code, or per cent; in front of the number or after it.
CODES = (
    "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|NOK|NZD|PLN|RON|RUB|SEK|SGD|THB|TRY|USD|ZAR"
)
UNIT = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|[%\x{{2030}}]|Rs\.?|kr\.?|zł|Kč|Ft|{CODES})"
SIGN = r"[+\-\x{2212}]?"
# As numbers are written elsewhere: what stands before the decimals, and between the thousands.
OTHERS = ((".", ","), (",", None), (",", "."), (".", "'"), (".", " "), (",", " "), (".", "_"))


@dataclass(frozen=True)
class Notation:
    """How values are written: which texts stand for a missing one (beside empty and blank texts), and the signs in
    numbers.
    """

    missing: tuple[str, ...] = MISSING_VALUES
    decimal: str = "."
    thousands: str | None = None

    @cached_property
    def missing_numbers(self) -> NDArray[np.float64]:
        """The numbers that stand for a missing value, -999 say; a text such as NaN is none."""
        found = [number for text in self.missing if (number := number_in(text)) is not None and np.isfinite(number)]
        return np.array(found, np.float64)


USUAL = Notation()
"""As params.yaml has it where nothing else is said."""
NOTHING = Notation(missing=())
"""By which only empty texts stand for a missing value."""


def told_notation(prepare: PrepareParams) -> Notation:
    """The notation that params.yaml tells."""
    return Notation(prepare.missing.values, prepare.csv.decimal, prepare.csv.thousands)


def number_in(text: str) -> float | None:
    """The number that a text is, NaN included; None: it is none."""
    try:
        # Python reads more as a number than people do: 1_000, and digits of any script.
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    return number_in(text) is not None


def trimmed(array: pa.Array) -> pa.Array:
    """Texts as strings, whatever Arrow calls them, without blanks around them."""
    return pc.utf8_trim_whitespace(array if pa.types.is_string(array.type) else array.cast(pa.string()))


def missing_in(texts: pa.Array, notation: Notation) -> pa.Array:
    """Which of plain texts are there, but stand for a missing value (a null: false)."""
    return pc.is_in(texts, value_set=text_array(["", *notation.missing]))


def nulls_for_missing(array: pa.Array, notation: Notation) -> pa.Array:
    """Texts, plain, with nulls for those that stand for a missing value."""
    texts = trimmed(array)
    gone = missing_in(texts, notation)
    return null_where(gone, texts) if gone.true_count else texts


def text_counts(texts: pa.Array) -> dict[str, int]:
    """How often each text is there."""
    return {str(entry["values"]): int(entry["counts"]) for entry in pc.value_counts(texts).to_pylist()}


def texts_to_numbers(
    texts: pa.Array, notation: Notation, unit: str | None = None
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Plain texts, nulls among them, as float64; and which of them are no numbers of this notation and unit, for which
    there are nulls.
    """
    bare = texts if unit is None else _without_unit(texts, unit)
    fits = pc.match_substring_regex(bare, number_pattern(notation))
    if unit is not None:  # the same for all: 5 beside $5 could be anything
        fits = pc.and_(fits, pc.match_substring_regex(texts, _with_unit(unit)))
    good, there = numpy_values(fits)
    good = good.astype(np.bool_) if there is None else good.astype(np.bool_) & there
    bad = ~good if there is None else ~good & there
    bare = null_where(arrow_mask(~good), bare)
    if notation.thousands:
        bare = pc.replace_substring_regex(bare, _separators(notation.thousands), "")
    if notation.decimal != ".":
        bare = pc.replace_substring(bare, notation.decimal, ".")
    bare = pc.replace_substring(bare, "\u2212", "-")
    return bare.cast(pa.float64()), bad


def _separators(thousands: str) -> str:
    return {" ": r"[ \x{a0}\x{202f}]", "'": r"['\x{2019}]"}.get(thousands) or re.escape(thousands)


def number_pattern(notation: Notation) -> str:
    """A regular expression that fits plain texts which are numbers of this notation."""
    point = re.escape(notation.decimal)
    grouped = (
        rf"\d{{1,3}}(?:{_separators(notation.thousands)}\d{{2,3}})*{_separators(notation.thousands)}\d{{3}}|"
        if notation.thousands
        else ""
    )
    return rf"(?i)^{SIGN}(?:(?:{grouped}\d+)(?:{point}\d*)?|{point}\d+)(?:e[+\-]?\d+)?$|^{SIGN}(?:inf|infinity|nan)$"


def _with_unit(unit: str) -> str:
    sign = re.escape(unit)
    return rf"^{SIGN}\s*{sign}|{sign}$"


def _without_unit(texts: pa.Array, unit: str) -> pa.Array:
    sign = re.escape(unit)
    return pc.replace_substring_regex(
        pc.replace_substring_regex(texts, rf"^({SIGN})\s*{sign}\s*", r"\1"), rf"\s*{sign}$", ""
    )


def unit_in(texts: pa.Array, any_text: bool = False) -> str | None:
    """The sign of a currency, its code, or per cent, that most of the texts have which have one; None: none has.

    `any_text`: also kg, say.
    """
    present = texts.drop_null()
    with_digits = present.filter(pc.match_substring_regex(present, r"\d"))
    found = pc.extract_regex(with_digits, rf"^{SIGN}\s*(?P<front>{UNIT})?[^\p{{Sc}}%]*?(?P<back>{UNIT})?$")
    if any_text and not any(
        texts_with.drop_null().unique().to_pylist() != [""]
        for texts_with in (found.field(0), found.field(1))
        if len(found)
    ):
        found = pc.extract_regex(
            with_digits,
            rf"^{SIGN}\s*(?P<front>[^\d\s+.-][^\d.]*?\.?)?\s*{SIGN}[\d.,' ]*\d\.?\s*(?P<back>[^\d\s.,]\D*)?$",
        )
    signs = [text_counts(found.field(side)) for side in (0, 1)] if len(found) else []
    both = {sign: number for side in signs for sign, number in side.items() if sign}
    return max(both, key=lambda sign: both[sign]) if both else None


def other_notations(notation: Notation) -> Iterator[Notation]:
    """The other ways in which numbers are written."""
    yield from (
        replace(notation, decimal=decimal, thousands=thousands)
        for decimal, thousands in OTHERS
        if (decimal, thousands) != _signs(notation)
    )


def _signs(notation: Notation) -> tuple[str, str | None]:
    return notation.decimal, notation.thousands


def notation_keys(other: Notation, notation: Notation) -> str:
    """What to set in prepare.csv for another notation than this one."""
    names = [name for name in ("decimal", "thousands") if getattr(other, name) != getattr(notation, name)]
    return ", ".join(f"prepare.csv.{name}: {_yaml(getattr(other, name))}" for name in names)


def _yaml(sign: str | None) -> str:
    return "null" if sign is None else f'"{sign}"'


def what_it_may_be(text: str, notation: Notation, unit: str | None = None) -> str:
    """How a text that is no number could be one, and by which key of params.yaml; empty if it couldn't."""
    texts = text_array([text.strip()])
    given = unit_in(texts)
    if not texts_to_numbers(texts, notation, given)[1][0]:
        if given == unit:
            return ""
        return (
            f"it is a number with {given!r}, which others don't have"
            if given
            else f"it is a number without {unit!r}, which others have"
        )
    if bracketed := re.fullmatch(r"\((.+)\)|(.+)-", text.strip()):
        inner = text_array([bracketed[1] or bracketed[2]])
        if not texts_to_numbers(inner, notation, unit_in(inner))[1][0]:
            return f"it is a number below 0, to be written as -{inner[0]}"
    meant: dict[float, Notation] = {}
    for other in other_notations(notation):
        values, bad = texts_to_numbers(texts, other, given)
        if not bad[0]:
            meant.setdefault(values[0].as_py(), other)
    return (
        "it is "
        + ", or ".join(
            f"{value:,.10g} with {notation_keys(other, notation)}" for value, other in list(meant.items())[:2]
        )
        if meant
        else ""
    )


def not_a_number(text: str, notation: Notation, unit: str | None = None) -> str:
    """What to do about a text that stands where a number should be."""
    may_be = what_it_may_be(text, notation, unit)
    return f"{text!r} is not a number" + (
        f", but {may_be}" if may_be else "; where it stands for a missing value, name it in prepare.missing.values"
    )


def without_missing_numbers(array: pa.Array, notation: Notation) -> pa.Array:
    """Numbers, with nulls for those that stand for a missing value."""
    codes = notation.missing_numbers
    if not len(codes) or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return array
    values, valid = numpy_values(array)
    gone = np.isin(values, codes) if valid is None else np.isin(values, codes) & valid
    return null_where(arrow_mask(gone), array) if gone.any() else array
