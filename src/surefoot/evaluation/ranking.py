"""How well scores rank the rows of a class above the others: scikit-learn's curves and areas, to the bit. It takes
seconds to import.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RankingCurve = tuple[Floats, Floats, float]  # x, y, and the area that stands for the curve


def roc_curve(actual: NDArray[np.bool_], scores: Floats) -> RankingCurve:
    """The false positive rate and the true positive rate at each threshold, without points on a straight line between
    others; and the area under them.

    Args:
        actual: (rows,); some of them true, not all.
        scores: (rows,).
    """
    true, false = _counts(actual, scores)
    if len(false) > 2:
        turns = (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0)
        corners = np.concatenate([[True], turns, [True]])
        true, false = true[corners], false[corners]
    x, y = (np.concatenate([[0.0], counts]) / counts[-1] for counts in (false, true))
    return x, y, float(np.trapezoid(y, x))


def precision_recall_curve(actual: NDArray[np.bool_], scores: Floats) -> RankingCurve:
    """Recall and precision at each threshold, recall falling, without points between others of the same recall; and the
    average precision.

    Args:
        actual: (rows,); some of them true.
        scores: (rows,).
    """
    true, false = _counts(actual, scores)
    recall, precision = _recall_and_precision(true, false)
    average = max(0.0, -float(np.sum(np.diff(recall) * precision[:-1])))
    if len(true) > 2:
        ends = np.concatenate([[True], (np.diff(true[:-1]) != 0) | (np.diff(true[1:]) != 0), [True]])
        recall, precision = _recall_and_precision(true[ends], false[ends])
    return recall, precision, average


def _recall_and_precision(true: Floats, false: Floats) -> tuple[Floats, Floats]:
    recall, precision = true / true[-1], true / (true + false)
    return np.concatenate([recall[::-1], [0.0]]), np.concatenate([precision[::-1], [1.0]])


def _counts(actual: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """How many rows are taken rightly and wrongly at each threshold, from the largest score to the least."""
    order = np.argsort(scores)[::-1]
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of the rows with the same score
    true = np.cumsum(actual[order], dtype=np.float64)[last]
    return true, 1 + last - true
