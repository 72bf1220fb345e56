"""A run cut into segments: some steps each, and the key of the state after them.

The key of the state after n steps is sha256(origin, scheduled values of step 1, ..., of step n), which are the learning
rates and whatever else changes: a function of the origin and these values alone, not of where checkpoints lie, so
another `checkpoint_every` finds the same keys.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.base import digests

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Segment:
    """Some steps within an epoch, and the key of the state after them."""

    key: str
    parent: str
    epoch: int
    first: int  # step of the epoch, from 0
    values: np.ndarray  # float64 (steps, columns): what is scheduled, first the learning rate
    steps_before: int  # of the run
    ends_epoch: bool


NextSegments = Callable[[Metrics | None], list[Segment]]
"""The segments of the next epoch, from the metrics of the one before; none at the end."""


def cut_into_segments(
    origin: dict[str, Any],
    next_epoch: Callable[[Metrics | None], np.ndarray],
    checkpoint_every: int,
    steps: int | None = None,
) -> NextSegments:
    """What cuts a run into segments, epoch by epoch.

    Args:
        origin: everything but the schedule that determines the run.
        next_epoch: the scheduled values of the next epoch, (steps,) or (steps, columns), from the metrics of the one
            before; none at the end.
        checkpoint_every: steps in a segment; 0 for whole epochs. An epoch's end always ends a segment.
        steps: of a whole epoch. One with fewer ends the run within the epoch; None: there is no such one.
    """
    digest = hashlib.sha256(digests.canonical_json(origin))
    parent, epoch, before = digest.hexdigest(), 0, 0

    def next_segments(metrics: Metrics | None) -> list[Segment]:
        nonlocal parent, epoch, before
        values = np.ascontiguousarray(next_epoch(metrics), dtype="<f8")
        values = values if values.ndim == 2 else values[:, None]
        epoch += 1
        found = []
        size = checkpoint_every or max(1, len(values))
        for first in range(0, len(values), size):
            part = values[first : first + size]
            last = first + len(part) == len(values)
            digest.update(part.tobytes())
            if last and steps and len(values) < steps:
                digest.update(b"the run ends here, within the epoch")  # the same steps in a longer run end no epoch
            key = digest.hexdigest()
            found.append(Segment(key, parent, epoch, first, part, before, last))
            parent, before = key, before + len(part)
        return found

    return next_segments


def all_segments(
    origin: dict[str, Any], schedule: Iterable[np.ndarray], checkpoint_every: int, steps: int | None = None
) -> list[Segment]:
    """All segments of a run whose schedule is known before: for each epoch the values of each step."""
    values = iter(schedule)
    next_segments = cut_into_segments(origin, lambda _: next(values, np.empty(0)), checkpoint_every, steps)
    found = []
    while some := next_segments(None):
        found += some
    return found
