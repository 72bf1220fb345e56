import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from surefoot.evaluation import metrics
from surefoot.evaluation.metrics import confusion_matrix


@given(st.integers(2, 6).flatmap(lambda classes: st.tuples(st.just(classes), st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2)))))
def test_a_confusion_matrix_counts_each_pair(given):
    classes, pairs = given
    actual, predicted = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    matrix = confusion_matrix(actual, predicted, classes)
    assert matrix.tolist() == [[pairs.count((row, column)) for column in range(classes)] for row in range(classes)]


@given(st.integers(2, 5).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40))))
def test_classification_is_as_scikit_learn_says(drawn):
    classes, pairs = drawn
    actual, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = metrics.classification(np.eye(classes, dtype=np.float32)[predicted], actual)
    there = sorted(set(actual.tolist()))
    assert found["accuracy"] == pytest.approx((actual == predicted).mean())
    assert found["recall_macro"] == pytest.approx(recall_score(actual, predicted, labels=there, average="macro", zero_division=0.0))
    assert found["f1_macro"] == pytest.approx(f1_score(actual, predicted, labels=there, average="macro", zero_division=0))


def test_binary():
    found = metrics.binary(np.array([[2.0], [-1], [0.5], [-3]], dtype=np.float32), np.array([1, 0, 0, 0], dtype=np.float32))
    assert found == {"accuracy": 0.75, "f1": pytest.approx(2 / 3), "roc_auc": 1.0}
    assert "roc_auc" not in metrics.binary(np.array([[1.0]], dtype=np.float32), np.array([1], dtype=np.float32))


def test_regression():
    found = metrics.regression(np.array([[1.0], [2], [4]], dtype=np.float32), np.array([1, 3, 5], dtype=np.float32))
    assert found == {"mae": pytest.approx(2 / 3), "rmse": pytest.approx((2 / 3) ** 0.5), "r2": pytest.approx(1 - (2 / 3) / (8 / 3))}
    assert "r2" not in metrics.regression(np.array([[1.0]], dtype=np.float32), np.array([1], dtype=np.float32))
