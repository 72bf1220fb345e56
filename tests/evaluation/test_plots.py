import numpy as np
import pytest

from surefoot.evaluation import plots

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_loss_curves(epochs):
    losses = [1 / number for number in range(1, epochs + 1)]
    assert plots.loss_curves(list(range(1, epochs + 1)), losses, losses, chosen=1).startswith(PNG)


@pytest.mark.parametrize("classes", [["0", "1"], ["a class with a very long name", "$b_$", "日本"], [str(number) for number in range(40)]])
def test_confusion(classes):
    matrix = np.eye(len(classes), dtype=np.int64)
    matrix[0] = 0  # a class without a test row
    assert plots.confusion(matrix, classes).startswith(PNG)


def test_losses_below_zero_are_shown():
    """By a logarithmic axis they would not be."""
    assert plots.loss_curves([1, 2], [1.0, -1.0], [0.5, -2.0], chosen=2) != plots.loss_curves([1, 2], [1.0, -3.0], [0.5, -2.0], chosen=2)


def test_many_predictions():
    values = np.arange(3 * plots.POINTS, dtype=np.float32)
    assert plots.predictions(values, values).startswith(PNG)
