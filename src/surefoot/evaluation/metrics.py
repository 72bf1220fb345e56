"""Test metrics from arrays, by task."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def classification(outputs: Floats, targets: NDArray[np.int64]) -> dict[str, float]:
    """From logits (rows, classes) and class indices (rows,): accuracy, and the mean over classes of recall and of F1."""
    matrix = confusion_matrix(targets, outputs.argmax(1), outputs.shape[1])
    right, actual, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    there = actual > 0  # a class without a test row has no recall
    recall = right[there] / actual[there]
    return {
        "accuracy": float(right.sum() / matrix.sum()),
        "recall_macro": float(recall.mean()),
        "f1_macro": float((2 * right[there] / (actual[there] + predicted[there])).mean()),
    }


def binary(outputs: Floats, targets: Floats) -> dict[str, float]:
    """From one logit a row, (rows, 1), and targets 0 or 1, (rows,): accuracy, F1, and the area under the ROC curve."""
    from sklearn.metrics import f1_score, roc_auc_score

    logits, actual = outputs[:, 0], targets > 0
    predicted = logits > 0
    found = {"accuracy": float((predicted == actual).mean()), "f1": float(f1_score(actual, predicted, zero_division=0.0))}
    return found | ({"roc_auc": float(roc_auc_score(actual, logits))} if 0 < actual.sum() < len(actual) else {})


def regression(outputs: Floats, targets: Floats) -> dict[str, float]:
    """From predictions (rows, 1) and targets (rows,): mean absolute error, root of the mean squared one, R squared."""
    actual = targets.astype(np.float64)
    errors = outputs[:, 0].astype(np.float64) - actual
    squared = float((errors**2).mean())
    spread = float(actual.var())
    return {"mae": float(np.abs(errors).mean()), "rmse": squared**0.5} | ({"r2": 1 - squared / spread} if spread else {})


METRICS: dict[str, Callable[..., dict[str, float]]] = {"classification": classification, "binary": binary, "regression": regression}


def confusion_matrix(actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often class `row` was taken for class `column`: shape (classes, classes)."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)
