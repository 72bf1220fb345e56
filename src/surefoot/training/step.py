"""The arithmetic of a step: what a network and its optimizer become, from a step's minibatches, its number and what is
scheduled for it.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.training.divergence import Diverged, began, began_backward
from surefoot.training.numerics import seed_step
from surefoot.training.objective import Objective

Minibatch = tuple[Tensor, Tensor]  # inputs (rows, *shape) and targets (rows,)


@dataclass(frozen=True)
class StepSettings:
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


class Stepper:
    """Takes steps.

    Args:
        model: the network, in training mode.
        optimizer: of its parameters.
        objective: the loss.
        settings: what goes into a step beside these.
        seed: the step of number k draws its randomness from (seed, k).
        columns: what is scheduled: the number of a group of the optimizer's, and its name there.
        before_epoch: steps of the run before the epoch that these are of, as messages count from there.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        settings: StepSettings,
        seed: int,
        columns: Sequence[tuple[int, str]],
        before_epoch: int = 0,
    ) -> None:
        self._model, self._optimizer, self._objective = model, optimizer, objective
        self._settings, self._seed, self._before_epoch = settings, seed, before_epoch
        self._puts = [_put(optimizer.param_groups[group], name) for group, name in columns]
        # In this order, not that of groups, as it decides how their norms add up.
        self._parameters = list(model.parameters())
        device = self._parameters[0].device.type
        self._autocast = torch.autocast(device, torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()

    def take_step(
        self, minibatches: Sequence[Minibatch], number: int, values: Sequence[float]
    ) -> tuple[list[float], float]:
        """Take a step.

        Args:
            minibatches: those that make it up.
            number: of the step in the run, from 1.
            values: of `columns`.

        Returns for each minibatch its loss, as it was before the step, times the rows that it stands for; and the norm
        of the gradient.

        Raises:
            Diverged: a loss or the norm isn't finite; the step isn't taken.
            UserError: the network or the optimizer raises something.
        """
        seed_step(self._seed, number)
        for put, value in zip(self._puts, values, strict=True):
            put(value)
        for parameter in self._parameters:  # what optimizer.zero_grad() does, less 20 microseconds
            parameter.grad = None
        losses = self._compute_gradient(minibatches, number, values[0])
        return losses, self._move_weights(number, values[0])

    def _compute_gradient(self, minibatches: Sequence[Minibatch], number: int, lr: float) -> list[float]:
        """The gradient of the loss of all rows of the step: forward and backward, a minibatch at a time."""
        model, loss_function = self._model, self._objective.loss
        targets_of = [targets for _, targets in minibatches]
        rows = sum(map(len, targets_of))
        shares = self._objective.share(targets_of) if len(minibatches) > 1 else [rows]
        losses = []
        try:
            for (inputs, targets), share in zip(minibatches, shares, strict=True):
                with self._autocast:
                    loss = loss_function(model(inputs), targets)
                value = loss.item()
                if not math.isfinite(value):
                    raise Diverged(self._at(number), value, lr, began(model, inputs, self._seed, number))
                (loss if len(minibatches) == 1 else loss * (share / rows)).backward()
                losses.append(value * share)
        except (Diverged, UserError):
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"train.model: the network fails in training, at step {self._at(number)} of the epoch:"
                f" {describe_error(error)}"
            ) from None
        return losses

    def _move_weights(self, number: int, lr: float) -> float:
        """The step of the optimizer. Returns the norm of the gradient."""
        try:
            norm = _clip(self._parameters, self._settings)
            if not math.isfinite(norm):
                raise Diverged(self._at(number), norm, lr, began_backward(self._model), "norm of the gradient")
            self._optimizer.step()
        except Diverged:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"train.optimizer: {type(self._optimizer).__name__} fails at step {self._at(number)} of the epoch:"
                f" {describe_error(error)}"
            ) from None
        return norm

    def _at(self, number: int) -> int:
        """The number of a step within its epoch."""
        return number - self._before_epoch


def _put(group: dict[str, Any], name: str) -> Callable[[float], None]:
    """What sets a scheduled value in a group of the optimizer's."""
    if name == "betas":
        return lambda value: group.__setitem__("betas", (value, *group["betas"][1:]))
    return lambda value: group.__setitem__(name, value)


def _clip(parameters: list[nn.Parameter], settings: StepSettings) -> float:
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
