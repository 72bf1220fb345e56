"""Some steps, one after the other, taken by a program."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.training import minibatches as gathering
from surefoot.training.loop import Progress, Trainer
from surefoot.training.minibatches import Stored, minibatches
from surefoot.training.network import device_of
from surefoot.training.numerics import seed_step
from surefoot.training.recorded.optimizer_numbers import known_numbers
from surefoot.training.recorded.program import Program
from surefoot.training.step import _put

MOST_ON_GPU = 512 << 20  # bytes of inputs that are brought there once, and stay
CHUNK_ON_GPU = 64 << 20  # of others that are brought there at once

Order = Tensor | RowOrder | RowOrderAmong


@dataclass(frozen=True)
class Stretch:
    """Some steps of one epoch: the arguments of `Trainer.train`."""

    order: Order
    scheduled: Sequence[Sequence[float]]
    before: Progress
    steps_before: int
    epoch: int


def run_stretch(trainer: Trainer, program: Program, sizes: Sequence[int], stretch: Stretch) -> Progress | None:
    """Take steps by a program.

    Args:
        trainer: the trainer that takes them.
        program: its program for such a step.
        sizes: rows of each minibatch of a step.
        stretch: the steps.

    Returns how far the epoch is then; None where a loss or a norm isn't finite, and the trainer's state is useless.

    Raises:
        RuntimeError: an operation fails; the trainer's state is useless.
    """
    counter, draws = program.step.counter, program.step.draws
    count = 0 if counter is None else int(counter.item())
    at, found, shares = 0, list[float](), list[Sequence[float]]()
    for inputs, targets, rows in _sources(trainer, stretch.order, sum(sizes)):
        here = range(at, at + len(rows) // sum(sizes))
        shares += _shares(trainer, sizes, targets, rows)
        steps = [(count + step + 1, stretch.scheduled[step], shares[step]) for step in here]
        numbers = _numbers(trainer, program, sum(sizes), steps)
        seeds = [_seed(trainer, stretch.steps_before + step + 1) if draws else 0 for step in here]
        found += program.run(inputs, targets, rows, numbers, seeds)
        at = here.stop
    if not draws:
        _seed(trainer, stretch.steps_before + at)  # where eager steps leave the generator
    return _further(stretch.before, found, shares, sum(sizes), trainer.step.clip_norm is not None)


def _sources(trainer: Trainer, order: Order, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs and targets, and which of them the next steps take, of `size` rows each: all there are, where they lie in
    memory as the network gets them, and have room on its device; else as many as are read and computed at once.
    """
    arrays = trainer.training.inputs, trainer.training.targets
    on_gpu = device_of(trainer.model).type != "cpu"
    inputs, targets = (some if isinstance(some, Tensor) else some._data for some in arrays)
    if all(map(_as_they_lie, arrays)) and not (on_gpu and inputs.nbytes > MOST_ON_GPU):
        yield inputs, targets, order if isinstance(order, Tensor) else torch.from_numpy(order.indices())
        return
    row_bytes = inputs[:1].nbytes + targets[:1].nbytes
    chunk_bytes = CHUNK_ON_GPU if on_gpu else gathering.CHUNK_BYTES
    chunk = size * max(1, chunk_bytes // (size * max(1, row_bytes)))
    for some_inputs, some_targets in minibatches(*arrays, order, chunk):
        yield some_inputs, some_targets, torch.arange(len(some_targets))


def _as_they_lie(array: Tensor | Stored) -> bool:
    """Whether the network gets rows as they lie in memory."""
    if isinstance(array, Tensor):
        return array.dtype != torch.uint8
    return array._file is None and array._scale is None and array._data.dtype != torch.uint8


def _shares(trainer: Trainer, sizes: Sequence[int], targets: Tensor, rows: Tensor) -> list[Sequence[float]]:
    """For each step, how many of its rows the loss of each minibatch stands for."""
    if len(sizes) == 1:
        return [sizes] * (len(rows) // sizes[0])
    return [
        trainer.objective.share([targets[part] for part in step.split(trainer.batch_size)])
        for step in rows.split(sum(sizes))
    ]


def _numbers(
    trainer: Trainer, program: Program, rows: int, steps: Sequence[tuple[int, Sequence[float], Sequence[float]]]
) -> list[list[float]]:
    """The numbers of each step, of so many rows: by how many the optimizer has taken with it, what is scheduled, and
    its shares.

    What is scheduled for the last one stays set, as eager steps leave it.
    """
    groups = trainer.optimizer.param_groups
    puts = [_put(groups[group], name) for group, name in trainer.columns]
    counts, found, last = program.step.counter is not None, list[list[float]](), None
    for count, values, shares in steps:
        if counts or len(shares) > 1 or values != last:
            last = values
            for put, value in zip(puts, values, strict=True):
                put(value)
            found.append(known_numbers(program.step.numbers, groups, count, shares, rows))
        else:
            found.append(found[-1])
    return found


def _seed(trainer: Trainer, number: int) -> int:
    """Seed a step; returns what with."""
    seed_step(trainer.seed, number)
    return torch.default_generator.initial_seed()


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
