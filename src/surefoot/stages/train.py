"""train: minibatch SGD from the batch store to the chosen model."""

import csv
import io
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from surefoot.base import digests, errors, locks, paths, terminal, writing
from surefoot.base.errors import Stopped, UserError
from surefoot.base.locks import Locks
from surefoot.data.batch_store import open_store
from surefoot.params import dvc_yaml
from surefoot.params.train_section import TrainParams
from surefoot.run import new_record, publish, start_from
from surefoot.run.choose_epoch import choose_epoch
from surefoot.run.pinned_params import load_and_pin
from surefoot.serving import onnx_export
from surefoot.tracking import tag_names, tracker
from surefoot.tracking.tracker import Tracker

if TYPE_CHECKING:
    from surefoot.run.chain import Chain, Segment
    from surefoot.run.plan.planning import Plan
    from surefoot.run.trajectory_store import Record, TrajectoryStore
    from surefoot.training.loop import Batches


class Pruned(Exception):
    """A trial of a search isn't worth its other epochs, and why."""


def main(judge: "Callable[[Record], str | None]" = lambda record: None) -> None:
    """Read `data/batches/`; write the chosen model and the history; bring the run to MLflow.

    Args:
        judge: of a search; looks at each epoch in turn, and gives the reason why the trial is pruned after it, or None.

    Raises:
        Pruned: for that reason.
    """
    check = _parent_check()  # before the imports, which take seconds
    params = load_and_pin()
    writing.remove_measured()
    dvc_yaml.require_watched(params, "train")
    from surefoot.run.chain import LOSSES
    from surefoot.run.plan.planning import plan_run
    from surefoot.run.trajectory_store import TrajectoryStore

    batches = open_store(paths.BATCHES)
    plan = plan_run(params, batches)
    start = plan.inputs.start
    if start:
        terminal.print_lines(start_from.describe(start.note, batches, plan.inputs.batches.only))
    _say_lr(params.train, plan.inputs.lr, plan.inputs.rows_per_step)
    store = TrajectoryStore(paths.trajectory_store())
    if start and start.weights is not None:  # for the run in MLflow, now or by `surefoot sync`
        store.keep_start(str(start.note.weights), start.weights)
    locks = Locks(store.path / "lock")
    run = new_record.new_record(params, batches, plan)
    run = run.model_copy(update={"continues": _continued(store, run.epoch_keys)})
    if why := run.description.tags.get(tag_names.NO_GIT):
        terminal.warn(
            f"this run is recorded without its commit and changes, so `surefoot verify` can't make it again: {why}",
        )
    if params.train.onnx:  # before hours of training: can it be exported?
        onnx_export.export(plan.first_network(), run.network, run.examples)
    tracker = Tracker(run.identity, run.description, locks)
    before = store.run(run.identity)
    run = run.model_copy(update={"results": before.results if before else {}})
    known = run if before is None or before.lacks() else before
    store.mark_run(known)
    check = _time_check(check, params.train.max_minutes)
    try:
        tracker.open("RUNNING")
        begun = known.model_copy(update={"continues": run.continues, "start": run.start})
        publish.describe_in_mlflow(tracker, begun)
        with _chain(plan, store, locks, check, tracker.sample_system) as chain:
            follows = plan.origin["schedule"][
                "follows"
            ]  # then the mark comes to know each epoch's key as it is reached
            reached = (
                (lambda keys: store.mark_run(run.model_copy(update={"epoch_keys": keys})))
                if follows and not known.last
                else lambda keys: None
            )
            history, incomplete = _follow(chain, tracker, params.train, reached, judge, plan.inputs.remedies())
            chosen = choose_epoch(params.train.select, history)
            best = min(history, key=lambda record: record["metrics"][LOSSES[0]])
            weights = chain.weights(chosen["key"], params.train.select.endswith("_average"))
            keys = [record["key"] for record in history]
            of_end = {"last": keys[-1], "best": best["key"], "chosen": chosen["key"], "epoch_keys": keys}
            of_end |= {"weights": digests.sha256(weights), "incomplete": incomplete}
            finished = run.model_copy(update={**of_end, "continues": _continued(store, keys)})
            writing.write_bytes(paths.MODEL, weights)
        writing.write_bytes(paths.HISTORY, _table(history))
        store.mark_run(finished)
        tracker.open()  # once more, if MLflow was out of reach
        publish.publish_training(tracker, finished, store)
    except Pruned as pruned:
        if not known.last:
            tracker.tag({tag_names.INCOMPLETE: str(pruned)})
        tracker.end("FINISHED" if known.last else "KILLED")  # one that was once finished, before the search, stays so
        raise
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, Stopped) else "FAILED")
        raise


