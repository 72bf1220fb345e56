"""Test metrics from arrays, by task."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surefoot.evaluation.ranking import precision_recall_curve, roc_curve

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

BINS = 15  # of the probability, in the expected calibration error (Guo et al. 2017)


@dataclass(frozen=True)
class Scored:
    """What a model gave for the test rows.

    Args:
        task: classification, binary or regression.
        classes: their names; none in regression.
        actual: (rows,): indices of classes, or numbers.
        predicted: the same.
        scores: (rows, classes), by which classes are ranked: logits. In a binary task (rows, 1).
        probabilities: (rows, classes), also in a binary task; (rows, 0) in regression.
        losses: (rows,), whose mean, weighted by `weights`, is the loss; None where it is no such mean.
        weights: (rows,); None: all the same.
    """

    task: str
    classes: list[str]
    actual: NDArray[np.int64 | np.float64]
    predicted: NDArray[np.int64 | np.float64]
    scores: Floats
    probabilities: Floats
    losses: Floats | None = None
    weights: Floats | None = None


def measure_metrics(tested: Scored) -> dict[str, float]:
    """The test metrics of a task beside its loss, by name."""
    return METRICS[tested.task](tested)


def classification_metrics(tested: Scored) -> dict[str, float]:
    """Accuracy; the means, over the classes that have a row, of precision, recall and F1; the expected calibration
    error.
    """
    table = per_class(tested.actual.astype(np.int64), tested.predicted.astype(np.int64), len(tested.classes))
    there = table["rows"] > 0  # a class without a test row has no recall
    macro = {f"{name}_macro": float(np.nan_to_num(table[name][there]).mean()) for name in ("precision", "recall", "f1")}
    return {
        "accuracy": float((tested.actual == tested.predicted).mean()),
        **macro,
        "ece": calibration_error(*confidence(tested)),
    }


def binary_metrics(tested: Scored) -> dict[str, float]:
    """Accuracy; precision, recall and F1 of the second class; areas under the ROC and the precision-recall curve; the
    expected calibration error.
    """
    actual, scores = tested.actual > 0, tested.scores[:, 0]
    table = per_class(tested.actual.astype(np.int64), tested.predicted.astype(np.int64), 2)
    found = {name: float(np.nan_to_num(table[name][1])) for name in ("precision", "recall", "f1")}
    both = 0 < actual.sum() < len(actual)
    areas = (
        {
            "roc_auc": roc_curve(actual, scores)[2],
            "average_precision": precision_recall_curve(actual, scores)[2],
        }
        if both
        else {}
    )
    return {
        "accuracy": float((tested.actual == tested.predicted).mean()),
        **found,
        **areas,
        "ece": calibration_error(*confidence(tested)),
    }


def regression_metrics(tested: Scored) -> dict[str, float]:
    """Mean absolute error, root of the mean squared one, R squared."""
    actual = tested.actual.astype(np.float64)
    errors = tested.predicted - actual
    squared = float((errors**2).mean())
    spread = float(actual.var())
    return {"mae": float(np.abs(errors).mean()), "rmse": squared**0.5} | (
        {"r2": 1 - squared / spread} if spread else {}
    )


METRICS = {"classification": classification_metrics, "binary": binary_metrics, "regression": regression_metrics}


def per_class(actual: Classes, predicted: Classes, classes: int) -> dict[str, NDArray[np.float64]]:
    """Of each class: rows, rows predicted, those right, precision, recall and F1 (NaN where there is nothing to divide
    by).
    """
    rows, taken = (np.bincount(values, minlength=classes).astype(np.float64) for values in (actual, predicted))
    right = np.bincount(actual[actual == predicted], minlength=classes).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = {"precision": right / taken, "recall": right / rows, "f1": 2 * right / (rows + taken)}
    return {"rows": rows, "predicted": taken, "right": right, **shares}


def confidence(tested: Scored) -> tuple[Floats, NDArray[np.bool_]]:
    """For each row a probability, and whether that came true: of the predicted class; in a binary task of the second
    class.
    """
    if tested.task == "binary":
        return tested.probabilities[:, 1], tested.actual > 0
    return tested.probabilities.max(1), tested.actual == tested.predicted


def in_bins(probability: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each probability, of as many equally wide ones from 0 to 1."""
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


def calibration_error(probability: Floats, true: NDArray[np.bool_], bins: int = BINS) -> float:
    """The expected calibration error: between the mean probability and the share that came true, averaged over the rows
    of each bin.
    """
    return float(np.abs(np.bincount(in_bins(probability, bins), probability - true, minlength=bins)).sum() / len(true))


def confusion_matrix(actual: Classes, predicted: Classes, classes: int) -> NDArray[np.int64]:
    """How often class `row` was taken for class `column`: shape (classes, classes)."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)
