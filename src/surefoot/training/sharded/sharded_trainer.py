"""The loop where minibatches are cut into shards, and the rows that each process reads for its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.data.order import OrderWindow, RowOrder, RowOrderAmong
from surefoot.training.loop import Batches, Progress, Trainer
from surefoot.training.minibatches import Rows, minibatches
from surefoot.training.network import device_of
from surefoot.training.sharded.sharded_step import ShardedMinibatch, ShardedStepper, shard_sizes
from surefoot.training.sharded.transport import Alone
from surefoot.training.sharded.tree import Transport, shards_of
from surefoot.training.step import Minibatch

Order = Tensor | RowOrder | RowOrderAmong


@dataclass
class ShardedTrainer(Trainer):
    """A trainer that cuts each minibatch into shards; its state doesn't depend on which process has which.

    Args:
        shards: into so many.
        transport: to the other processes.
    """

    shards: int = 1
    transport: Transport = field(default_factory=Alone)

    def train(
        self,
        order: Order,
        scheduled: Iterable[Sequence[float]],
        before: Progress,
        steps_before: int,
        epoch: int = 1,
        watch: Callable[[Batches], Batches] = lambda batches: batches,
    ) -> Progress:
        """As `Trainer.train`; `watch` sees `ShardedMinibatch`es."""
        steps, rows, loss_sum, norm_sum = before.steps, before.rows, before.loss_sum, before.norm_sum
        average = self.average if self.average and self.average.each_step and epoch >= self.average.start else None
        given = self.model, self.optimizer, self.objective, self.step, self.seed, self.columns
        stepper = ShardedStepper(*given, steps_before - before.steps, shards=self.shards, transport=self.transport)
        own = shards_of(self.transport.rank, self.transport.size, self.shards)
        cut: Any = sharded_minibatches(self.training, order, self.batch_size, self.shards, own, device_of(self.model))
        batches: Iterator[Any] = iter(watch(cut))
        of_steps = iter(lambda: list(islice(batches, self.step.accumulate)), [])
        for number, (parts, values) in enumerate(zip(of_steps, scheduled, strict=True), steps_before + 1):
            losses, norm = stepper.take_step(parts, number, values)
            if average:
                average.update(self.model)
            steps += 1
            rows += sum(map(len, parts))
            for loss in losses:
                loss_sum += loss
            norm_sum += norm
        return Progress(steps, rows, loss_sum, norm_sum)


def sharded_minibatches(
    data: Rows, order: Order, size: int, shards: int, own: range, device: torch.device
) -> Iterator[ShardedMinibatch]:
    """What a process has of the minibatches of an order: it reads all targets, and the inputs of its own shards."""
    if len(own) == shards:
        for inputs, targets in minibatches(data.inputs, data.targets, order, size, device):
            yield _cut(targets, inputs, targets, shards, own)
        return
    every = minibatches(data.targets, data.targets, order, size, device)
    whole = len(order) - len(order) % size
    for stretch, rows in ((order[:whole], size), (order[whole:], len(order) - whole)):
        if not len(stretch):
            continue
        sizes = shard_sizes(rows, shards)
        first, stop = sum(sizes[: own.start]), sum(sizes[: own.stop])
        part: Any = _part(stretch, rows, first, stop)
        mine: Iterable[Minibatch] = repeat((data.inputs[:0], data.targets[:0]))
        if first < stop:
            mine = minibatches(data.inputs, data.targets, part, stop - first, device)
        for (inputs, targets), (_, all_targets) in zip(mine, every, strict=False):
            yield _cut(all_targets, inputs, targets, shards, own)


def _cut(all_targets: Tensor, inputs: Tensor, targets: Tensor, shards: int, own: range) -> ShardedMinibatch:
    sizes = shard_sizes(len(all_targets), shards)[own.start : own.stop]
    return ShardedMinibatch(
        all_targets, dict(zip(own, zip(inputs.split(sizes), targets.split(sizes), strict=True), strict=True))
    )


def _part(order: Order, size: int, first: int, stop: int) -> "Tensor | _PartOfEach":
    if isinstance(order, Tensor):
        return order.view(-1, size)[:, first:stop].reshape(-1)
    return _PartOfEach(order, size, first, stop)


@dataclass(frozen=True)
class _PartOfEach:
    """From first to stop of each `size` rows of an order."""

    order: RowOrder | RowOrderAmong
    size: int
    first: int
    stop: int

    def windows(self) -> Iterator[OrderWindow]:
        """As `RowOrder.windows`."""
        at = 0
        for window in self.order.windows():
            place = np.arange(at, at + len(window.places)) % self.size
            at += len(window.places)
            yield window._replace(places=window.places[(place >= self.first) & (place < self.stop)])
