"""The loop: minibatch SGD, written out in the order in which things happen."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import UserError
from surefoot.imports import where
from surefoot.training.model import predict
from surefoot.training.numerics import seed_step
from surefoot.training.objective import CLASSIFICATION, Objective
from surefoot.training.rows import Order, Rows, minibatches

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]


class Diverged(Exception):
    """The loss became NaN or infinite, `step` steps into an epoch; None: in the validation after it."""

    def __init__(self, step: int | None, loss: float, lr: float) -> None:
        where = f"at step {step}" if step else "in the validation after it"
        super().__init__(f"the loss became {loss} {where}, with lr {lr:g}")
        self.epoch = 0  # set by who knows it


@dataclass(frozen=True)
class Progress:
    """How far into an epoch: steps taken, rows seen, and the sum of their losses, each as it was just before its step."""

    steps: int = 0
    rows: int = 0
    loss_sum: float = 0.0


class Trainer:
    """A network with its optimizer and data. Its state is a function of the steps taken, and of nothing else.

    Args:
        model: the network, in training mode.
        optimizer: the arguments of `torch.optim.SGD`, but for lr, which comes with each step.
        training: the rows to train on.
        validation: the rows that `validate` looks at.
        batch_size: rows in a minibatch.
        seed: step k of the run draws its randomness from (seed, k).
        objective: the loss, and what is measured beside it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: dict[str, Any],
        training: Rows,
        validation: Rows,
        batch_size: int,
        seed: int,
        objective: Objective = CLASSIFICATION,
    ) -> None:
        self.model = model
        self.loss_function: Loss = objective.loss
        self.measure = objective.measure
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, **optimizer)
        self.training = training
        self.validation = validation
        self.batch_size = batch_size
        self.seed = seed

    def train(
        self, order: Tensor | Order, lrs: Iterable[float], before: Progress, steps_before: int, watch: Callable[[Batches], Batches] = lambda batches: batches
    ) -> Progress:
        """Take a step for each learning rate, on the rows in `order`, a minibatch at a time.

        Args:
            order: the rows of these steps, as indices, or as a stretch of an epoch's order.
            lrs: the learning rate of each step.
            before: the epoch so far.
            steps_before: steps of the run that were taken before these.
            watch: sees the minibatches go by, for a progress bar.

        Raises:
            Diverged: at the first loss that isn't finite; that step isn't taken.
            UserError: the network raises something.
        """
        steps, rows, loss_sum = before.steps, before.rows, before.loss_sum
        model, loss_function, optimizer, seed = self.model, self.loss_function, self.optimizer, self.seed
        groups = optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        batches = minibatches(self.training.inputs, self.training.targets, order, self.batch_size)
        for step, ((inputs, targets), lr) in enumerate(zip(watch(batches), lrs, strict=True), steps_before + 1):
            seed_step(seed, step)
            for group in groups:
                group["lr"] = lr
            for parameter in parameters:  # what optimizer.zero_grad() does, less 20 microseconds
                parameter.grad = None
            try:
                loss = loss_function(model(inputs), targets)
                value = loss.item()
                if not math.isfinite(value):
                    raise Diverged(steps + 1, value, lr)
                loss.backward()
            except (Diverged, UserError):
                raise
            except (Exception, SystemExit) as error:
                raise UserError(f"train.model: the network fails in training, at step {steps + 1} of the epoch: {where(error)}") from None
            optimizer.step()
            loss_sum += value * len(targets)
            rows += len(targets)
            steps += 1
        return Progress(steps, rows, loss_sum)

    def validate(self) -> dict[str, float]:
        """The loss on the validation rows, and what the task measures beside it.

        Raises:
            Diverged: the loss isn't finite.
            UserError: the network raises something.
        """
        targets = self.validation.targets[:]
        try:
            outputs = predict(self.model, self.validation.inputs)
        except (Exception, SystemExit) as error:
            raise UserError(f"train.model: the network fails on the validation rows: {where(error)}") from None
        loss = self.loss_function(outputs, targets).item()
        if not math.isfinite(loss):
            raise Diverged(None, loss, self.optimizer.param_groups[0]["lr"])
        measured = self.measure(outputs, targets)
        return {"validation/loss": loss, **{f"validation/{name}": value for name, value in measured.items()}}

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on and that can't be computed again: `model.*`, `buffers.*` and `optimizer.*`.

        `buffers.*` are those that the network leaves out of its state_dict.

        Raises:
            UserError: the network keeps something else than tensors in its state_dict.
        """
        saved = self.model.state_dict()
        state = {f"model.{name}": value for name, value in saved.items()}
        state |= {f"buffers.{name}": buffer for name, buffer in self.model.named_buffers() if name not in saved}
        for index, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise UserError(f"train.model: {name} in the network's state_dict is a {type(value).__name__}; only tensors can be stored and restored")
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to a state."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "buffers": {}, "optimizer": {}}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        buffers = dict(self.model.named_buffers())
        for name, tensor in parts["buffers"].items():
            buffers[name].copy_(tensor)
        kept: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, what = name.partition(".")
            kept.setdefault(int(index), {})[what] = tensor
        self.optimizer.load_state_dict({"state": kept, "param_groups": self.optimizer.state_dict()["param_groups"]})
