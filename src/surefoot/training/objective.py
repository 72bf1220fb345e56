"""What training minimizes, and what is measured beside the loss, by task."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, find_function

AUTO = {"classification": "CrossEntropyLoss", "binary": "BCEWithLogitsLoss", "regression": "MSELoss"}
# The argument of a loss of torch.nn that takes class weights.
WEIGHTED = {
    "CrossEntropyLoss": "weight",
    "NLLLoss": "weight",
    "MultiMarginLoss": "weight",
    "BCEWithLogitsLoss": "pos_weight",
}


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """The fraction of rows whose largest logit is the target's."""
    return int((logits.argmax(1) == targets).sum()) / len(targets)


def binary_accuracy(logits: Tensor, targets: Tensor) -> float:
    """The fraction of rows whose one logit is above 0 just where the target is 1."""
    return int(((logits.squeeze(1) > 0) == (targets > 0)).sum()) / len(targets)


def mean_absolute_error(predicted: Tensor, targets: Tensor) -> float:
    """The mean absolute error, in the unit of predictions and targets."""
    return (predicted.squeeze(1).double() - targets.double()).abs().mean().item()


# Losses of torch.nn to which a number may be any, also below 0 as half of the scaled ones are.
OF_ANY_NUMBER = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
# What is measured on the validation rows beside the loss: name and function of (outputs, targets).
MEASURES: dict[str, tuple[str, Callable[[Tensor, Tensor], float]]] = {
    "classification": ("accuracy", accuracy),
    "binary": ("accuracy", binary_accuracy),
    "regression": ("mae", mean_absolute_error),
}


def by_rows(targets: Sequence[Tensor]) -> Sequence[float]:
    """The shares of minibatches in a loss that is a mean over rows: their rows."""
    return [len(some) for some in targets]


def by_weights(weights: Sequence[float]) -> Callable[[Sequence[Tensor]], Sequence[float]]:
    """The shares in a loss that weights rows by their class: a minibatch counts by the sum of its rows' weights."""

    def share(targets: Sequence[Tensor]) -> Sequence[float]:
        # Counted by class, which is exact; torch adds up floats in an order of the processor's.
        counts = [torch.bincount(some, minlength=len(weights)).tolist() for some in targets]
        sums = [
            math.fsum(weight * count for weight, count in zip(weights, of_classes, strict=True))
            for of_classes in counts
        ]
        rows, total = sum(map(len, targets)), math.fsum(sums)
        return [rows * (some / total) for some in sums] if total else by_rows(targets)

    return share


def by_sum(targets: Sequence[Tensor]) -> Sequence[float]:
    """The shares in a loss that is a sum over rows: each minibatch counts whole."""
    return [sum(map(len, targets))] * len(targets)


@dataclass(frozen=True)
class Objective:
    """What is minimized for a task, and what is measured: functions of the network's outputs, (rows, outputs), and of
    targets (rows,).
    """

    task: str
    loss: Callable[[Tensor, Tensor], Tensor]
    share: Callable[[Sequence[Tensor]], Sequence[float]] = by_rows
    """For each minibatch of a step, by its targets: how many of the step's rows its loss stands for, so that the
    weighted mean is the loss of all of them.
    """
    unit: float = 1.0
    """In regression, what 1 of the targets is in their own unit."""

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """What is measured beside the loss, by name; errors in the targets' own unit."""
        name, function = MEASURES[self.task]
        return {name: self.unit * function(outputs.cpu(), targets.cpu())}


CLASSIFICATION = Objective("classification", nn.CrossEntropyLoss())


