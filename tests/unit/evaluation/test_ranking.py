"""Curves of ranked rows are scikit-learn's, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from surefoot.evaluation import ranking

ROWS = st.integers(2, 80)
# Few values, so that many rows share one; and any at all.
SCORES = st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, 3.0]) | st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def ranked(draw):
    rows = draw(ROWS)
    actual = draw(arrays(np.bool_, rows))
    actual[draw(st.integers(0, rows - 1))] ^= actual.all() | ~actual.any()  # of both classes
    return actual, draw(arrays(np.float64, rows, elements=SCORES))


def assert_same(ours, *theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert np.asarray(one, np.float64).tobytes() == np.asarray(other, np.float64).tobytes()


def assert_as_sklearn(actual, scores):
    false, true, _ = roc_curve(actual, scores)
    assert_same(ranking.roc_curve(actual, scores), false, true, roc_auc_score(actual, scores))
    precision, recall, _ = precision_recall_curve(actual, scores, drop_intermediate=True)
    assert_same(
        ranking.precision_recall_curve(actual, scores), recall, precision, average_precision_score(actual, scores)
    )


@given(ranked())
def test_few_rows(case):
    assert_as_sklearn(*case)


def test_many_rows():
    for seed in range(5):
        draw = np.random.default_rng(seed)
        actual = draw.random(20_000) < 0.1
        scores = draw.normal(size=20_000) + actual
        assert_as_sklearn(actual, scores)
        assert_as_sklearn(actual, scores.round(1))


def test_all_of_one_class_first():
    assert_as_sklearn(np.arange(100) > 60, np.arange(100.0))
    assert_as_sklearn(np.arange(100) < 60, np.arange(100.0))
    assert_as_sklearn(np.arange(100) < 60, np.zeros(100))
