"""A training on its way: each epoch goes to the terminal and to MLflow."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from surefoot.base import terminal
from surefoot.base.errors import Stopped, UserError
from surefoot.base.locks import Locks
from surefoot.params.train_section import TrainParams
from surefoot.run.chain import Chain
from surefoot.run.history import epoch_line
from surefoot.run.record import Record, RunRecord
from surefoot.run.segments import Segment
from surefoot.run.start_tracking import Tracking
from surefoot.run.stopping import Pruned, TimeIsUp
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import checkpoint_artifacts, mlflow_client, tag_names
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Batches

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan


@contextmanager
def tracked_run(tracking: Tracking, plan: "Plan", run: RunRecord, known: RunRecord) -> Iterator[None]:
    """The MLflow run of a training; it ends as the training does, if that comes to no good end.

    `known`: what the store knows of it.

    Raises:
        UserError: the training diverged.
    """
    tracking.tell("begin", mark=run.mark().decode())
    try:
        yield
    except Pruned as pruned:
        # One that was once finished, before the search, stays so.
        status, why = ("FINISHED", "") if known.last else ("KILLED", str(pruned))
        tracking.finish("end", status=status, why=why, keep_last=False)
        raise
    except Stopped:
        tracking.finish("end", mlflow_client.bound(), status="KILLED")
        raise
    except Diverged as diverged:
        tracking.finish("end", status="FAILED")
        raise _divergence(diverged, tracking.run_id, plan.inputs.remedies()) from None
    except BaseException:
        tracking.finish("end", status="FAILED")
        raise


def open_chain(
    plan: "Plan", store: TrajectoryStore, locks: Locks, tracking: Tracking, checks: Iterable[Callable[[], None]]
) -> Chain:
    """The chain of a plan, as the stage train walks it; `checks` raise where there is a reason to stop."""
    train = plan.inputs.params.train

    def check() -> None:
        for each in checks:
            each()

    def lock(key: str) -> AbstractContextManager[None]:
        return locks.held(
            key, lambda pid: terminal.print_lines(f"waiting: process {pid or 'unknown'} is training these steps")
        )

    sample_system = cache(lambda: tracking.tell("sample_system"))  # once

    def watch(minibatches: Batches, segment: Segment) -> Batches:
        sample_system()
        name, total = f"epoch {segment.epoch}/{train.epochs}", len(segment.values) * train.accumulate
        bar: Batches = terminal.progress_bar(minibatches, name=name, total=total, unit="batch", leave=False)
        return bar

    def note_way(way: str) -> None:
        tracking.tell("set_tags", tags={tag_names.STEPS: way})
        terminal.print_lines(f"steps: {way} (train.step)")

    hooks = {"lock": lock, "check": check, "watch": watch, "say": terminal.print_lines, "note_way": note_way}
    return plan.chain(store, keep_states=train.keep_states, **hooks)


def follow_chain(
    chain: Chain,
    plan: "Plan",
    tracking: Tracking,
    judge: Callable[[Record], str | None],
    note: Callable[[list[Record]], None],
) -> tuple[list[Record], str | None]:
    """Walk a chain to its end.

    Args:
        chain: of the plan.
        plan: of the run.
        tracking: of the run.
        judge: looks at each epoch in turn, and gives the reason why the run is pruned after it, or None.
        note: is told the records of all epochs so far, at each.

    Returns the record of each epoch, and why some are lacking.

    Raises:
        Pruned: for that reason.
        UserError: the training diverged; or its time was too short for an epoch.
    """
    train = plan.inputs.params.train
    history: list[Record] = []
    try:
        for reached in chain.follow():
            record = reached.record
            history.append(record)
            note(history)
            if train.save_every and len(history) % train.save_every == 0:
                # Now: `keep_states` may drop the state before MLflow has it.
                chain.keep_checkpoint(plan.identity, record.key)
            tracking.tell("add_epoch", key=record.key)
            if reached.trained:
                _print_epoch(record, train.epochs)
            if pruned := judge(record):
                raise Pruned(f"pruned after {len(history)} of {train.epochs} epochs: {pruned}")
    except TimeIsUp:
        return history, _time_was_up(len(history), train)
    return history, None


def _print_epoch(record: Record, epochs: int) -> None:
    terminal.print_lines(epoch_line(record, epochs))


def _time_was_up(done: int, train: TrainParams) -> str:
    """Why epochs are lacking where `train.max_minutes` is over.

    Raises:
        UserError: not one was done.
    """
    if not done:
        kept = (
            "what was trained is kept; run again to go on"
            if train.checkpoint_every
            else "give more, or set train.checkpoint_every to keep parts of one"
        )
        raise UserError(
            f"train.max_minutes: {train.max_minutes:g} minutes were too short for an epoch; {kept}"
        ) from None
    incomplete = f"after {done} of {train.epochs} epochs train.max_minutes ({train.max_minutes:g}) was over"
    terminal.print_lines(f"not complete: {incomplete}; `dvc repro --force train` goes on from there")
    return incomplete


def _divergence(diverged: Diverged, run_id: str | None, remedies: str) -> UserError:
    """What to tell the user of a training that diverged, whose run in MLflow has this id."""
    done = diverged.epoch - 1
    kept = f"the state of epoch {done} is kept" if done else "no epoch was finished, so no state is kept"
    where = f", and as {checkpoint_artifacts.LAST} in the MLflow run {run_id}" if done and run_id else ""
    return UserError(
        f"training diverged in epoch {diverged.epoch}: {diverged}; try a smaller train.lr{remedies}", f"{kept}{where}"
    )
