import pyarrow as pa
import pytest

from surefoot.data.number_notation import (
    Notation,
    nulls_for_missing,
    texts_to_numbers,
    unit_in,
    what_it_may_be,
    without_missing_numbers,
)
from surefoot.data.stray_texts import few_strays, mixture_of

ENGLISH = Notation(thousands=",")
GERMAN = Notation(decimal=",", thousands=".")


def number(text, notation, unit=None):
    values, bad = texts_to_numbers(pa.array([text]), notation, unit)
    return None if bad[0] else values[0].as_py()


@pytest.mark.parametrize(
    ("text", "notation", "value"),
    [
        *[
            (text, Notation(), value)
            for text, value in {
                "5": 5,
                "-5.5": -5.5,
                "+5": 5,
                ".5": 0.5,
                "5.": 5,
                "1e5": 1e5,
                "\u22125": -5,
                "1E-3": 0.001,
            }.items()
        ],
        *[
            (text, Notation(), None)
            for text in ("1,5", "1 000", "0x10", "1_000", "five", "5-", "1.2.3", "--5", "5 5", "1e", "٣")
        ],
        *[
            (text, ENGLISH, value)
            for text, value in {
                "1,234": 1234,
                "1,234,567.5": 1234567.5,
                "999": 999,
                "1234": 1234,
                "12,34,567": 1234567,
            }.items()
        ],
        *[(text, ENGLISH, None) for text in ("1,23", "1,2345", ",234", "1,,234", "1.234,5")],
        *[(text, GERMAN, value) for text, value in {"1.234,5": 1234.5, "0,5": 0.5, "1.234": 1234, "7": 7}.items()],
        *[(text, GERMAN, None) for text in ("1,234.5", "1.5", "1.23")],
        *[(text, Notation(thousands=" "), 1234) for text in ("1 234", "1\u00a0234", "1\u202f234")],
        ("1'234.5", Notation(thousands="'"), 1234.5),
        ("1.5", Notation(decimal=","), None),
    ],
)
def test_numbers_as_people_write_them(text, notation, value):
    assert number(text, notation) == value


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        *[
            ("$1,234.00", "$", 1234),
            ("-$5", "$", -5),
            ("$-5", "$", -5),
            ("5 €", "€", 5),
            ("€5", "€", 5),
            ("5.2%", "%", 5.2),
            ("5.2 %", "%", 5.2),
        ],
        *[
            ("USD 5", "USD", 5),
            ("5 EUR", "EUR", 5),
            ("£5", "£", 5),
            ("US$5", "US$", 5),
            ("R$ 5", "R$", 5),
            ("kr 5", "kr", 5),
            ("5‰", "‰", 5),
        ],
    ],
)
def test_currency_and_percent(text, unit, value):
    assert unit_in(pa.array([text])) == unit
    assert number(text, ENGLISH, unit) == value
    assert number(text, ENGLISH) is None, "beside others without a unit it could be anything"
    assert number("7", ENGLISH, unit) is None
    assert unit_in(pa.array(["ABC", "US dollars", "5", None])) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,234", 'it is 1,234 with prepare.csv.thousands: ",", or 1.234 with prepare.csv.decimal: ","'),
        ("1.234,5", 'it is 1,234.5 with prepare.csv.decimal: ",", prepare.csv.thousands: "."'),
        ("$1,234.00", 'it is 1,234 with prepare.csv.thousands: ","'),
        ("0,5", 'it is 0.5 with prepare.csv.decimal: ","'),
        ("1'234", 'it is 1,234 with prepare.csv.thousands: "\'"'),
        ("5.2%", "it is a number with '%', which others don't have"),
        ("?", ""),
        ("n.a.", ""),
    ],
)
def test_what_a_text_among_numbers_may_be(text, told):
    assert what_it_may_be(text, Notation()) == told


def test_missing_values():
    given = pa.array(["", " ", "?", " ? ", "None", "#N/A", "<NA>", "NaN", "null", "none", "-", " x ", None])
    assert nulls_for_missing(given, Notation()).to_pylist() == [None] * 9 + ["none", "-", "x", None]
    assert nulls_for_missing(given, Notation(missing=("-",))).to_pylist()[10:] == [None, "x", None]
    codes = Notation(missing=("-999", "NA"))
    assert without_missing_numbers(pa.array([1.0, -999.0, None]), codes).to_pylist() == [1.0, None, None]
    assert without_missing_numbers(pa.array([1, -999]), codes).to_pylist() == [1, None]


def test_a_column_of_numbers_but_for_a_few_texts():
    assert few_strays(90, 10, 2, 1)
    assert few_strays(60, 40, 50, 1), "one text, however often, among many numbers"
    assert not few_strays(75, 25, 3, 1), "2, 3, 4 and 5more are categories"
    assert not few_strays(40, 60, 40, 1)
    assert not few_strays(100, 0, 50, 0)
    found = mixture_of(pa.array(["$5", "$6", None, "x"]), Notation())
    assert (found.unit, found.numbers.tolist(), found.strays, found.different) == (
        "$",
        [True, True, False, False],
        {"x": 1},
        2,
    )