def _follow(
    chain: "Chain",
    tracker: tracker.Tracker,
    train: TrainParams,
    reached_keys: Callable[[list[str]], None],
    judge: "Callable[[Record], str | None]",
    remedies: str,
) -> "tuple[list[Record], str | None]":
    """Walk the chain to its end; each epoch goes to the terminal and to MLflow.

    Returns the record of each, and why some are lacking.
    """
    from surefoot.training.divergence import Diverged

    history: list[Record] = []
    there = tracker.artifacts("checkpoints") if train.save_every else set()
    try:
        for reached in chain.follow():
            history.append(reached.record)
            reached_keys([record["key"] for record in history])
            tracker.add(publish.points(reached.record))
            if reached.trained:
                _report(reached.record, train.epochs)
            path = publish.checkpoint(len(history))
            if train.save_every and len(history) % train.save_every == 0 and path not in there:
                weights = chain.stored_weights(
                    reached.record["key"]
                )  # now, as `keep_states` may drop the state before the end
                if weights:
                    tracker.artifact(path, weights)
            pruned = judge(reached.record)
            if pruned:
                raise Pruned(f"pruned after {len(history)} of {train.epochs} epochs: {pruned}")
    except TimeIsUp:
        if not history:
            kept = (
                "what was trained is kept; run again to go on"
                if train.checkpoint_every
                else "give more, or set train.checkpoint_every to keep parts of one"
            )
            raise UserError(
                f"train.max_minutes: {train.max_minutes:g} minutes were too short for an epoch; {kept}"
            ) from None
        incomplete = f"after {len(history)} of {train.epochs} epochs train.max_minutes ({train.max_minutes:g}) was over"
        terminal.print_lines(f"not complete: {incomplete}; `dvc repro --force train` goes on from there")
        return history, incomplete
    except (Diverged, Stopped) as stopped:
        weights = chain.stored_weights(history[-1]["key"]) if history else None
        if weights:
            tracker.artifact("checkpoints/last.safetensors", weights)
        if isinstance(stopped, Stopped):
            raise
        kept = f"the state of epoch {len(history)} is kept" if history else "no epoch was finished, so no state is kept"
        where = (
            f", and as checkpoints/last.safetensors in the MLflow run {tracker.run_id}"
            if history and tracker.run_id
            else ""
        )
        raise UserError(
            f"training diverged in epoch {stopped.epoch}: {stopped}; try a smaller train.lr{remedies}", f"{kept}{where}"
        ) from None
    return history, None


class TimeIsUp(Exception):
    """`train.max_minutes` is over."""


def _time_check(check: Callable[[], None], minutes: float | None) -> Callable[[], None]:
    """Also ends the training when its time is up, which begins with the first step."""
    end: float | None = None

    def check_both() -> None:
        nonlocal end
        check()
        if minutes and end is None:
            end = time.monotonic() + 60 * minutes
        elif end is not None and time.monotonic() > end:
            raise TimeIsUp

    return check_both


def _say_lr(train: TrainParams, lr: float, rows: int) -> None:
    if train.lr_reference_batch:
        terminal.print_lines(
            f"lr {train.lr:g} for {train.lr_reference_batch} rows in a step is scaled to {lr:g} for {rows}"
            " (train.lr_reference_batch)"
        )


def _chain(
    plan: "Plan",
    store: "TrajectoryStore",
    locks: locks.Locks,
    check: Callable[[], None],
    sample: Callable[[], None],
) -> "Chain":
    def lock(key: str) -> AbstractContextManager[None]:
        return locks.held(
            key, lambda pid: terminal.print_lines(f"waiting: process {pid or 'unknown'} is training these steps")
        )

    def watch(minibatches: "Batches", segment: "Segment") -> "Batches":
        sample()
        return _progress_bar(minibatches, segment, train.epochs, train.accumulate)

    train = plan.inputs.params.train
    return plan.chain(
        store,
        keep_states=train.keep_states,
        lock=lock,
        check=check,
        watch=watch,
        say=terminal.print_lines,
    )


def _parent_check() -> Callable[[], None]:
    """Stops a training whose DVC was killed: `dvc repro` would start a second one beside it."""
    parent = os.getppid() if "DVC_STAGE" in os.environ else None

    def check() -> None:
        if parent and os.getppid() != parent:
            terminal.print_lines("the dvc process that started this training is gone", error=True)
            raise Stopped(signal.SIGHUP)

    return check


def _continued(store: "TrajectoryStore", epoch_keys: list[str]) -> list[tuple[str, int]]:
    """The longest finished run that one with these keys goes on from, if there is one, and the epoch at which that
    ended.
    """
    keys = {key: epoch for epoch, key in enumerate(epoch_keys[:-1], 1)}
    shorter = [(run.identity, keys[run.last]) for run in store.runs().values() if run.last in keys]
    return sorted(shorter, key=lambda found: found[1])[-1:]


def _report(record: "Record", epochs: int) -> None:
    metrics = "  ".join(f"{name} {record['metrics'][name]:.4f}" for name in publish.metric_names(record)[:-2])
    seconds, rows = record["seconds"], record["rows"]
    terminal.print_lines(
        f"epoch {record['epoch']:{len(str(epochs))}}/{epochs}  {metrics}  ({seconds:.2f} s, {rows / seconds:,.0f}"
        " rows/s)"
    )


def _progress_bar(minibatches: "Batches", segment: "Segment", epochs: int, accumulate: int) -> "Batches":
    """A bar over the minibatches where a terminal is attached; it vanishes when they are done."""
    name, total = f"epoch {segment.epoch}/{epochs}", len(segment.values) * accumulate
    bar: Batches = terminal.progress_bar(minibatches, name=name, total=total, unit="batch", leave=False)
    return bar


def _table(history: "list[Record]") -> bytes:
    """The history as CSV; floats as the shortest text that reads back as the same number."""
    text = io.StringIO(newline="")
    # The last epoch has all columns: averages begin later than the first.
    writer = csv.DictWriter(text, ("epoch", *publish.metric_names(history[-1])), lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": record["epoch"], **record["metrics"]} for record in history)
    return text.getvalue().encode()


if __name__ == "__main__":
    errors.run_process(main)
