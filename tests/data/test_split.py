from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data.split import SPLITS, split_rows

LABELS = st.text(max_size=5)
SEEDS = st.integers(0, 2**63 - 1)
SHARES = st.tuples(st.integers(1, 98), st.integers(1, 98)).filter(lambda both: sum(both) < 100).map(lambda both: (both[0] / 100, both[1] / 100))


def split(label, rows, seed, validation=0.15, test=0.15):
    return split_rows(label, np.arange(rows), seed, validation, test)


@given(LABELS, st.integers(0, 2000), SEEDS, SHARES)
def test_each_split_has_its_fraction_of_any_first_rows(label, rows, seed, shares):
    validation, test = shares
    splits = split(label, rows, seed, validation, test)
    first = np.arange(1, rows + 1)
    tests, validations = (np.cumsum(splits == SPLITS.index(name)) for name in ("test", "validation"))
    share = Fraction(str(test))
    # Exactly: within one row of its share, however many rows there are.
    assert all(abs(count - number * share) < 1 for count, number in zip(tests.tolist(), first.tolist(), strict=True))
    # The validation rows are picked from what the test rows leave, itself within one row of its share.
    rest = Fraction(str(validation)) / (1 - share)
    assert all(abs(count - (number - tested) * rest) < 1 for count, number, tested in zip(validations.tolist(), first.tolist(), tests.tolist(), strict=True))


@given(LABELS, st.integers(0, 500), st.integers(0, 500), SEEDS, SHARES)
def test_appended_rows_never_move_an_old_one(label, rows, more, seed, shares):
    assert (split(label, rows + more, seed, *shares)[:rows] == split(label, rows, seed, *shares)).all()


@given(LABELS, st.lists(st.integers(0, 2**40), unique=True, max_size=50), SEEDS, SHARES)
def test_a_place_depends_on_no_other(label, places, seed, shares):
    together = split_rows(label, np.array(places, dtype=np.int64), seed, *shares)
    alone = [split_rows(label, np.array([place], dtype=np.int64), seed, *shares)[0] for place in places]
    assert together.tolist() == alone


def test_seeds_and_labels_differ():
    base = split("a", 500, 0)
    assert (split("a", 500, 0) == base).all()
    assert (split("a", 500, 1) != base).any()
    assert (split("b", 500, 0) != base).any()


def test_every_place_of_a_window_is_picked_for_some_seed():
    picked = {int(np.flatnonzero(split("a", 10, seed, test=0.1) == SPLITS.index("test"))[0]) for seed in range(300)}
    assert picked == set(range(10))


def test_a_split_is_the_same_as_ever():
    # Another answer here moves rows of everyone's test sets.
    names = "".join(".vt"[number] for number in split("7", 60, 0).tolist())
    assert names == "..vt....t.v...v....tv.t....v.....t..t..v...v..t.t...v...vt.."
