"""Test metrics from arrays."""

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often class `row` was taken for class `column`: shape (classes, classes)."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)
