"""A trainer that takes most of its steps without Python."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.training import minibatches as gathering
from surefoot.training.loop import Batches, Progress, Trainer
from surefoot.training.minibatches import Stored, minibatches
from surefoot.training.network import device_of
from surefoot.training.numerics import seed_step
from surefoot.training.recorded.graph_source import Unrecordable
from surefoot.training.recorded.optimizer_numbers import Numbers, all_numbers, known_numbers, knows_count
from surefoot.training.recorded.program import Program, compile_program, executor_fault, restore, same_bits
from surefoot.training.recorded.python_state import PythonState, own_hooks
from surefoot.training.recorded.tape import Recording, Tape, record
from surefoot.training.step import _put

# So many steps of a kind are taken before one is recorded: it takes about their time, and may never be needed.
EAGER_FIRST = 100
# What steps read is looked at after so many, or so many seconds: then a value that isn't finite is found, the progress
# bar moves, and a signal is heard.
AT_ONCE = 256
SECONDS_AT_ONCE = 0.2
CHECKED = 2  # steps of a program that are also taken eagerly, and compared
TRIES = 3  # programs of a kind that turn out to be wrong before it is given up

# What a progress bar is shown for a minibatch that Python doesn't see.
NOTHING = torch.empty(0), torch.empty(0)

Order = Tensor | RowOrder | RowOrderAmong


@dataclass
class _Kind:
    """Steps that consist of the same operations, and how they are taken."""

    sizes: tuple[int, ...]  # rows of each minibatch
    reason: str | None = None  # why all are taken eagerly
    taken: int = 0
    tries: int = 0
    watched: bool = False  # whether what the network keeps in Python was seen not to change
    recordings: list[tuple[Recording, Numbers]] = field(default_factory=list)
    program: Program | None = None
    checked: int = 0  # steps of the program
    values: Sequence[float] = ()  # that were scheduled for the first of these
    varied: set[int] = field(default_factory=set)  # those of them that were seen to change
    at_once: int = 8  # steps that the program takes in one go

    def forget(self) -> None:
        """Begin anew with recording."""
        self.recordings, self.program, self.checked, self.values = [], None, 0, ()
        self.varied.clear()

    def new_values(self, row: Sequence[float]) -> set[int]:
        """Which scheduled values change for the first time since the program was made."""
        return {place for place, value in enumerate(row) if value != self.values[place]} - self.varied


@dataclass(frozen=True)
class _Stretch:
    """Some steps, one after the other: the arguments of `Trainer.train`."""

    order: Order
    scheduled: Sequence[Sequence[float]]
    before: Progress
    steps_before: int
    epoch: int


@dataclass
class RecordedTrainer(Trainer):
    """A trainer that records a step, and takes those like it by torch's executor, where that gives the same bits."""

    def __post_init__(self) -> None:
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._puts = [_put(self.optimizer.param_groups[group], name) for group, name in self.columns]

    @property
    def way(self) -> str | None:
        """How most steps are taken now; None while that isn't known."""
        known = [kind for kind in self._kinds.values() if kind.reason or kind.checked >= CHECKED]
        if not known:
            return None
        reason = max(known, key=lambda kind: kind.taken).reason
        return f"eager: {reason}" if reason else "recorded"

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to a state. Its tensors may be new ones, so what was recorded is forgotten."""
        super().load(state)
        for kind in self._kinds.values():
            kind.forget()

    def train(
        self,
        order: Order,
        scheduled: Iterable[Sequence[float]],
        before: Progress,
        steps_before: int,
        epoch: int = 1,
        watch: Callable[[Batches], Batches] = lambda batches: batches,
    ) -> Progress:
        """As `Trainer.train`; `watch` may see `NOTHING` in place of a minibatch."""
        values, size = list(scheduled), self.rows_per_step
        steps, full = -(-len(order) // size), len(order) // size
        if len(values) != steps:
            return super().train(order, values, before, steps_before, epoch, watch)
        # An optimizer may leave out what is multiplied by 0.
        zeros = [tuple(value == 0 for value in row) for row in values]
        tick, progress, at = _Ticker(watch), before, 0
        while at < steps:
            kind = self._kind(min(size, len(order) - at * size), zeros[at], epoch)
            end = min(full if at < full else steps, at + self._how_many(kind, values, at))
            end = next((later for later in range(at, end) if zeros[later] != zeros[at]), end)
            stretch = _Stretch(order[at * size : end * size], values[at:end], progress, steps_before + at, epoch)
            progress = self._take(kind, stretch, tick)
            kind.taken += end - at
            at = end
        tick.close()
        return progress

    def _kind(self, rows: int, zeros: tuple[bool, ...], epoch: int) -> _Kind:
        """The kind of a step on so many rows."""
        averaged = self.average is not None and self.average.each_step and epoch >= self.average.start
        key = rows, zeros, averaged
        if key not in self._kinds:
            sizes = tuple(min(self.batch_size, rows - first) for first in range(0, rows, self.batch_size))
            self._kinds[key] = _Kind(sizes, reason=self._refused())
        return self._kinds[key]

    def _refused(self) -> str | None:
        """Why no step can be recorded, as far as it is known before."""
        device = device_of(self.model).type
        if device != "cpu":
            return f"recorded steps are for the CPU, not {device}"
        if fault := executor_fault():
            return fault
        hooks = next(iter(own_hooks(self.model)), None)
        return hooks and f"a hook of {hooks} would not be called"

    def _how_many(self, kind: _Kind, values: Sequence[Sequence[float]], at: int) -> int:
        """How many steps from `at` are taken in one go, if all are of this kind."""
        if kind.reason:
            return len(values)
        if kind.taken < EAGER_FIRST:
            return EAGER_FIRST - kind.taken
        if kind.checked < CHECKED:
            return 1
        rows = enumerate(values[at : at + kind.at_once])
        return max(1, next((step for step, row in rows if kind.new_values(row)), kind.at_once))

    def _take(self, kind: _Kind, stretch: _Stretch, tick: "_Ticker") -> Progress:
        """Take the steps of a stretch, in the way that their kind is taken."""
        if kind.reason or kind.taken < EAGER_FIRST:
            return self._take_eagerly(stretch, tick)
        if not kind.watched:
            return self._look_at_python(kind, stretch, tick)
        if kind.program is None:
            self._record(kind, stretch)
            return self._take_eagerly(stretch, tick)
        if kind.checked < CHECKED or kind.new_values(stretch.scheduled[0]):
            return self._check(kind, kind.program, stretch, tick)
        return self._run(kind, kind.program, stretch, tick)

    def _take_eagerly(self, stretch: _Stretch, watch: Callable[[Batches], Batches]) -> Progress:
        return super().train(
            stretch.order, stretch.scheduled, stretch.before, stretch.steps_before, stretch.epoch, watch
        )

    def _look_at_python(self, kind: _Kind, stretch: _Stretch, tick: "_Ticker") -> Progress:
        """Take a step, and see whether it changes what the network, its loss or the optimizer keep in Python."""
        roots = self.model, self.objective.loss, {"optimizer": list(self.optimizer.state.values())}
        before = PythonState(*roots)
        progress = self._take_eagerly(stretch, tick)
        if changed := before.changed(PythonState(*roots)):
            kind.reason = f"a step changes {changed}"
        kind.watched = True
        return progress

    def _record(self, kind: _Kind, stretch: _Stretch) -> None:
        """Record a step, and undo it; make the program of two recordings."""
        shares: list[float] = []
        objective = self.objective

        def share(targets: Sequence[Tensor]) -> Sequence[float]:
            with tape_of[0].paused():
                shares[:] = objective.share(targets)
            return shares

        plain = Trainer(**{each.name: getattr(self, each.name) for each in fields(Trainer)})
        plain.objective = replace(objective, share=share)
        tape_of: list[Tape] = []

        def take_step(tape: Tape) -> None:
            tape_of.append(tape)
            plain.train(
                stretch.order, stretch.scheduled, stretch.before, stretch.steps_before, stretch.epoch, tape.inputs
            )

        recording = record(take_step, knows_count(self.optimizer))
        restore(recording.outside.values(), recording.before.values())
        if recording.reason or len(recording.counts) > 1:
            kind.reason = recording.reason or "the optimizer has taken another number of steps for some weights"
            return
        count = next(iter(recording.counts), None)
        numbers = all_numbers(self.optimizer.param_groups, count, shares, sum(kind.sizes))
        kind.recordings.append((recording, numbers))
        if len(kind.recordings) == 2:
            try:
                kind.program = compile_program(kind.recordings[0], kind.recordings[1], kind.sizes)
            except Unrecordable as error:
                kind.reason = str(error)
            kind.recordings, kind.values = [], stretch.scheduled[0]

    def _check(self, kind: _Kind, program: Program, stretch: _Stretch, tick: "_Ticker") -> Progress:
        """Take a step by a program, then, from the same state, eagerly: that counts."""
        before, mine, why = program.values(), None, "its program gives other bits"
        try:
            mine = self._run_once(program, kind.sizes, stretch)
        except RuntimeError as error:
            why = f"torch's executor fails: {error}"
        after, drawn = program.values(), torch.get_rng_state()
        program.restore(before)
        progress = self._take_eagerly(stretch, tick)
        if mine == progress and all(map(same_bits, after, program.state)) and same_bits(drawn, torch.get_rng_state()):
            kind.varied |= kind.new_values(stretch.scheduled[0])
            kind.checked += 1
        else:
            kind.forget()
            kind.tries += 1
            if kind.tries >= TRIES:
                kind.reason = why
        return progress

    def _run(self, kind: _Kind, program: Program, stretch: _Stretch, tick: "_Ticker") -> Progress:
        """Take steps by a program; where something isn't finite, or fails, all of them eagerly, which says what."""
        start, steps = time.perf_counter(), len(stretch.scheduled)
        before = program.values()
        try:
            progress = self._run_once(program, kind.sizes, stretch)
        except RuntimeError:
            progress = None
        if progress is None:
            program.restore(before)
            return self._take_eagerly(stretch, tick)
        for _ in tick([NOTHING] * (len(kind.sizes) * steps)):
            pass
        kind.at_once = max(1, min(AT_ONCE, int(SECONDS_AT_ONCE * steps / (time.perf_counter() - start))))
        return progress

    def _run_once(self, program: Program, sizes: Sequence[int], stretch: _Stretch) -> Progress | None:
        """Take steps by a program. Returns None where a loss or a norm isn't finite."""
        count = 0 if program.counter is None else int(program.counter.item())
        at, found, shares = 0, list[float](), list[Sequence[float]]()
        for inputs, targets, rows in self._rows(stretch.order, sum(sizes)):
            scheduled = stretch.scheduled[at : at + len(rows) // sum(sizes)]
            shares += self._shares(sizes, targets, rows)
            numbers = self._numbers(program, scheduled, count + at, shares[at:], sum(sizes))
            seeds = [
                self._seed(stretch.steps_before + step) if program.draws else 0
                for step in range(at + 1, at + len(numbers) + 1)
            ]
            found += program.run(inputs, targets, rows, numbers, seeds)
            at += len(numbers)
        if not program.draws:
            self._seed(stretch.steps_before + at)  # where eager steps would leave it
        return _further(stretch.before, found, shares, sum(sizes), self.step.clip_norm is not None)

    def _rows(self, order: Order, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Inputs and targets, and which of them the next steps take, of `size` rows each: all there are, where they lie
        in memory as the network gets them, else as many as are read and computed at once.
        """
        sources = self.training.inputs, self.training.targets
        lying = [some if isinstance(some, Tensor) else some._data for some in sources]
        if all(_as_they_lie(some) for some in sources):
            yield lying[0], lying[1], order if isinstance(order, Tensor) else torch.from_numpy(order.indices())
            return
        row_bytes = sum(some.nbytes // max(1, len(some)) for some in lying)
        chunk = size * max(1, gathering.CHUNK_BYTES // (size * max(1, row_bytes)))
        for inputs, targets in minibatches(*sources, order, chunk):
            yield inputs, targets, torch.arange(len(targets))

    def _shares(self, sizes: Sequence[int], targets: Tensor, rows: Tensor) -> list[Sequence[float]]:
        """For each step, how many of its rows the loss of each minibatch stands for."""
        if len(sizes) == 1:
            return [sizes] * (len(rows) // sizes[0])
        return [
            self.objective.share([targets[part] for part in step.split(self.batch_size)])
            for step in rows.split(sum(sizes))
        ]

    def _numbers(
        self,
        program: Program,
        scheduled: Sequence[Sequence[float]],
        count: int,
        shares: Sequence[Sequence[float]],
        size: int,
    ) -> list[list[float]]:
        """The numbers of each step, of which the optimizer had taken `count` before."""
        found: list[list[float]] = []
        constant = program.counter is None and len(shares[0]) == 1
        for step, (row, share) in enumerate(zip(scheduled, shares, strict=True)):
            if constant and step and row == scheduled[step - 1]:
                found.append(found[-1])
                continue
            for put, value in zip(self._puts, row, strict=True):
                put(value)
            groups = self.optimizer.param_groups
            found.append(known_numbers(program.numbers, groups, count + step + 1, share, size))
        return found

    def _seed(self, number: int) -> int:
        """Seed a step; returns what with."""
        seed_step(self.seed, number)
        return torch.default_generator.initial_seed()


def _as_they_lie(source: Tensor | Stored) -> bool:
    """Whether the network gets rows as they lie in memory."""
    if isinstance(source, Tensor):
        return source.dtype != torch.uint8
    return source._file is None and source._scale is None and source._data.dtype != torch.uint8


def _further(
    before: Progress, found: Sequence[float], shares: Sequence[Sequence[float]], rows: int, clipped: bool
) -> Progress | None:
    """How far steps bring an epoch, as `Stepper` and the loop add it up; None where what they read isn't finite.

    Args:
        before: the epoch before them.
        found: of each step the losses of its minibatches, and the norm of its gradient or those of each parameter.
        shares: of each step: how many rows each loss stands for.
        rows: of a step.
        clipped: whether there is one norm.
    """
    if not all(map(math.isfinite, found)):
        return None
    loss_sum, norm_sum, reads = before.loss_sum, before.norm_sum, len(found) // len(shares)
    for step, share in enumerate(shares):
        values = found[step * reads : (step + 1) * reads]
        for value, stands_for in zip(values, share, strict=False):
            loss_sum += value * stands_for
        norm = values[-1] if clipped else math.hypot(*values[len(share) :])
        if not math.isfinite(norm):
            return None
        norm_sum += norm
    return Progress(before.steps + len(shares), before.rows + rows * len(shares), loss_sum, norm_sum)


class _Ticker:
    """Lets a watcher see what goes by."""

    def __init__(self, watch: Callable[[Batches], Batches]) -> None:
        self._passing: deque[Any] = deque()
        self._seen = iter(watch(iter(self._passing.popleft, None)))

    def __call__(self, batches: Batches) -> Batches:
        for batch in batches:
            self._passing.append(batch)
            next(self._seen)
            yield batch

    def close(self) -> None:
        """Nothing more comes."""
        self._passing.append(None)
        for _ in self._seen:
            pass
