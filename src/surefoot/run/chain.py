"""A run as a chain of states: each has a key (`segments`) that says everything that determined it, and is trained
once.
"""

import resource
import sys
import time
from collections.abc import Callable, Container, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from surefoot.base import digests
from surefoot.base.errors import UserError
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.run.record import Record
from surefoot.run.segments import Metrics, NextSegments, Segment
from surefoot.run.stored_network import stored_network
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Batches, Progress, Trainer
from surefoot.training.network import network_of, to_bytes

# The share of the free disk that the states of one run may take.
DISK_SHARE = 0.1
# By the least of these an epoch is the best one: with the weights that are trained, and with their average.
LOSSES = ("validation/loss", "validation/average_loss")


@dataclass(frozen=True)
class Reached:
    """The end of an epoch, trained now or restored."""

    record: Record
    trained: bool


class Chain:
    """Walks the segments of a run, restoring what the store has and training what it lacks. Use it in a `with` block.

    Args:
        next_segments: gives the segments of each epoch in turn.
        epochs: of the run, if nothing ends it before.
        store: where records and states lie.
        make: makes the trainer in its first state.
        order: the rows of an epoch, in the order in which they are trained on.
        ends: looks at the metrics of each epoch in turn; gives the reason why the run ends with it, or None.
        keep_states: how many of the latest states stay, beside last and best of this and other runs.
        lock: holds the lock of a key, so that no two processes train one segment at once; waits for it.
        check: called before each segment is trained; raises to stop.
        watch: sees the minibatches of a segment go by, for a progress bar.
        say: is told what the user should know.
        note_way: is told how steps are taken, once it is known, and when that changes.
        measures: the metrics of an epoch, by its number: a record without them, as somebody else may share, isn't used.
    """

    def __init__(
        self,
        next_segments: NextSegments,
        epochs: int,
        store: TrajectoryStore,
        make: Callable[[], Trainer],
        order: Callable[[int], Tensor | RowOrder | RowOrderAmong],
        *,
        ends: Callable[[Metrics], str | None] = lambda metrics: None,
        keep_states: int = 50,
        lock: Callable[[str], AbstractContextManager[None]] = lambda key: nullcontext(),
        check: Callable[[], None] = lambda: None,
        watch: Callable[[Batches, Segment], Batches] = lambda batches, segment: batches,
        say: Callable[[str], None] = lambda text: None,
        note_way: Callable[[str], None] = lambda way: None,
        measures: Callable[[int], Set[str]] = lambda epoch: frozenset(),
    ) -> None:
        self.segments: list[Segment] = []  # those that are planned
        self.steps_trained = 0
        self._next_segments, self._epochs, self._ends = next_segments, epochs, ends
        self._store, self._make, self._order = store, make, order
        self._keep_states, self._lock, self._check, self._watch, self._say = keep_states, lock, check, watch, say
        self._note_way, self._measures = note_way, measures
        self._way: str | None = None
        self._trainer: Trainer | None = None
        self._at = -1  # the trainer stands at the end of this segment; -1: at the start
        self._bests: dict[str, Record] = {}  # by loss
        self._recent: dict[str, Record] = {}  # the last one trained, which may not be written yet
        self._limited = self._announced = False
        self._held: dict[str, int] = {}  # states of this run that lie in the store: key to place in `segments`
        # One thread writes the last segment while the next is trained.
        self._writer = ThreadPoolExecutor(1, "trajectory-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "Chain":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()

    def follow(self, first: int = 1, last: int | None = None) -> Iterator[Reached]:
        """Go through the epochs from `first` to `last`, or to the end of the run; yields the end of each.

        Nothing is yielded where the store lacks what comes before `first`.

        Raises:
            Diverged: a loss isn't finite. What was stored before it stays.
            UserError: the store can't be written, or a segment that was trained again came out otherwise.
        """
        stored, metrics, self._announced = self._store.state_sizes(), None, False
        for epoch in range(1, (last or self._epochs) + 1):
            indices = self._plan_epoch(metrics, stored)
            if not indices:
                break
            if epoch < first:
                record = self._store.record(self.segments[-1].key)
                metrics = record.metrics if record else None
                if epoch == first - 1 and not record:
                    return
                continue
            reached = self._reach(indices)
            if not reached.trained:
                self._store.share_record(reached.record.key)
            metrics = reached.record.metrics
            for loss in LOSSES:
                if loss in metrics and (loss not in self._bests or metrics[loss] < self._bests[loss].metrics[loss]):
                    self._bests[loss] = reached.record
            yield reached
            reason = self._ends(metrics) if last is None else None
            if reason:
                self._say(f"the run ends after epoch {epoch} of {self._epochs}: {reason}")
                break
        self._finish_writing()
        if not self._announced and self.segments:
            self._say(f"epochs 1-{self.segments[-1].epoch} restored, nothing to train")

    def _plan_epoch(self, metrics: Metrics | None, stored: Container[str]) -> range:
        """Plan the next epoch; returns the places of its segments."""
        planned = self._next_segments(metrics)
        indices = range(len(self.segments), len(self.segments) + len(planned))
        self.segments += planned
        self._held |= {self.segments[index].key: index for index in indices if self.segments[index].key in stored}
        return indices

    def _reach(self, indices: range) -> Reached:
        """The end of an epoch, whose segments these are."""
        record, trained, lacking = None, False, list[int]()
        # From behind: segments before the last one that has a record needn't have any, as after a change of
        # checkpoint_every.
        for index in reversed(indices):
            record = self._recorded(self.segments[index])
            if record:
                break
            lacking.insert(0, index)
        for index in lacking:
            self._announce(self.segments[index])
            record, trained = self._train_lacking(index)
        assert record
        return Reached(record, trained)

    def weights(self, key: str, averaged: bool = False) -> bytes:
        """The network after the segment of this key, with the averaged weights if so, as safetensors; trained again if
        its state is gone.
        """
        self._finish_writing()
        index = next(index for index, segment in enumerate(self.segments) if segment.key == key)
        if not (self._trainer and self._at == index):
            stored = stored_network(self._store, key, averaged)
            if stored is not None:
                return stored
            self._bring_to(index)
        assert self._trainer
        return network_of(to_bytes(self._trainer.state()), averaged)

    def keep_checkpoint(self, identity: str, key: str) -> None:
        """Keep the state after the segment of this key, if it is stored, until MLflow has its network in a run; not
        where those that are kept so, as MLflow is out of reach, take too much of the free disk.
        """
        self._finish_writing()
        if self._store.checkpoints_size(identity) <= DISK_SHARE * self._store.free_bytes():
            self._store.keep_checkpoint(identity, key)

    def _announce(self, first: Segment) -> None:
        """Say once what is restored, where something is, when `first` is the first segment to be trained."""
        if self._announced:
            return
        self._announced = True
        whole = [f"epochs 1-{first.epoch - 1}"] if first.epoch > 1 else []
        within = [f"{first.first} steps of epoch {first.epoch}"] if first.first else []
        if whole or within:
            self._say(f"{' and '.join(whole + within)} restored, training {first.epoch}-{self._epochs}")

    def _train_lacking(self, index: int) -> tuple[Record, bool]:
        """The record of a segment that the store lacks, and whether it was trained here."""
        segment = self.segments[index]
        with ExitStack() as held:
            held.enter_context(self._lock(segment.key))
            record = self._recorded(segment)  # somebody else may have trained it while this process waited
            if record:
                return record, False
            self._bring_to(index - 1)
            return self._train(index, held.pop_all()), True

    def _recorded(self, segment: Segment) -> Record | None:
        """The record that the store has of a segment; where an epoch ends, one that has its metrics."""
        record = self._store.record(segment.key)
        return record if record and self._is_whole(record, segment) else None

    def _is_whole(self, record: Record, segment: Segment) -> bool:
        return not segment.ends_epoch or self._measures(segment.epoch) <= record.metrics.keys()

    def _bring_to(self, index: int) -> None:
        """Bring the trainer to the end of a segment: from the latest sound state before, or by training again."""
        if self._trainer is None or self._at > index:
            self._trainer, self._at = self._make(), -1
        self._finish_writing()
        for earlier in range(index, self._at, -1):
            state = self._store.state_of(self.segments[earlier].key)
            if state is not None:
                self._trainer.load(safetensors.torch.load(state))
                self._at = self._held[self.segments[earlier].key] = earlier
                break
        if self._at < index:
            gone, start = self.segments[index].epoch, self.segments[self._at + 1].epoch
            self._say(f"the state after epoch {gone} isn't stored any more: training again from epoch {start}")
        for lacking in range(self._at + 1, index + 1):
            self._train(lacking, ExitStack())

    def _train(self, index: int, held: ExitStack) -> Record:
        """Train a segment from the end of the one before; it is written while the next one is trained, then `held`
        closed.
        """
        with held:
            self._check()
            segment, trainer = self.segments[index], self._trainer
            assert trainer and self._at == index - 1
            before = self._store_record(index - 1) if segment.first else None
            self._trainer = None  # until the segment is done: one that is cut off leaves no state to go on from
            progress, metrics, seconds = self._take_steps(trainer, segment, before)
            self._trainer, self._at = trainer, index
            way = _way_of(trainer)
            if way and way != self._way:
                self._way = way
                self._note_way(way)
            self.steps_trained += len(segment.values)
            state = to_bytes(trainer.state())
            record = Record(
                key=segment.key,
                parent=segment.parent,
                epoch=segment.epoch,
                step=segment.steps_before + len(segment.values),
                steps=progress.steps,
                rows=progress.rows,
                loss_sum=progress.loss_sum,
                norm_sum=progress.norm_sum,
                metrics=metrics,
                state=digests.sha256(state),
                # Observed, not determined: when, how fast and in how much memory this machine did it.
                seconds=seconds + (before.seconds if before else 0.0),
                peak_memory=_peak_memory(),
                ended=time.time(),
            )
            known = self._known(record, segment)
            self._finish_writing()
            self._recent = {segment.key: record}
            self._writing = self._writer.submit(self._write, index, known or record, state, held.pop_all())
            return known or record

    def _take_steps(
        self, trainer: Trainer, segment: Segment, before: Record | None
    ) -> tuple[Progress, dict[str, float], float]:
        """How far into its epoch the steps of a segment bring the trainer, the epoch's metrics if it ends there, and
        the seconds that the steps took.
        """
        progress, size = Progress(), trainer.rows_per_step
        if before:
            progress = Progress(segment.first, before.rows, before.loss_sum, before.norm_sum)
        rows = self._order(segment.epoch)[segment.first * size :][: len(segment.values) * size]
        scheduled = segment.values.tolist()

        def watch(batches: Batches) -> Batches:
            return self._watch(batches, segment)

        start = time.perf_counter()
        try:
            progress = trainer.train(rows, scheduled, progress, segment.steps_before, segment.epoch, watch)
            seconds = time.perf_counter() - start
            if not segment.ends_epoch:
                return progress, {}, seconds
            metrics = {
                "train/loss": progress.loss_sum / progress.rows,
                "gradient_norm": progress.norm_sum / progress.steps,
                **trainer.end_epoch(segment.epoch, segment.steps_before + len(segment.values)),
                "lr": scheduled[-1][0],
            }
        except Diverged as diverged:
            diverged.epoch = segment.epoch
            raise
        return progress, metrics, seconds

    def _known(self, record: Record, segment: Segment) -> Record | None:
        """The record that the store has of the same segment, if it has one.

        Raises:
            UserError: that tells of another state.
        """
        known = self._store.record(record.key)
        if known and known.state != record.state:
            raise UserError(
                f"epoch {record.epoch}, trained again, came out otherwise than recorded in"
                f" {self._store.where_recorded(record.key)}: the network draws on something that its key doesn't"
                " know, such as time or its own random numbers",
                "if it was changed on purpose, delete that record; `surefoot store` lists runs",
            )
        return known if known and self._is_whole(known, segment) else None

    def _store_record(self, index: int) -> Record | None:
        key = self.segments[index].key
        return self._recent.get(key) or self._store.record(key)

    def _write(self, index: int, record: Record, state: bytes, held: ExitStack) -> None:
        with held:
            if not self._limited:
                self._limited = True
                self._limit_states(len(state))
            self._store.write(record, state)
            self._held[record.key] = index
            old = {key for key, place in self._held.items() if place <= index - self._keep_states}
            # The latest end of an epoch, too: a run may end with it while the next epoch is trained.
            ended = next((segment.key for segment in reversed(self.segments[: index + 1]) if segment.ends_epoch), "")
            old -= {ended, *(best.key for best in self._bests.values())}
            if old:
                old -= self._store.needed()
            for key in old:
                self._store.drop_state(key)
                del self._held[key]

    def _limit_states(self, size: int) -> None:
        """Keep no more states than fit into a share of the free disk, and say what they may come to
        where it is much.
        """
        wanted = min(
            self._keep_states, self._epochs * sum(segment.epoch == self.segments[-1].epoch for segment in self.segments)
        )
        room = max(1, int(DISK_SHARE * self._store.free_bytes() / size))
        each = f"states of {size / 1e6:.1f} MB each (train.keep_states)"
        if wanted > room:
            self._say(f"keeping {room}, not {wanted} {each}: more would take over a tenth of the free disk")
            self._keep_states = room
        elif wanted * size > 1e9:
            self._say(
                f"keeping up to {wanted} {each}, {wanted * size / 1e9:.1f} GB; `surefoot store --prune` frees them"
            )

    def _finish_writing(self) -> None:
        writing = self._writing
        if writing:
            wait([writing])  # a signal may come here: what is written then must still be waited for
            self._writing = None
            writing.result()


def _way_of(trainer: Trainer) -> str | None:
    """How steps are taken, where that isn't told by the params."""
    shards = getattr(trainer, "shards", 1)
    return f"eager: each minibatch is cut into {shards} shards" if shards > 1 else getattr(trainer, "way", None)


def _peak_memory() -> int:
    """The most memory that this process has had so far, in bytes: of the GPU's where it trains, else
    the resident size.
    """
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
