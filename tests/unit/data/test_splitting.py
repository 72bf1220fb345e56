from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data.splitmix64 import key_of
from surefoot.data.splits import SPLITS
from surefoot.data.splitting.by_class import ByClass, split_places
from surefoot.data.splitting.by_group import split_groups
from surefoot.data.text_hashes import hash_texts

LABELS = st.text(max_size=5)
SEEDS = st.integers(0, 2**63 - 1)
SHARES = (
    st.tuples(st.integers(1, 98), st.integers(1, 98))
    .filter(lambda both: sum(both) < 100)
    .map(lambda both: (both[0] / 100, both[1] / 100))
)


def split(label, rows, seed, validation=0.15, test=0.15):
    return ByClass(seed, validation, test).split(np.zeros(rows, np.int32), [label])


def split_at(label, places, seed, validation, test):
    keys = (np.uint64(key_of(f"{seed}/{label}/{what}")) for what in ("test", "validation"))
    return split_places(np.array(places, np.int64), *keys, validation, test)


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
    assert all(
        abs(count - (number - tested) * rest) < 1
        for count, number, tested in zip(validations.tolist(), first.tolist(), tests.tolist(), strict=True)
    )


@given(LABELS, st.integers(0, 500), st.integers(0, 500), SEEDS, SHARES)
def test_appended_rows_never_move_an_old_one(label, rows, more, seed, shares):
    assert (split(label, rows + more, seed, *shares)[:rows] == split(label, rows, seed, *shares)).all()


@given(LABELS, st.lists(st.integers(0, 2**40), unique=True, max_size=50), SEEDS, SHARES)
def test_a_place_depends_on_no_other(label, places, seed, shares):
    together = split_at(label, places, seed, *shares)
    alone = [split_at(label, [place], seed, *shares)[0] for place in places]
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


@given(st.lists(st.sampled_from([*"abcde"]), max_size=300), st.lists(st.integers(0, 300), max_size=5), SEEDS, SHARES)
def test_rows_of_many_classes_are_split_as_each_class_is(labels, cuts, seed, shares):
    names, places, found = [], ByClass(seed, *shares), []
    bounds = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    for start, stop in pairwise(bounds):
        names += [label for label in dict.fromkeys(labels[start:stop]) if label not in names]
        found += places.split(np.array([names.index(label) for label in labels[start:stop]], np.int32), names).tolist()
    for label in set(labels):
        ours = [number for number, other in zip(found, labels, strict=True) if other == label]
        assert ours == split(label, len(ours), seed, *shares).tolist()


def test_a_split_with_a_source_of_its_own_takes_no_rows():
    assert set(split("a", 1000, 0, validation=0.0).tolist()) == {0, 2}
    assert set(split("a", 1000, 0, test=0.0).tolist()) == {0, 1}
    assert set(split("a", 1000, 0, validation=0.0, test=0.0).tolist()) == {0}


def test_long_fractions_do_not_overflow():
    splits = split_at("a", np.arange(10**9, 10**9 + 3000), 0, 0.3333333333333333, 0.3333333333333333)
    assert np.bincount(splits).tolist() == pytest.approx([1000] * 3, abs=2)


def hashes(texts):
    data = [text.encode() for text in texts]
    return hash_texts(np.cumsum([0, *map(len, data)]).astype(np.int32), np.frombuffer(b"".join(data), np.uint8))


@given(st.lists(st.text(max_size=8), unique=True, min_size=1), st.integers(0, 10))
def test_texts_have_hashes_of_their_own(texts, start):
    found = hashes(texts)
    assert len(set(found.tolist())) == len(texts)
    assert (hashes(texts[start:]) == found[start:]).all(), "whatever stands before them"


@given(SEEDS, SHARES)
def test_groups_have_their_fractions_about(seed, shares):
    groups = hashes([str(number) for number in range(2000)])
    validation, test = shares
    counts = np.bincount(split_groups(groups, seed, validation, test), minlength=3) / 2000
    assert counts.tolist() == pytest.approx([1 - validation - test, validation, test], abs=0.06)


def test_groups_are_split_the_same_as_ever():
    names = "".join(
        ".vt"[number] for number in split_groups(hashes([str(number) for number in range(40)]), 0, 0.15, 0.15).tolist()
    )
    assert names == "t.ttv.v..t......v......t.....v..t...t..."
