"""models/run.json: what train tells evaluate of the run, beside its model. It is the same bytes on every run, so no
time, host or user is in it.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from surefoot.base import digests, paths, reading, writing
from surefoot.base.documents import Count, Digest, Document, Malformed, Number, Positive, parse_document
from surefoot.evaluation.schedule_points import SchedulePoints, schedule_points
from surefoot.run.record import Origin, RunRecord
from surefoot.run.start_note import StartNote

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan
    from surefoot.run.segments import Segment


class DrawnSchedule(Document):
    """The schedule as it was, as far as it is drawn."""

    columns: list[tuple[Count, str]]
    """What is scheduled: the number of the optimizer's group, and the name there."""
    steps_per_epoch: Positive
    steps: list[Positive]
    """Those that are drawn."""
    values: list[list[Number]]
    """Of each of them, a number for each column."""

    @model_validator(mode="after")
    def _fits(self) -> "DrawnSchedule":
        if not self.steps or len(self.steps) != len(self.values):
            raise ValueError("there must be values for each step, and a step")
        if not self.columns or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError("there must be a number for each column, and a column")
        if any(group >= len(self.columns) for group, _ in self.columns):
            raise ValueError("columns: there is no such group")
        return self

    def points(self) -> SchedulePoints:
        """As arrays."""
        return SchedulePoints(np.array(self.steps), np.array(self.values))


class RunFile(Document):
    """What was determined in a run, as far as evaluate needs it."""

    version: Literal[1] = 1
    identity: Digest
    origin: Origin
    start: StartNote | None
    """What is said of the model that it started from."""
    epoch_keys: list[Digest]
    chosen_epoch: Positive
    """The epoch of the model."""
    schedule: DrawnSchedule

    @model_validator(mode="after")
    def _has_chosen(self) -> "RunFile":
        if self.chosen_epoch > len(self.epoch_keys):
            raise ValueError("chosen_epoch: there is no such epoch")
        return self


def write_run_file(plan: "Plan", run: RunRecord, segments: "Iterable[Segment]") -> None:
    """Write `models/run.json` for a finished run of a plan, whose chain has these segments."""
    assert run.chosen and run.origin
    points = schedule_points(_epochs(segments, len(run.epoch_keys)), len(run.epoch_keys))
    written = RunFile(
        version=1,
        identity=run.identity,
        origin=run.origin,
        start=run.start,
        epoch_keys=run.epoch_keys,
        chosen_epoch=1 + run.epoch_keys.index(run.chosen),
        schedule=DrawnSchedule(
            columns=plan.make_schedule().columns,
            steps_per_epoch=plan.inputs.steps_per_epoch,
            steps=points.steps.tolist(),
            values=points.values.tolist(),
        ),
    )
    writing.write_bytes(paths.RUN, digests.canonical_json(written.plain()) + b"\n")


def _epochs(segments: "Iterable[Segment]", count: int) -> Iterator[np.ndarray]:
    """What was scheduled in each of the first epochs: (steps, columns)."""
    for epoch, parts in groupby(segments, key=lambda segment: segment.epoch):
        if epoch <= count:
            yield np.concatenate([part.values for part in parts])


def read_run_file() -> RunFile:
    """What `models/run.json` says.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    with reading.reading_made(paths.RUN, "train", Malformed):
        return parse_document(RunFile, reading.read_file(paths.RUN, reading.LARGEST_WEIGHTS))
