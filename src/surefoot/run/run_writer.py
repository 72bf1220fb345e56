"""A stage's run in MLflow, written while the stage is at work: what its own process does (`tracking_process`)."""

import json
import time
from collections.abc import Callable

from surefoot.base import paths
from surefoot.base.locks import Locks
from surefoot.run import publish
from surefoot.run.record import RunRecord, read_mark
from surefoot.run.stored_network import stored_network
from surefoot.run.trajectory_store import TrajectoryStore, open_trajectory_store
from surefoot.tracking import checkpoint_artifacts, tag_names
from surefoot.tracking.tracker import Tracker

SECONDS_BETWEEN_WRITES = 1.0
SECONDS_BETWEEN_LOOKS = 0.1  # for a record that isn't written yet


class RunWriter:
    """Does what the stage tells (`TOLD`). Use it in a `with` block."""

    def __init__(self) -> None:
        self._tracker: Tracker | None = None
        self._store = TrajectoryStore(paths.trajectory_store())
        self._whole = self._store  # with what others share of the run: a state of it may be gone here
        self._run: RunRecord | None = None  # that is trained
        self._reached: list[str] = []  # the keys of its epochs
        self._read = 0  # so many of these were added
        self._checkpoints: set[str] = set()  # that MLflow has
        self._published = False  # as trained
        self._next_write = 0.0

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracker:
            self._tracker.close()

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None where that is out of reach."""
        return self._tracker.run_id if self._tracker else None

    # --- what a stage tells

    def begin(self, mark: str) -> None:
        """A run is to be trained."""
        if self._run:  # said twice, as a signal came between
            return
        run = self._run = _parse(mark)
        tracker = self._tracker = Tracker(run.identity, run.description, _locks(self._store))
        tracker.open("RUNNING")
        known = self._store.run(run.identity) or run
        self._whole = open_trajectory_store(run.origin)
        publish.describe_in_mlflow(tracker, known.model_copy(update={"continues": run.continues, "start": run.start}))
        if run.save_every:
            self._checkpoints = tracker.list_artifacts("checkpoints")

    def add_epoch(self, key: str) -> None:
        """An epoch is done, whose record is in the store, or soon will be."""
        if key not in self._reached[-1:]:  # said twice, as a signal came between
            self._reached.append(key)

    def sample_system(self) -> None:
        """Steps are taken from now on."""
        assert self._tracker
        self._tracker.sample_system()

    def set_tags(self, tags: dict[str, str]) -> None:
        """Something was observed of the run."""
        assert self._tracker
        self._tracker.set_tags(tags)

    def publish_training(self) -> None:
        """The run is trained, as its mark in the store says."""
        assert self._tracker
        assert self._run
        finished = self._store.run(self._run.identity)
        self.look()
        self._tracker.open()  # once more, if MLflow was out of reach
        if finished:
            publish.publish_training(self._tracker, finished, self._whole)
            self._published = True

    def end(self, status: str, why: str = "", keep_last: bool = True) -> None:
        """The run isn't trained to its end; one that is KILLED may be, while the stage waited for this process.

        Args:
            status: as MLflow has it.
            why: of a run that isn't worth its other epochs.
            keep_last: log the network after the last epoch.
        """
        assert self._tracker
        if status == "KILLED" and self._is_finished():
            if not self._published:
                self.publish_training()
            return
        self.look()
        network = stored_network(self._store, self._reached[-1]) if keep_last and self._reached else None
        if network:
            self._tracker.log_artifact(checkpoint_artifacts.LAST, network)
        if why:
            self._tracker.set_tags({tag_names.INCOMPLETE: why})
        self._tracker.end(status)

    def publish_evaluation(self, mark: str) -> None:
        """A run is evaluated."""
        run = _parse(mark)
        self._tracker = publish.publish_run(run, open_trajectory_store(run.origin), _locks(self._store))

    # --- without being told

    def look(self) -> float | None:
        """Write what has come; returns in how many seconds to look again, or None."""
        tracker, run = self._tracker, self._run
        if tracker is None or run is None:
            return None
        while self._read < len(self._reached) and (record := self._store.record(self._reached[self._read])):
            self._read += 1
            tracker.add_points(publish.epoch_points(record))
            epoch, key = record.epoch, record.key
            if run.save_every and epoch % run.save_every == 0:
                publish.publish_checkpoint(tracker, run.identity, self._whole, epoch, key, self._checkpoints)
        if tracker.has_unwritten and time.monotonic() >= self._next_write:
            tracker.flush()
            self._next_write = time.monotonic() + SECONDS_BETWEEN_WRITES
        waits = [SECONDS_BETWEEN_LOOKS] if self._read < len(self._reached) else []
        waits += [max(1e-3, self._next_write - time.monotonic())] if tracker.has_unwritten else []
        return min(waits, default=None)

    def leave(self) -> None:
        """The stage is gone, and can't be asked how the run ended."""
        if self._tracker is None or self._run is None:
            return
        self.end("KILLED")

    def _is_finished(self) -> bool:
        known = self._store.run(self._run.identity) if self._run else None
        return bool(known and known.finished)


TOLD: dict[str, Callable[..., None]] = {
    "begin": RunWriter.begin,
    "add_epoch": RunWriter.add_epoch,
    "sample_system": RunWriter.sample_system,
    "set_tags": RunWriter.set_tags,
    "publish_training": RunWriter.publish_training,
    "end": RunWriter.end,
    "publish_evaluation": RunWriter.publish_evaluation,
}


def _parse(mark: str) -> RunRecord:
    return read_mark(json.loads(mark)["identity"], mark.encode())


def _locks(store: TrajectoryStore) -> Locks:
    return Locks(store.path / "lock")
