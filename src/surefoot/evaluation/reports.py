"""What evaluate leaves behind of a task: its plots, and its table of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surefoot.base.writing import csv_bytes
from surefoot.evaluation.intervals import wilson
from surefoot.evaluation.metrics import Scored, per_class
from surefoot.evaluation.plots import classes, mistakes, regression, training_curves

COLUMNS = (
    "class",
    "rows",
    "predicted",
    "precision",
    "precision_low",
    "precision_high",
    "recall",
    "recall_low",
    "recall_high",
    "f1",
)


def draw_plots(
    tested: Scored,
    history: Mapping[str, Sequence[float]],
    chosen: int,
    select: str,
    target: str,
    inputs: NDArray[Any],
    features: Sequence[Mapping[str, Any]],
) -> dict[str, bytes]:
    """The plots of a run as PNG, by file name.

    Args:
        tested: its test rows.
        history: the columns of history.csv.
        chosen: the epoch of the model.
        select: why it was chosen (`train.select`).
        target: the name of what is predicted.
        inputs: of the test rows, (rows, *shape), as the batch store has them.
        features: the fitted preparation that they went through.
    """
    found = {"training.png": training_curves.training_plot(history, chosen, select)}
    if tested.task == "regression":
        return found | {
            "predictions.png": regression.predictions_plot(tested, target),
            "residuals.png": regression.residuals_plot(tested, target),
        }
    found |= {
        "confusion.png": classes.confusion_plot(tested),
        "classes.png": classes.precision_and_recall_plot(tested),
        "calibration.png": classes.calibration_plot(tested),
    }
    if len(np.unique(tested.actual)) > 1:  # else there is nothing to tell the class from
        found |= {"roc.png": classes.roc_plot(tested), "precision_recall.png": classes.precision_recall_plot(tested)}
    worst = mistakes.worst_mistakes(tested)
    pixels = mistakes.as_images(inputs[worst], features) if len(worst) else None
    return found if pixels is None else found | {"mistakes.png": mistakes.mistakes_plot(tested, worst, pixels)}


def class_table(tested: Scored) -> bytes:
    """A CSV row for each class: rows, rows predicted, precision and recall with their 95 % intervals, F1.

    Empty where there is no row to say it.
    """
    table = (
        per_class(tested.actual.astype(np.int64), tested.predicted.astype(np.int64), len(tested.classes))
        if tested.classes
        else {}
    )
    lines: list[Sequence[Any]] = [COLUMNS]
    for number, name in enumerate(tested.classes):
        rows, taken, right = (int(table[column][number]) for column in ("rows", "predicted", "right"))
        shares = (
            [right / of, *(round(end, 6) for end in wilson(right, of))] if of else [""] * 3 for of in (taken, rows)
        )
        precision, recall = shares
        lines.append([name, rows, taken, *precision, *recall, 2 * right / (rows + taken) if rows + taken else ""])
    return csv_bytes(lines)