def make_objective(
    task: str,
    name: str,
    arguments: dict[str, Any],
    class_weights: str | Sequence[float] | None,
    class_counts: Sequence[int],
    device: str = "cpu",
    unit: float | None = None,
) -> Objective:
    """The objective that `train.loss` asks for.

    Args:
        task: classification, binary or regression.
        name: a class of torch.nn, `module:factory`, or `auto`.
        arguments: its keyword arguments.
        class_weights: one for each class, `balanced`, or None.
        class_counts: training rows of each class; empty for regression.
        device: where outputs and targets will lie.
        unit: what the targets were divided by; None: they aren't scaled.

    Raises:
        UserError: there is no such loss; it can't be made; weights that don't fit.
    """
    chosen = AUTO[task] if name == "auto" else name
    weights = _weights(class_weights, class_counts)
    criterion = _make(chosen, arguments | _weight_argument(chosen, task, weights))
    if unit is not None and ":" not in chosen and chosen not in OF_ANY_NUMBER:
        raise UserError(
            f"train.loss.name: {chosen} isn't for a scaled target, half of whose values are below 0: set"
            " prepare.normalize_target: none"
        )
    if not callable(criterion):
        raise UserError(
            f"train.loss.name: {chosen} made a {type(criterion).__name__}; a function of (outputs, targets) is needed"
        )
    if isinstance(criterion, nn.Module):
        if any(True for _ in criterion.parameters()):
            raise UserError(f"train.loss.name: {chosen} has parameters of its own, which would not be trained")
        criterion.to(device)
    # One number a row: (rows, 1) against (rows,) would be spread out to (rows, rows).
    loss = criterion if task == "classification" else lambda outputs, targets: criterion(outputs.squeeze(1), targets)
    return Objective(task, loss, _share(criterion, len(class_counts)), 1.0 if unit is None else unit)


def _weight_argument(loss: str, task: str, weights: list[float] | None) -> dict[str, Tensor]:
    """The argument that tells a loss of torch.nn the weights of classes; {} where there are none."""
    if weights is None:
        return {}
    parameter = WEIGHTED.get(loss)
    if parameter is None or (parameter == "pos_weight") != (task == "binary"):
        raise UserError(
            f"train.loss.class_weights: {loss} takes none for {task}; give null, or one of"
            f" {', '.join(sorted(WEIGHTED))} that fits"
        )
    # With one logit it is the second class's weight that is told, as a multiple of the first's.
    return {parameter: torch.tensor(weights[1] / weights[0] if task == "binary" else weights)}


def _share(criterion: Any, classes: int) -> Callable[[Sequence[Tensor]], Sequence[float]]:
    """How the losses of minibatches come together. A loss of the user's own is taken for a mean over rows."""
    if getattr(criterion, "reduction", "mean") == "sum":
        return by_sum
    # These two divide by the weights of their rows, and leave out those of a class to be ignored; all others of
    # torch.nn divide by the rows.
    if type(criterion) in (nn.CrossEntropyLoss, nn.NLLLoss):
        ignored = range(classes).count(criterion.ignore_index) > 0
        if criterion.weight is not None or ignored:
            weights = [1.0] * classes if criterion.weight is None else criterion.weight.tolist()
            return by_weights(
                [0.0 if number == criterion.ignore_index else weight for number, weight in enumerate(weights)]
            )
    return by_rows


def _make(name: str, arguments: dict[str, Any]) -> Any:
    factory: Any = find_function("train.loss.name", name) if ":" in name else getattr(nn, name, None)
    if ":" not in name and not (isinstance(factory, type) and name.endswith("Loss")):
        known = ", ".join(sorted(known for known in dir(nn) if known.endswith("Loss")))
        raise UserError(f"train.loss.name: torch.nn has no loss {name!r}; it has {known}")
    try:
        return factory(**arguments)
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(f"train.loss: {name}({shown}) fails: {describe_error(error)}") from None


def _weights(class_weights: str | Sequence[float] | None, class_counts: Sequence[int]) -> list[float] | None:
    if class_weights is None:
        return None
    if not class_counts:
        raise UserError("train.loss.class_weights: there are no classes in regression; give null")
    if class_weights == "balanced":
        # Of a model that training starts from there may be classes that no row has now.
        there = sum(count > 0 for count in class_counts)
        return [sum(class_counts) / (there * count) if count else 0.0 for count in class_counts]
    weights = [float(weight) for weight in class_weights]
    if len(weights) != len(class_counts):
        raise UserError(
            f"train.loss.class_weights: {len(weights)} weights for {len(class_counts)} classes; one for each is needed"
        )
    return weights
