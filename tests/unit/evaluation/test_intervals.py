from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from surefoot.evaluation import intervals
from surefoot.evaluation.metrics import measure_metrics
from tests.unit.evaluation.test_metrics import binary, classified, numbers

RANDOM = np.random.default_rng(0)


def a_classifier(rows=300, classes=4):
    actual = RANDOM.integers(classes, size=rows)
    predicted = np.where(RANDOM.random(rows) < 0.8, actual, RANDOM.integers(classes, size=rows))
    return classified(classes, actual, predicted)


def a_binary(rows=300):
    actual = RANDOM.integers(2, size=rows)
    return binary(np.round(RANDOM.normal(size=rows) + actual, 1), actual)  # rounded: there are ties


def a_regression(rows=300):
    actual = RANDOM.normal(size=rows)
    return numbers(actual + RANDOM.normal(size=rows), actual)


def test_wilson():
    # Brown, Cai and DasGupta 2001, and by hand.
    assert intervals.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert intervals.wilson(0, 10) == (0.0, pytest.approx(0.2775328, abs=1e-6))
    assert intervals.wilson(10, 10)[1] == 1.0
    assert intervals.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("make", [a_classifier, a_binary, a_regression])
def test_an_interval_holds_its_figure_and_comes_again(make):
    tested = make()
    found, figures = intervals.metric_intervals(tested, seed=1), measure_metrics(tested)
    assert found == intervals.metric_intervals(tested, seed=1) != intervals.metric_intervals(tested, seed=2)
    assert found.keys() == figures.keys() - {"ece"}
    for name, (low, high) in found.items():
        assert low < figures[name] < high, name


def macro(score):
    return lambda tested, rows: score(tested.actual[rows], tested.predicted[rows], average="macro", zero_division=0.0)


@pytest.mark.parametrize(
    ("make", "name", "by_scikit_learn"),
    [
        (a_classifier, "precision_macro", macro(precision_score)),
        (a_classifier, "recall_macro", macro(recall_score)),
        (a_classifier, "f1_macro", macro(f1_score)),
        (a_binary, "f1", lambda tested, rows: f1_score(tested.actual[rows], tested.predicted[rows])),
        (a_binary, "roc_auc", lambda tested, rows: roc_auc_score(tested.actual[rows], tested.scores[rows, 0])),
        (
            a_binary,
            "average_precision",
            lambda tested, rows: average_precision_score(tested.actual[rows], tested.scores[rows, 0]),
        ),
    ],
)
def test_statistics_of_resamples_are_scikit_learns(make, name, by_scikit_learn):
    tested = make(80)
    statistics, _ = intervals.OF_TASK[tested.task](tested)
    rows = RANDOM.integers(80, size=(20, 80))
    with np.errstate(invalid="ignore"):
        found = statistics[name](rows)
    assert found == pytest.approx([by_scikit_learn(tested, some) for some in rows])


def test_a_mean_has_the_interval_that_theory_gives():
    losses = RANDOM.exponential(size=400)
    low, high = intervals.metric_intervals(replace(a_classifier(400), losses=losses), seed=0)["loss"]
    half = intervals.Z * losses.std() / 20
    assert (low, high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=0.25 * half)


def test_of_many_rows_it_takes_a_sample(monkeypatch):
    tested = a_regression(4000)
    whole = intervals.metric_intervals(tested, seed=0)["mae"]
    monkeypatch.setattr(intervals, "ROWS", 500)
    monkeypatch.setattr(intervals, "CELLS", 500 * 64)
    sampled = intervals.metric_intervals(tested, seed=0)["mae"]
    assert sampled[1] - sampled[0] == pytest.approx(whole[1] - whole[0], rel=0.2)


def test_a_weighted_loss():
    tested = replace(a_classifier(50), losses=np.arange(50.0), weights=np.where(np.arange(50) < 25, 1.0, 3.0))
    low, high = intervals.metric_intervals(tested, seed=0)["loss"]
    assert low < np.average(tested.losses, weights=tested.weights) < high


def test_there_is_none_where_every_resample_is_the_same():
    """From nothing but hits the bootstrap would say that it is certain; Wilson's doesn't."""
    actual = np.arange(30) % 3
    found = intervals.metric_intervals(classified(3, actual, actual), seed=0)
    assert found.keys() == {"accuracy"} and found["accuracy"][0] < 0.9
