"""The loop: minibatch SGD, written out in the order in which things happen."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surefoot.training.model import accuracy, predict
from surefoot.training.numerics import seed_step

CHUNK_BYTES = 1 << 20

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]


class Diverged(Exception):
    """The loss became NaN or infinite: in `epoch` at `step` (from 1), or after its last step where step is None."""

    def __init__(self, epoch: int, step: int | None, loss: float, lr: float) -> None:
        where = f"step {step}" if step else "the validation after it"
        super().__init__(f"the loss became {loss} in epoch {epoch} at {where}, with lr {lr}")


@dataclass(frozen=True)
class Rows:
    """A data set in memory or memory-mapped: inputs (rows, *shape), class indices (rows,)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. `seconds` are those of training alone, without validation."""

    number: int
    metrics: dict[str, float]
    rows: int
    seconds: float


def epochs(
    model: nn.Module,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    training: Rows,
    validation: Rows,
    *,
    number: int,
    batch_size: int,
    seed: int,
    order: Callable[[int], Tensor],
    watch: Callable[[Batches, int], Batches] = lambda batches, epoch: batches,
) -> Iterator[Epoch]:
    """Train for `number` epochs, each yielded as it ends; the network then holds the weights after it.

    `order` gives the rows of an epoch, in the order in which they are trained on; `watch` sees the minibatches of
    an epoch go by, for a progress bar.

    Raises:
        Diverged: the loss is no longer finite.
    """
    steps = 0
    for epoch in range(1, number + 1):
        rows = order(epoch)
        lr = optimizer.param_groups[0]["lr"]
        start = time.perf_counter()
        batches = minibatches(training.inputs, training.targets, rows, batch_size)
        loss, bad_step = train_epoch(model, loss_function, optimizer, watch(batches, epoch), seed, steps)
        seconds = time.perf_counter() - start
        if bad_step:
            raise Diverged(epoch, bad_step, loss, lr)
        steps += -(-len(rows) // batch_size)
        logits = predict(model, validation.inputs)
        metrics = {
            "train/loss": loss,
            "validation/loss": loss_function(logits, validation.targets).item(),
            "validation/accuracy": accuracy(logits, validation.targets),
            "lr": lr,
        }
        if not math.isfinite(metrics["validation/loss"]):
            raise Diverged(epoch, None, metrics["validation/loss"], lr)
        yield Epoch(epoch, metrics, len(rows), seconds)


def train_epoch(
    model: nn.Module, loss_function: Loss, optimizer: torch.optim.Optimizer, batches: Batches, seed: int, steps_before: int
) -> tuple[float, int | None]:
    """Take one step for each minibatch. Step k of the run (`steps_before` came earlier) draws its randomness from (seed, k).

    Returns the mean loss over the rows, each as it was just before its step. If a loss isn't finite, stops before that
    step and returns the loss and the number of the step (from 1).
    """
    total, rows = 0.0, 0
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step, (inputs, targets) in enumerate(batches, 1):
        seed_step(seed, steps_before + step)
        for parameter in parameters:  # optimizer.zero_grad() does the same, but takes longer
            parameter.grad = None
        loss = loss_function(model(inputs), targets)
        value = loss.item()
        if not math.isfinite(value):
            return value, step
        loss.backward()
        optimizer.step()
        total += value * len(targets)
        rows += len(targets)
    return total / rows, None


def minibatches(inputs: Tensor, targets: Tensor, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows in the given order, `size` at a time; the last minibatch may be smaller.

    Rows are gathered several minibatches at once, which costs less than one by one; a thread that gathers ahead
    gained nothing, measured where the other core was busy.
    """
    row_bytes = inputs[0].nbytes + targets[0].nbytes
    for rows in order.split(size * max(1, CHUNK_BYTES // (size * row_bytes))):
        yield from zip(inputs.index_select(0, rows).split(size), targets.index_select(0, rows).split(size), strict=True)
