"""A trainer that takes most of its steps without Python."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from surefoot.base.errors import UserError
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Batches, Progress, Trainer
from surefoot.training.network import device_of
from surefoot.training.recorded.bits import restore, same_bits
from surefoot.training.recorded.executor import executor_fault, first_line
from surefoot.training.recorded.merging import Unrecordable, merge
from surefoot.training.recorded.optimizer_numbers import all_numbers, knows_count
from surefoot.training.recorded.program import Program, make_program
from surefoot.training.recorded.python_state import PythonState, own_hooks
from surefoot.training.recorded.step_kind import CHECKED, StepKind
from surefoot.training.recorded.stretch import Order, Stretch, run_stretch
from surefoot.training.recorded.tape import Tape, record

# So many steps of a kind are taken before one is recorded, which takes about their time: there may not be many more.
EAGER_FIRST = 20
EAGER_FIRST_ALONE = 200  # where a call has one step of a kind, as the last minibatch of an epoch: little is gained
# A network of more bytes: Python is a small part of its step, and to keep a copy of all, to go back to, is a large one.
MOST_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
CHECKED_AGAIN = 100  # after so many steps of a program the last one in a call is checked again

# What a progress bar is shown for a minibatch that Python doesn't see.
NOTHING = torch.empty(0), torch.empty(0)


@dataclass(frozen=True)
class _Kept:
    """Where steps that aren't checked began in a call, to go back to if the check at its end fails."""

    at: int
    progress: Progress
    state: dict[str, Tensor]  # as `Trainer.state`
    others: list[tuple[list[Tensor], list[Tensor]]]  # tensors of each program, which needn't be in it, and their values


