"""What is drawn of a schedule: few enough points, whatever the steps."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SHOWN = 4000  # points of a line: more are thinned out, the least and the largest of each stretch kept


class SchedulePoints(NamedTuple):
    """The steps to draw, from 1, and the values there, (steps, columns)."""

    steps: np.ndarray
    values: np.ndarray


def schedule_points(epochs: Iterable[np.ndarray], planned: int) -> SchedulePoints:
    """Of each epoch the first step and the last, and the least and the largest value of each stretch.

    Args:
        epochs: of each epoch the values of its steps, (steps, columns).
        planned: epochs of the whole run.
    """
    size = max(2, SHOWN // planned)
    steps, kept, before = [], [], 0
    for values in epochs:
        chosen = np.arange(len(values))
        if len(values) > 4 * size:
            parts = np.array_split(chosen, size)
            extremes = [part[0] + pick(values[part], axis=0) for part in parts for pick in (np.argmin, np.argmax)]
            chosen = np.unique(np.concatenate([[0, len(values) - 1], *extremes]))
        steps.append(1 + before + chosen)
        kept.append(values[chosen])
        before += len(values)
    return SchedulePoints(np.concatenate(steps), np.concatenate(kept))
