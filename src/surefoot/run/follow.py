"""A training on its way: each epoch goes to the terminal and to MLflow."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from surefoot.base import terminal
from surefoot.base.errors import Stopped, UserError
from surefoot.base.locks import Locks
from surefoot.params.train_section import TrainParams
from surefoot.run import publish
from surefoot.run.chain import Chain
from surefoot.run.history import epoch_line
from surefoot.run.record import RunRecord
from surefoot.run.segments import Segment
from surefoot.run.stopping import Pruned, TimeIsUp
from surefoot.run.trajectory_store import Record, TrajectoryStore
from surefoot.tracking import tag_names
from surefoot.tracking.tracker import Tracker
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Batches

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan

LAST = "checkpoints/last.safetensors"


@contextmanager
def tracked_run(run: RunRecord, known: RunRecord, locks: Locks) -> Iterator[Tracker]:
    """The MLflow run of a training; it ends as the training does, if that comes to no good end.

    `known`: what the store knows of it.
    """
    tracker = Tracker(run.identity, run.description, locks)
    try:
        tracker.open("RUNNING")
        begun = known.model_copy(update={"continues": run.continues, "start": run.start})
        publish.describe_in_mlflow(tracker, begun)
        yield tracker
    except Pruned as pruned:
        if not known.last:
            tracker.tag({tag_names.INCOMPLETE: str(pruned)})
        tracker.end("FINISHED" if known.last else "KILLED")  # one that was once finished, before the search, stays so
        raise
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, Stopped) else "FAILED")
        raise


def open_chain(
    plan: "Plan", store: TrajectoryStore, locks: Locks, tracker: Tracker, checks: Iterable[Callable[[], None]]
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

    def watch(minibatches: Batches, segment: Segment) -> Batches:
        tracker.sample_system()
        name, total = f"epoch {segment.epoch}/{train.epochs}", len(segment.values) * train.accumulate
        bar: Batches = terminal.progress_bar(minibatches, name=name, total=total, unit="batch", leave=False)
        return bar

    def note_way(way: str) -> None:
        tracker.tag({tag_names.STEPS: way})
        terminal.print_lines(f"steps: {way} (train.step)")

    hooks = {"lock": lock, "check": check, "watch": watch, "say": terminal.print_lines, "note_way": note_way}
    return plan.chain(store, keep_states=train.keep_states, **hooks)


def follow_chain(
    chain: Chain,
    plan: "Plan",
    tracker: Tracker,
    judge: Callable[[Record], str | None],
    note: Callable[[list[Record]], None],
) -> tuple[list[Record], str | None]:
    """Walk a chain to its end.

    Args:
        chain: of the plan.
        plan: of the run.
        tracker: of the run.
        judge: looks at each epoch in turn, and gives the reason why the run is pruned after it, or None.
        note: is told the records of all epochs so far, at each.

    Returns the record of each epoch, and why some are lacking.

    Raises:
        Pruned: for that reason.
        UserError: the training diverged; or its time was too short for an epoch.
    """
    train = plan.inputs.params.train
    history: list[Record] = []
    there = tracker.artifacts("checkpoints") if train.save_every else set()
    try:
        for reached in chain.follow():
            record = reached.record
            history.append(record)
            note(history)
            tracker.add(publish.epoch_points(record))
            if reached.trained:
                _print_epoch(record, train.epochs)
            if train.save_every and len(history) % train.save_every == 0:
                path = publish.checkpoint_path(len(history))
                if path not in there:  # now, as `keep_states` may drop the state before the end
                    _save_checkpoint(chain, tracker, record, path)
            if pruned := judge(record):
                raise Pruned(f"pruned after {len(history)} of {train.epochs} epochs: {pruned}")
    except TimeIsUp:
        return history, _time_was_up(len(history), train)
    except (Diverged, Stopped) as stopped:
        if history:
            _save_checkpoint(chain, tracker, history[-1], LAST)
        if isinstance(stopped, Stopped):
            raise
        raise _divergence(stopped, len(history), tracker, plan.inputs.remedies()) from None
    return history, None


def _print_epoch(record: Record, epochs: int) -> None:
    terminal.print_lines(epoch_line(record, epochs))


def _save_checkpoint(chain: Chain, tracker: Tracker, record: Record, path: str) -> None:
    """Log the network after an epoch to MLflow, if its state is stored."""
    weights = chain.stored_weights(record.key)
    if weights:
        tracker.artifact(path, weights)


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


def _divergence(diverged: Diverged, done: int, tracker: Tracker, remedies: str) -> UserError:
    """What to tell the user of a training that diverged after so many epochs."""
    kept = f"the state of epoch {done} is kept" if done else "no epoch was finished, so no state is kept"
    where = f", and as {LAST} in the MLflow run {tracker.run_id}" if done and tracker.run_id else ""
    return UserError(
        f"training diverged in epoch {diverged.epoch}: {diverged}; try a smaller train.lr{remedies}", f"{kept}{where}"
    )