@dataclass
class RecordedTrainer(Trainer):
    """A trainer that records a step, and takes those like it by torch's executor, where that gives the same bits."""

    def __post_init__(self) -> None:
        self._kinds: dict[tuple[object, ...], StepKind] = {}
        self._validated = False
        self._reason: str | None = None  # why no step can be recorded any more

    @property
    def way(self) -> str | None:
        """How most steps are taken now; None while that isn't known."""
        known = [kind for kind in self._kinds.values() if kind.reason or kind.checked >= CHECKED]
        if not known:
            return self._reason and f"eager: {self._reason}"
        reason = max(known, key=lambda kind: kind.taken).reason
        return f"eager: {reason}" if reason else "recorded"

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to a state. Its tensors may be new ones, so what was recorded and seen is forgotten."""
        super().load(state)
        self._kinds.clear()

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
        groups = [(at < full, row) for at, row in enumerate(zeros)]
        counts, last = Counter(groups), {group: at for at, group in enumerate(groups)}
        tick, progress, at = _Ticker(watch), before, 0
        kept: _Kept | None = None
        while at < steps:
            kind = self._kind(min(size, len(order) - at * size), zeros[at], epoch)
            kind.eager_first = EAGER_FIRST if counts[groups[at]] > 1 else EAGER_FIRST_ALONE
            end = min(full if at < full else steps, at + self._how_many(kind, values, at))
            end = next((later for later in range(at, end) if zeros[later] != zeros[at]), end)
            if kind.trusted and end - 1 == last[groups[at]] and kind.unchecked + end - at > CHECKED_AGAIN:
                end = max(end - 1, at + 1)  # that is checked by itself
            if kept is None and kind.trusted and kind.unchecked + counts[groups[at]] > CHECKED_AGAIN:
                kept = self._keep(at, progress)
            stretch = Stretch(order[at * size : end * size], values[at:end], progress, steps_before + at, epoch)
            is_due = kind.trusted and at == last[groups[at]] and kind.unchecked >= CHECKED_AGAIN
            progress = self._take(kind, stretch, tick, is_due)
            if kind.suspect and kept:
                self._go_back(kept, steps_before + at + 1)
                stretch = Stretch(
                    order[kept.at * size :], values[kept.at :], kept.progress, steps_before + kept.at, epoch
                )
                progress, end = self._take_eagerly(stretch, lambda batches: batches), steps
            kind.taken += end - at
            at = end
        tick.close()
        return progress

    def end_epoch(self, epoch: int, steps: int) -> dict[str, float]:
        """As `Trainer.end_epoch`; what the first validation changes in Python no program would know of."""
        if self._validated:
            return super().end_epoch(epoch, steps)
        self._validated, roots = True, self._python_roots()
        before = PythonState(*roots)
        metrics = super().end_epoch(epoch, steps)
        if changed := before.changed(PythonState(*roots)):
            self._reason = self._reason or f"validation changes {changed}"
        for kind in self._kinds.values():
            kind.reason = kind.reason or self._refused()
        return metrics

    def _python_roots(self) -> tuple[Any, ...]:
        """From where all is reached that the network, its loss and the optimizer keep in Python."""
        return self.model, self.objective.loss, {"optimizer": list(self.optimizer.state.values())}

    def _kind(self, rows: int, zeros: tuple[bool, ...], epoch: int) -> StepKind:
        """The kind of a step on so many rows."""
        averaged = self.average is not None and self.average.each_step and epoch >= self.average.start
        key = rows, zeros, averaged
        if key not in self._kinds:
            sizes = tuple(min(self.batch_size, rows - first) for first in range(0, rows, self.batch_size))
            self._kinds[key] = StepKind(sizes, reason=self._refused())
        return self._kinds[key]

    def _refused(self) -> str | None:
        """Why no step can be recorded, as far as it is known before."""
        device = device_of(self.model).type
        if device not in MOST_BYTES:
            return f"recorded steps are for the CPU and for CUDA, not {device}"
        if device == "cpu" and (fault := executor_fault()):
            return fault
        size = sum(
            tensor.numel() * tensor.element_size() for tensor in (*self.model.parameters(), *self.model.buffers())
        )
        if size > MOST_BYTES[device]:
            return f"the network has {size / 1e6:,.0f} MB, beside whose arithmetic Python takes no time"
        if self._reason:
            return self._reason
        hooks = next(iter(own_hooks(self.model)), None)
        return hooks and f"a hook of {hooks} would not be called"

    def _how_many(self, kind: StepKind, values: Sequence[Sequence[float]], at: int) -> int:
        """How many steps from `at` are taken in one go, if all are of this kind."""
        if kind.reason:
            return len(values)
        if kind.taken < kind.eager_first:
            return kind.eager_first - kind.taken
        if kind.checked < CHECKED:
            return 1
        rows = enumerate(values[at : at + kind.at_once])
        return max(1, next((step for step, row in rows if kind.new_values(row)), kind.at_once))

    def _keep(self, at: int, progress: Progress) -> _Kept:
        """What to go back to from later steps of this call."""
        programs = [kind.program for kind in self._kinds.values() if kind.program]
        state = {name: tensor.clone() for name, tensor in self.state().items()}
        return _Kept(at, progress, state, [(program.step.state, program.values()) for program in programs])

    def _go_back(self, kept: _Kept, step: int) -> None:
        """Undo the steps of this call that weren't checked; all that come are eager."""
        for tensors, values in kept.others:
            restore(tensors, values)
        self._reason = f"its program gives other bits in step {step:,}"
        self.load(kept.state)

    def _take(self, kind: StepKind, stretch: Stretch, tick: "_Ticker", is_due: bool) -> Progress:
        """Take the steps of a stretch, in the way that their kind is taken.

        Args:
            kind: theirs.
            stretch: one step, where it is due to be checked.
            tick: sees the minibatches.
            is_due: whether it is.
        """
        kind.suspect = False
        if kind.reason or kind.taken < kind.eager_first:
            return self._take_eagerly(stretch, tick)
        if not kind.watched:
            return self._look_at_python(kind, stretch, tick)
        if kind.program is None:
            self._record(kind, stretch)
            return self._take_eagerly(stretch, tick)
        if is_due or kind.checked < CHECKED or kind.new_values(stretch.scheduled[0]):
            return self._check(kind, kind.program, stretch, tick)
        return self._run(kind, kind.program, stretch, tick)

    def _take_eagerly(self, stretch: Stretch, watch: Callable[[Batches], Batches]) -> Progress:
        return super().train(
            stretch.order, stretch.scheduled, stretch.before, stretch.steps_before, stretch.epoch, watch
        )

    def _look_at_python(self, kind: StepKind, stretch: Stretch, tick: "_Ticker") -> Progress:
        """Take a step, and see whether it changes what is kept in Python."""
        kind.watched, roots = True, self._python_roots()
        before = PythonState(*roots)
        progress = self._take_eagerly(stretch, tick)
        changed = before.changed(PythonState(*roots))
        if before.too_much:
            kind.reason = "the network keeps more in Python than can be looked at"
        elif changed:
            kind.reason = f"a step changes {changed}"
        return progress

    def _record(self, kind: StepKind, stretch: Stretch) -> None:
        """Record a step, and undo it; make the program of two recordings.

        What is scheduled, and the shares of minibatches, are made up: each is another number in each recording, so that
        none is taken for another, or for a constant, that is the same for a while.
        """
        shares: list[float] = []
        number = len(kind.recordings)

        def take_step(tape: Tape) -> None:
            def share(targets: Sequence[Tensor]) -> Sequence[float]:
                shares[:] = [sum(kind.sizes) * factor for factor in _factors(len(targets), number)]
                return shares

            plain = Trainer(**{each.name: getattr(self, each.name) for each in fields(Trainer)})
            plain.objective = replace(self.objective, share=share)
            (row,) = stretch.scheduled
            scheduled = [[value * factor for value, factor in zip(row, _factors(len(row), number), strict=True)]]
            plain.train(stretch.order, scheduled, stretch.before, stretch.steps_before, stretch.epoch, tape.inputs)

        with _optimizer_kept(self.optimizer):
            recording = record(take_step, knows_count(self.optimizer))
        # From behind: of two that share memory the one seen first was noted before the step changed it.
        restore(reversed(recording.outside.values()), reversed(recording.before.values()))
        if recording.reason or len(recording.counts) > 1:
            kind.reason = recording.reason or "the optimizer has taken another number of steps for some weights"
            return
        count = next(iter(recording.counts), None)
        numbers = all_numbers(self.optimizer.param_groups, self.columns, count, shares, sum(kind.sizes))
        kind.recordings.append((recording, numbers))
        if len(kind.recordings) == 2:
            try:
                step = merge(kind.recordings[0], kind.recordings[1], kind.sizes)
                kind.program = make_program(step, device_of(self.model).type)
            except Unrecordable as error:
                kind.reason = str(error)
            kind.recordings, kind.values = [], stretch.scheduled[0]

    def _check(self, kind: StepKind, program: Program, stretch: Stretch, tick: "_Ticker") -> Progress:
        """Take a step by a program, then, from the same state, eagerly: that counts."""
        before, mine, why = program.values(), None, "its program gives other bits"
        start = time.perf_counter()
        try:
            mine = run_stretch(self, program, kind.sizes, stretch)
            if kind.checked < CHECKED:  # later more is known than how long one step took
                kind.took(1, start)
        except RuntimeError as error:
            why = f"its program fails: {first_line(error)}"
        after, drawn = program.values(), _drawn()
        program.restore(before)
        try:
            progress = self._take_eagerly(stretch, tick)
        except (Diverged, UserError):
            if mine is None or kind.unchecked < CHECKED_AGAIN:
                raise
            kind.suspect = True  # the program saw nothing: it may have happened in a step before, to go back to
            return stretch.before
        if mine == progress and all(map(same_bits, after, program.step.state)) and drawn == _drawn():
            kind.varied |= kind.new_values(stretch.scheduled[0])
            kind.checked += 1
            kind.unchecked = 0
        else:
            kind.suspect = kind.unchecked > 0
            kind.forget()
            kind.failed(why)
        return progress

    def _run(self, kind: StepKind, program: Program, stretch: Stretch, tick: "_Ticker") -> Progress:
        """Take steps by a program; where something isn't finite, or fails, all of them eagerly, which says what."""
        start, steps = time.perf_counter(), len(stretch.scheduled)
        before, progress, why = program.values(), None, "its program gives other bits"
        try:
            progress = run_stretch(self, program, kind.sizes, stretch)
        except RuntimeError as error:
            why = f"its program fails: {first_line(error)}"
        if progress is None:
            program.restore(before)
            progress = self._take_eagerly(stretch, tick)
            kind.failed(why)  # as nothing was wrong with these steps
            return progress
        kind.unchecked += steps
        for _ in tick([NOTHING] * (len(kind.sizes) * steps)):
            pass
        kind.took(steps, start)
        return progress


def _factors(count: int, recording: int) -> list[float]:
    """Numbers between 1/2 and 1; no two of them have the same ratio in two recordings."""
    return [1 - (place + 1) * (recording + 1) / (4 * (count + 1)) for place in range(count)]


def _drawn() -> list[int]:
    """How far random numbers were drawn."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])]
    return [number for state in states for number in state.tolist()]


@contextmanager
def _optimizer_kept(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Takes away what a step adds to an optimizer's state: the first gradient of a weight does."""
    before = {parameter: dict(values) for parameter, values in optimizer.state.items()}
    yield
    for parameter, values in list(optimizer.state.items()):
        if parameter not in before:
            del optimizer.state[parameter]
        elif values.keys() != before[parameter].keys():
            values.clear()
            values.update(before[parameter])


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
