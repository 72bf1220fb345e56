"""The loop: minibatch SGD, written out in the order in which things happen."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.training.divergence import Diverged, began
from surefoot.training.minibatches import Rows, minibatches
from surefoot.training.network import device_of, outputs_of
from surefoot.training.objective import CLASSIFICATION, Objective
from surefoot.training.state import load_state, state_of
from surefoot.training.step import Minibatch, Stepper, StepSettings
from surefoot.training.weight_average import Average, has_batch_norm

Batches = Iterable[Minibatch]


@dataclass(frozen=True)
class Progress:
    """How far into an epoch: steps taken, rows seen, the sum of their losses, each as it was just before its step, and
    that of the gradients' norms.
    """

    steps: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0


@dataclass
class Trainer:
    """A network with its optimizer and data. Its state is a function of the steps taken, and of nothing else.

    Args:
        model: the network, in training mode, on the device where it is trained.
        optimizer: of its parameters.
        training: the rows to train on.
        validation: the rows that it is validated on after each epoch.
        batch_size: rows in a minibatch.
        seed: step k of the run draws its randomness from (seed, k).
        objective: the loss, and what is measured beside it.
        step: what goes into a step beside the optimizer.
        average: of the weights, or None.
        columns: what is scheduled, and comes with each step: the number of a group of the optimizer's, and its name
            there.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    training: Rows
    validation: Rows
    batch_size: int
    seed: int
    objective: Objective = CLASSIFICATION
    step: StepSettings = field(default_factory=StepSettings)
    average: Average | None = None
    columns: Sequence[tuple[int, str]] = ((0, "lr"),)

    @property
    def rows_per_step(self) -> int:
        """Rows that a step takes, but for the last of an epoch."""
        return self.batch_size * self.step.accumulate

    def train(
        self,
        order: Tensor | RowOrder | RowOrderAmong,
        scheduled: Iterable[Sequence[float]],
        before: Progress,
        steps_before: int,
        epoch: int = 1,
        watch: Callable[[Batches], Batches] = lambda batches: batches,
    ) -> Progress:
        """Take a step for each row of scheduled values, on the rows in `order`, a minibatch at a time.

        Args:
            order: the rows of these steps, as indices, or as a stretch of an epoch's order.
            scheduled: the values of `columns` for each step.
            before: the epoch so far.
            steps_before: steps of the run that were taken before these.
            epoch: the number of the epoch, which decides whether it is averaged.
            watch: sees the minibatches go by, for a progress bar.

        Raises:
            Diverged: at the first loss or gradient that isn't finite; that step isn't taken.
            UserError: the network or the optimizer raises something.
        """
        steps, rows, loss_sum, norm_sum = before.steps, before.rows, before.loss_sum, before.norm_sum
        average = self.average if self.average and self.average.each_step and epoch >= self.average.start else None
        stepper = Stepper(
            self.model, self.optimizer, self.objective, self.step, self.seed, self.columns, steps_before - before.steps
        )
        data, device = self.training, device_of(self.model)
        batches = watch(minibatches(data.inputs, data.targets, order, self.batch_size, device))
        steps_ahead = zip(_grouped(batches, self.step.accumulate), scheduled, strict=True)
        for number, (parts, values) in enumerate(steps_ahead, steps_before + 1):
            losses, norm = stepper.take_step(parts, number, values)
            if average:
                average.update(self.model)
            steps += 1
            rows += sum(len(targets) for _, targets in parts)
            for loss in losses:
                loss_sum += loss
            norm_sum += norm
        return Progress(steps, rows, loss_sum, norm_sum)

    def end_epoch(self, epoch: int, steps: int) -> dict[str, float]:
        """What comes after the last step of an epoch: the average is brought up to date. Returns the metrics of the
        validation.

        Args:
            epoch: its number.
            steps: of the run so far.

        Raises:
            Diverged: a loss isn't finite.
            UserError: the network raises something.
        """
        metrics = self._validate(self.model, "validation/")
        average = self.average
        if average and epoch >= average.start:
            if not average.each_step:
                average.update(self.model)
            if has_batch_norm(self.model):
                rows = len(self.training.targets)
                # A single row at the end, which `batch.drop_last` may keep from training, has no variance.
                every = torch.arange(rows - (rows > self.batch_size and rows % self.batch_size == 1))
                device = device_of(self.model)
                average.measure_batch_norm(
                    minibatches(self.training.inputs, self.training.targets, every, self.batch_size, device),
                    self.seed,
                    steps,
                )
            metrics |= self._validate(average.model, "validation/average_")
        return metrics

    def _validate(self, model: nn.Module, prefix: str) -> dict[str, float]:
        """The loss on the validation rows, and what the task measures beside it."""
        device = device_of(model)
        targets = self.validation.targets[:].to(device)
        try:
            outputs = outputs_of(model, self.validation.inputs)
        except (Exception, SystemExit) as error:
            raise UserError(f"train.model: the network fails on the validation rows: {describe_error(error)}") from None
        loss = self.objective.loss(outputs, targets).item()
        if not math.isfinite(loss):
            lr = self.optimizer.param_groups[0]["lr"]
            model.eval()
            raise Diverged(
                None, loss, lr, began(model, self.validation.inputs[: self.batch_size].to(device), self.seed, 0)
            )
        return {f"{prefix}loss": loss} | {
            f"{prefix}{name}": value for name, value in self.objective.measure(outputs, targets).items()
        }

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on and that can't be computed again (`state_of`)."""
        return state_of(self.model, self.optimizer, self.average)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to a state."""
        load_state(state, self.model, self.optimizer, self.average)


def _grouped(batches: Batches, size: int) -> Iterator[Sequence[Minibatch]]:
    """The minibatches of each step."""
    if size == 1:
        for batch in batches:
            yield (batch,)
        return
    several = iter(batches)
    while parts := list(islice(several, size)):
        yield parts
