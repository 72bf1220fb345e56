import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from surefoot.evaluation.metrics import Scored, calibration_error, confusion_matrix, measure_metrics, per_class

PAIRS = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes), st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40)
    )
)


def classified(classes, actual, predicted, task="classification"):
    probabilities = np.eye(classes)[predicted] * 0.8 + 0.2 / classes
    return Scored(
        task, [f"class {number}" for number in range(classes)], actual, predicted, np.log(probabilities), probabilities
    )


def binary(scores, actual):
    scores, actual = np.array(scores)[:, None], np.array(actual)
    positive = 1 / (1 + np.exp(-scores))
    return Scored(
        "binary",
        ["no", "yes"],
        actual,
        (scores[:, 0] > 0).astype(np.int64),
        scores,
        np.hstack([1 - positive, positive]),
    )


def numbers(predicted, actual):
    nothing = np.empty((len(actual), 0))
    return Scored("regression", [], np.array(actual, np.float32), np.array(predicted, np.float32), nothing, nothing)


@given(PAIRS)
def test_a_confusion_matrix_counts_each_pair(given):
    classes, pairs = given
    actual, predicted = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    matrix = confusion_matrix(actual, predicted, classes)
    assert matrix.tolist() == [[pairs.count((row, column)) for column in range(classes)] for row in range(classes)]


@given(PAIRS)
def test_classification_is_as_scikit_learn_says(drawn):
    classes, pairs = drawn
    actual, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found, table = measure_metrics(classified(classes, actual, predicted)), per_class(actual, predicted, classes)
    there = sorted(set(actual.tolist()))
    assert found["accuracy"] == pytest.approx((actual == predicted).mean())
    each = precision_recall_fscore_support(actual, predicted, labels=range(classes), zero_division=np.nan)
    mean = precision_recall_fscore_support(actual, predicted, labels=there, average="macro", zero_division=0.0)
    for number, name in enumerate(("precision", "recall")):
        assert table[name] == pytest.approx(each[number], nan_ok=True)
        assert found[f"{name}_macro"] == pytest.approx(mean[number])
    assert found["f1_macro"] == pytest.approx(mean[2])


def test_calibration_error():
    probability, true = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False, True, False])
    assert calibration_error(probability, true, bins=10) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.05)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_binary():
    found = measure_metrics(binary([2.0, -1, 0.5, -3], [1, 0, 0, 0]))
    ece = found.pop("ece")
    assert found == {
        "accuracy": 0.75,
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "roc_auc": 1.0,
        "average_precision": 1.0,
    }
    assert 0 < ece < 1
    assert "roc_auc" not in measure_metrics(binary([1.0], [1]))


def test_regression():
    found = measure_metrics(numbers([1.0, 2, 4], [1, 3, 5]))
    assert found == {
        "mae": pytest.approx(2 / 3),
        "rmse": pytest.approx((2 / 3) ** 0.5),
        "r2": pytest.approx(1 - (2 / 3) / (8 / 3)),
    }
    assert "r2" not in measure_metrics(numbers([1.0], [1]))
