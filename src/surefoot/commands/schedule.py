"""`surefoot schedule`: the plan of a run's learning rate, drawn before anything is trained."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surefoot.base import paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.data.batch_store import Store, open_store
from surefoot.params.sections import Params
from surefoot.run import naming
from surefoot.run.pinned_params import load_and_pin

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan
    from surefoot.training.schedule import Metrics, Schedule


def main(out: Path | None) -> None:
    """Draw the schedule of params.yaml into a PNG; print where it lies, and the first, highest and last values.

    Raises:
        UserError: data/batches isn't there, or was made for other params; the network or the schedule can't be made.
    """
    params, batches = load_with_batches()
    from surefoot.run.plan.planning import plan_run

    plan = plan_run(params, batches)
    schedule = plan.make_schedule()
    history = _history(plan) if schedule.metric else []
    summary = Summary(len(schedule.columns))
    from surefoot.evaluation.plots import learning_rate
    from surefoot.evaluation.schedule_points import schedule_points

    groups = naming.group_names(params)
    epochs = params.train.epochs
    known = _values(schedule, history, epochs)
    bar = terminal.progress_bar(known, name="schedule", total=epochs, unit="epoch", leave=False)
    data = learning_rate.schedule_plot(
        schedule_points(summary.watch(bar), epochs),
        schedule.columns,
        groups,
        plan.inputs.steps_per_epoch,
        epochs,
        naming.schedule_title(params),
    )
    path = out or paths.trajectory_store() / "schedule.png"
    writing.write_bytes(path, data)
    for (group, name), values in zip(schedule.columns, summary.rows(), strict=True):
        of = f" of {groups[group]}" if len(groups) > 1 else ""
        terminal.print_lines(f"{'momentum' if name == 'betas' else name}{of}: {values}")
    terminal.print_lines(
        f"{summary.steps} steps in {summary.epochs} epochs of {plan.inputs.steps_per_epoch}: {paths.from_here(path)}"
    )
    if schedule.metric and summary.epochs < epochs:
        terminal.print_lines(
            f"what follows isn't known before: it depends on {schedule.metric}, as the epochs before it turn out; after"
            " `dvc repro` this shows all"
        )


def load_with_batches() -> tuple[Params, Store]:
    """The params and the batch store that was made by them; numerics are pinned.

    Raises:
        UserError: the batch store isn't there, or was made by others.
    """
    params = load_and_pin()
    try:
        batches = open_store(paths.BATCHES)
    except FileNotFoundError:
        raise UserError(
            f"{paths.BATCHES} isn't there, which says how many steps an epoch has: run `dvc repro batch` first"
        ) from None
    index = batches.index
    for key, made in (("size", index.batch_size), ("drop_last", index.drop_last), ("shuffle", index.shuffle)):
        if made != (now := getattr(params.batch, key)):
            raise UserError(
                f"{paths.BATCHES} was made with batch.{key}: {str(made).lower()}, now it is {str(now).lower()}: run"
                " `dvc repro batch` first"
            )
    return params, batches


class Summary:
    """What becomes known of values while they go by: how many, and of each column the first, the
    highest and the last.
    """

    def __init__(self, columns: int) -> None:
        self.steps = self.epochs = 0
        self._first, self._highest, self._at, self._last = (np.zeros(columns) for _ in range(4))

    def watch(self, epochs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same values."""
        for values in epochs:
            if not self.steps:
                self._first, self._highest, self._at = values[0], values[0], np.ones(values.shape[1])
            higher = values.max(axis=0) > self._highest
            self._at = np.where(higher, self.steps + 1 + values.argmax(axis=0), self._at)
            self._highest, self._last = np.where(higher, values.max(axis=0), self._highest), values[-1]
            self.steps, self.epochs = self.steps + len(values), self.epochs + 1
            yield values

    def rows(self) -> list[str]:
        """A text for each column."""
        columns = zip(self._first, self._highest, self._at, self._last, strict=True)
        return [
            f"first {first:.4g}, highest {highest:.4g} (step {at:.0f}), last {last:.4g}"
            for first, highest, at, last in columns
        ]


def _values(schedule: "Schedule", history: "list[Metrics]", epochs: int) -> Iterator[np.ndarray]:
    """The values of each epoch, as far as they are known."""
    known = len(history) + 1 if schedule.metric else epochs
    before: list[Metrics | None] = [None, *history] if schedule.metric else [None] * epochs
    for metrics in before[:known]:
        values = schedule.next_epoch(metrics)
        if len(values):
            yield values


def _history(plan: "Plan") -> "list[Metrics]":
    """The metrics of each epoch of this run that was trained."""
    from surefoot.run.trajectory_store import TrajectoryStore

    store = TrajectoryStore(paths.trajectory_store())
    run = store.run(plan.identity)
    records = [store.record(key) for key in (run.epoch_keys if run else [])]
    return [record.metrics for record in records if record]
