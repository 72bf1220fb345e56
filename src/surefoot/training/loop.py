"""The loop: minibatch SGD, written out in the order in which things happen."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.training.divergence import began, began_backward
from surefoot.training.minibatches import Order, Rows, minibatches
from surefoot.training.network import device_of, predict
from surefoot.training.numerics import seed_step
from surefoot.training.objective import CLASSIFICATION, Objective
from surefoot.training.weight_average import Average, has_batch_norm

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]


class Diverged(Exception):
    """The loss, or the norm of the gradient, became NaN or infinite, `step` steps into an epoch; None: in the
    validation after it.
    """

    def __init__(self, step: int | None, value: float, lr: float, began: str, what: str = "loss") -> None:
        where = f"at step {step}" if step else "in the validation after it"
        super().__init__(f"the {what} became {value} {where}, with lr {lr:g}; it began in {began}")
        self.epoch = 0  # set by who knows it


@dataclass(frozen=True)
class Progress:
    """How far into an epoch: steps taken, rows seen, the sum of their losses, each as it was just before its step, and
    that of the gradients' norms.
    """

    steps: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0


@dataclass(frozen=True)
class Step:
    """What goes into a step beside the optimizer.

    Args:
        accumulate: minibatches whose gradients make it up: the gradient is that of the loss of all their rows at once,
            with class weights, too. (A loss of the user's own is taken for a mean over rows.)
        clip_norm: gradients of a larger norm over all parameters are scaled down to it.
        clip_value: before that, each value is cut off at plus and minus this.
        precision: float32, or bfloat16 by autocast.
    """

    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    precision: str = "float32"


@dataclass
class Trainer:
    """A network with its optimizer and data. Its state is a function of the steps taken, and of nothing else.

    Args:
        model: the network, in training mode, on the device where it is trained.
        optimizer: of its parameters.
        training: the rows to train on.
        validation: the rows that `validate` looks at.
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
    step: Step = field(default_factory=Step)
    average: Average | None = None
    columns: Sequence[tuple[int, str]] = ((0, "lr"),)

    @property
    def rows_per_step(self) -> int:
        """Rows that a step takes, but for the last of an epoch."""
        return self.batch_size * self.step.accumulate

    def train(
        self,
        order: Tensor | Order,
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
        model, loss_function, share = self.model, self.objective.loss, self.objective.share
        optimizer, seed, settings = self.optimizer, self.seed, self.step
        average = self.average if self.average and self.average.each_step and epoch >= self.average.start else None
        puts = [_put(optimizer.param_groups[group], name) for group, name in self.columns]
        parameters = list(model.parameters())  # in this order, not that of groups, as it decides how their norms add up
        device = parameters[0].device
        autocast = torch.autocast(device.type, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
        batches = minibatches(self.training.inputs, self.training.targets, order, self.batch_size, device)
        for step, (parts, values) in enumerate(
            zip(_grouped(watch(batches), settings.accumulate), scheduled, strict=True), steps_before + 1
        ):
            seed_step(seed, step)
            for put, value in zip(puts, values, strict=True):
                put(value)
            for parameter in parameters:  # what optimizer.zero_grad() does, less 20 microseconds
                parameter.grad = None
            rows_of_step = sum(len(targets) for _, targets in parts)
            shares = share([targets for _, targets in parts]) if len(parts) > 1 else [rows_of_step]
            for (inputs, targets), counted in zip(parts, shares, strict=True):
                try:
                    with autocast:
                        loss = loss_function(model(inputs), targets)
                    value = loss.item()
                    if not math.isfinite(value):
                        raise Diverged(steps + 1, value, values[0], began(model, inputs, seed, step))
                    # The gradient of the loss of all rows of the step.
                    (loss if len(parts) == 1 else loss * (counted / rows_of_step)).backward()
                except (Diverged, UserError):
                    raise
                except (Exception, SystemExit) as error:
                    raise UserError(
                        f"train.model: the network fails in training, at step {steps + 1} of the epoch:"
                        f" {describe_error(error)}"
                    ) from None
                loss_sum += value * counted
            try:
                norm = _clip(parameters, settings)
                if not math.isfinite(norm):
                    raise Diverged(steps + 1, norm, values[0], began_backward(model), "norm of the gradient")
                optimizer.step()
            except (Exception, SystemExit) as error:
                if isinstance(error, Diverged):
                    raise
                raise UserError(
                    f"train.optimizer: {type(optimizer).__name__} fails at step {steps + 1} of the epoch:"
                    f" {describe_error(error)}"
                ) from None
            norm_sum += norm
            if average:
                average.update(model)
            rows += rows_of_step
            steps += 1
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
            outputs = predict(model, self.validation.inputs)
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
        """All that the next step depends on and that can't be computed again: `model.*`, `buffers.*`, `optimizer.*` and
        `average.*`.

        `buffers.*` are those that the network leaves out of its state_dict.

        Raises:
            UserError: the network keeps something else than tensors in its state_dict.
        """
        saved = self.model.state_dict()
        state = {f"model.{name}": value for name, value in saved.items()}
        state |= {f"buffers.{name}": buffer for name, buffer in self.model.named_buffers() if name not in saved}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise UserError(
                    f"train.model: {name} in the network's state_dict is a {type(value).__name__}; only tensors can be"
                    " stored and restored"
                )
        for index, values in self.optimizer.state_dict()["state"].items():
            # SparseAdam counts its steps by an int.
            kept = {
                name: torch.tensor(value) if isinstance(value, int) else value
                for name, value in values.items()
                if value is not None
            }
            state |= {f"optimizer.{index}.{name}": value for name, value in kept.items()}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise UserError(
                    f"train.optimizer: {name} is a {type(value).__name__}; an optimizer that keeps tensors is needed,"
                    " whose state can be restored"
                )
        return state | (self.average.state() if self.average else {})

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to a state."""
        parts: dict[str, dict[str, Tensor]] = {
            part: {} for part in ("model", "buffers", "optimizer", "average", "averaged")
        }
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        buffers = dict(self.model.named_buffers())
        for name, tensor in parts["buffers"].items():
            buffers[name].copy_(tensor)
        kept: dict[int, dict[str, Any]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, what = name.partition(".")
            kept.setdefault(int(index), {})[what] = (
                tensor.item() if tensor.dtype == torch.int64 and not tensor.ndim else tensor
            )
        self.optimizer.load_state_dict({"state": kept, "param_groups": self.optimizer.state_dict()["param_groups"]})
        if self.average:
            self.average.load(parts["average"], parts["averaged"]["count"])


def _grouped(batches: Batches, size: int) -> Iterator[Sequence[tuple[Tensor, Tensor]]]:
    """The minibatches of each step."""
    if size == 1:
        for batch in batches:
            yield (batch,)
        return
    several = iter(batches)
    while parts := list(islice(several, size)):
        yield parts


def _put(group: dict[str, Any], name: str) -> Callable[[float], None]:
    """What sets a scheduled value in a group of the optimizer's."""
    if name == "betas":
        return lambda value: group.__setitem__("betas", (value, *group["betas"][1:]))
    return lambda value: group.__setitem__(name, value)


def _clip(parameters: list[nn.Parameter], settings: Step) -> float:
    """Clip gradients as is asked for; returns their norm over all parameters, as it was before `clip_norm`."""
    if settings.clip_value:
        nn.utils.clip_grad_value_(parameters, settings.clip_value)
    if settings.clip_norm:
        return nn.utils.clip_grad_norm_(parameters, settings.clip_norm).item()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if any(gradient.is_sparse for gradient in gradients):  # of an embedding: torch has no norm of it
        gradients = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    # As torch.nn.utils.get_total_norm, at a third of its time.
    return math.hypot(*[norm.item() for norm in torch._foreach_norm(gradients)])
