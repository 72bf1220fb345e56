"""What is known of a run as its training begins, and as it ends."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from surefoot.base import digests
from surefoot.run.chain import LOSSES
from surefoot.run.new_record import new_record
from surefoot.run.record import Epoch, Origin, Record, RunRecord
from surefoot.run.trajectory_store import TrajectoryStore

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan


def begun_record(plan: "Plan", store: TrajectoryStore) -> tuple[RunRecord, RunRecord]:
    """The record of a run that is about to be trained; and the record that the store keeps until it is done: the same,
    or the one that an earlier training of this run left there.
    """
    inputs, keys = plan.inputs, plan.epoch_keys()
    run = new_record(
        inputs.params, inputs.batches, plan.identity, Origin.model_validate(plan.origin), keys, inputs.start_note
    )
    before = store.run(run.identity)
    results = before.results if before else {}
    run = run.model_copy(update={"continues": _continued(store, keys), "results": results})
    return run, run if before is None or before.lacks() else before


def note_epochs(run: RunRecord, known: RunRecord, store: TrajectoryStore) -> Callable[[Sequence[Record]], None]:
    """A function that tells the store each epoch's key when it is reached, where they can't be known before: where the
    schedule follows a metric.
    """

    def note(history: Sequence[Record]) -> None:
        if run.origin and run.origin.schedule.follows and not known.last:
            store.mark_run(run.model_copy(update={"epoch_keys": [record.key for record in history]}))

    return note


def finished_record(
    run: RunRecord,
    history: Sequence[Record],
    chosen: Epoch,
    weights: bytes,
    incomplete: str | None,
    store: TrajectoryStore,
) -> RunRecord:
    """The record of a run that was trained.

    Args:
        run: as it began.
        history: the records of its epochs.
        chosen: that of the epoch whose model is kept.
        weights: that model, as safetensors.
        incomplete: why epochs are lacking, if some are.
        store: with the other runs.
    """
    keys = [record.key for record in history]
    best = min(history, key=lambda record: record.metrics[LOSSES[0]])
    of_end = {"last": keys[-1], "best": best.key, "chosen": chosen.key, "weights": digests.sha256(weights)}
    more = {"epoch_keys": keys, "incomplete": incomplete, "continues": _continued(store, keys)}
    return run.model_copy(update=of_end | more)


def _continued(store: TrajectoryStore, epoch_keys: list[str]) -> list[tuple[str, int]]:
    """The longest finished run that one with these keys goes on from, if there is one, and the epoch at which that
    ended.
    """
    keys = {key: epoch for epoch, key in enumerate(epoch_keys[:-1], 1)}
    shorter = [(run.identity, keys[run.last]) for run in store.runs().values() if run.last in keys]
    return sorted(shorter, key=lambda found: found[1])[-1:]
