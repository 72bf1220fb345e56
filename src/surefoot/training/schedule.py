"""The values of each step that a schedule sets: by torch's own scheduler, which drives an optimizer that trains
nothing.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, find_function, nearest_name

CONSTANT = "constant"
PLATEAU = "ReduceLROnPlateau"
# Where a schedule needs to know its length, or the highest lr, it gets that of the run.
LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}
HIGHEST = {"OneCycleLR": "max_lr"}
ROUNDING = 1e-6  # a share of lr; where torch computes 0 it may come out this much below
INNER = {"name", "arguments"}  # what a schedule among the arguments of another has

Metrics = Mapping[str, float]
Column = tuple[int, str]  # of the values of a step: which group's, and its name there


class Schedule:
    """The scheduled values, epoch by epoch: what torch's scheduler sets in each group of an optimizer.

    Args:
        parts: `name`, `arguments`, `per`, `length` and `metric`, one after the other.
        optimizer: its groups have the values to begin with. It isn't touched.
        epochs: of the run.
        steps: of an epoch.
        max_steps: of the run; None: all of its epochs.

    Raises:
        UserError: there is no such schedule; it refuses its arguments; lengths that don't fit.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, Any]],
        optimizer: torch.optim.Optimizer,
        epochs: int,
        steps: int,
        max_steps: int | None = None,
    ) -> None:
        self._parts, self._epochs, self._steps = parts, epochs, steps
        self._left = min(epochs * steps, max_steps or epochs * steps)
        self._name = ", then ".join(part["name"] for part in parts)
        self._begun = False
        self._per_step = parts[0]["per"] == "step"
        self._metric = (parts[0]["metric"] or "validation/loss") if parts[0]["name"] == PLATEAU else None
        # The same kind of optimizer, with the same groups; its parameters are as small as each kind allows.
        groups = [{**group, "params": [nn.Parameter(torch.zeros(1, 1))]} for group in optimizer.param_groups]
        kind: Any = type(optimizer)
        self._optimizer: torch.optim.Optimizer = kind(groups)
        before = [dict(group) for group in self._optimizer.param_groups]
        self._scheduler = self._make()
        cycled = [name for name in ("momentum", "betas") if any(_cycles(part, name, before[0]) for part in parts)]
        self.columns: list[Column] = [(number, name) for name in ("lr", *cycled) for number in range(len(groups))]

    @property
    def metric(self) -> str | None:
        """The metric of an epoch that the next one's values follow from; None: they are known before."""
        return self._metric

    def next_epoch(self, metrics: Metrics | None) -> np.ndarray:
        """The values of the next epoch: float64 (steps, columns); without a step where the run is over.

        Args:
            metrics: of the epoch before; None in the first, or where `metric` is None.

        Raises:
            UserError: the schedule fails, or gives what isn't a number; metrics that it follows aren't there.
        """
        steps = min(self._steps, self._left)
        if not steps:
            return np.empty((0, len(self.columns)))
        if self._metric and self._begun:
            if metrics is None:
                raise UserError(
                    f"train.schedule: {PLATEAU} follows {self._metric} of each epoch, and the store lacks the record of"
                    " an earlier one"
                )
            self._advance(metrics[self._metric])
        self._begun = True
        first = self._left
        self._left -= steps
        if not self._per_step:
            values = np.tile(np.array([self._row()]), (steps, 1))
            if not self._metric and self._left:
                self._advance()
            return values
        rows = []
        for step in range(steps):
            rows.append(self._row())
            if step + 1 < first:  # not past the last one: OneCycleLR refuses
                self._advance()
        return np.array(rows)

    def _row(self) -> list[float]:
        groups = self._optimizer.param_groups
        row = [groups[number][name][0] if name == "betas" else groups[number][name] for number, name in self.columns]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in row):
            raise UserError(f"train.schedule: {self._name} gives values that aren't numbers: {row}")
        for (number, name), value in zip(self.columns, row, strict=True):
            if name == "lr" and value < -ROUNDING * groups[number].get("initial_lr", 0.0):
                raise UserError(
                    f"train.schedule: {self._name} gives a negative learning rate, {value:g}, which would make the loss"
                    " grow"
                )
        return row

    def _advance(self, *metric: float) -> None:
        if self._scheduler is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a step of the scheduler before one of the optimizer
                self._scheduler.step(*metric)
        except (Exception, SystemExit) as error:
            raise UserError(f"train.schedule: {self._name} fails: {describe_error(error)}") from None

    def _make(self) -> Any:
        if len(self._parts) == 1:
            return self._part("train.schedule", self._parts[0], self._length())
        lengths = [part["length"] for part in self._parts]
        whole, known = self._length(), sum(length or 0 for length in lengths)
        if known > whole or (lengths[-1] is None and known == whole) or (lengths[-1] and known < whole):
            unit = "steps" if self._per_step else "epochs"
            raise UserError(
                f"train.schedule: lengths of {known} {unit} do not fit the run, which has {whole}; the last length may"
                " be null, to the end"
            )
        lengths[-1] = lengths[-1] or whole - known
        made = [
            self._part(f"train.schedule.{number}", part, length)
            for number, (part, length) in enumerate(zip(self._parts, lengths, strict=True))
        ]
        return self._call(
            "train.schedule", lr_scheduler.SequentialLR, made, milestones=np.cumsum(lengths[:-1]).tolist()
        )

    def _length(self) -> int:
        if self._per_step:
            return self._left
        return min(self._epochs, -(-self._left // self._steps))

    def _part(self, key: str, part: Mapping[str, Any], length: int) -> Any:
        name, arguments = part["name"], dict(part["arguments"])
        # `constant` isn't torch's: no other schedule takes it as a part.
        own = [CONSTANT] if any(part is one for one in self._parts) else []
        if name in own:
            if arguments:
                raise UserError(f"{key}.arguments: `{CONSTANT}` takes none")
            return self._call(key, lr_scheduler.LambdaLR, lambda _: 1.0) if len(self._parts) > 1 else None
        if ":" in name:
            function = find_function(f"{key}.name", name)
            return self._call(key, lr_scheduler.LambdaLR, lambda n: float(function(n, **arguments)))
        kinds = {kind.__name__: kind for kind in vars(lr_scheduler).values() if _is_scheduler(kind)}
        kind = kinds.get(name)
        if kind is None:
            raise UserError(
                f"{key}.name: torch.optim.lr_scheduler has no schedule {name!r};"
                f" {nearest_name(name, [*own, *sorted(kinds)])}"
            )
        if name in LENGTH and not {"T_max", "total_steps", "epochs", "steps_per_epoch"} & arguments.keys():
            arguments[LENGTH[name]] = length
        if name in HIGHEST:
            arguments.setdefault(HIGHEST[name], [group["lr"] for group in self._optimizer.param_groups])
        if name == PLATEAU and "mode" not in arguments and higher_is_better(self._metric or ""):
            arguments["mode"] = "max"
        for argument in ("lr_lambda", "scale_fn"):
            if argument in arguments:
                arguments[argument] = _function(f"{key}.arguments.{argument}", arguments[argument])
        if isinstance(arguments.get("schedulers"), list):
            below = [
                _inner(f"{key}.arguments.schedulers.{number}", inner)
                for number, inner in enumerate(arguments["schedulers"])
            ]
            made = [
                self._part(f"{key}.arguments.schedulers.{number}", inner, length) for number, inner in enumerate(below)
            ]
            rest = {argument: value for argument, value in arguments.items() if argument != "schedulers"}
            return self._call(
                key,
                kind,
                made,
                **({"optimizer": self._optimizer} if name == "ChainedScheduler" else {}),
                **rest,
                first=name == "SequentialLR",
            )
        return self._call(key, kind, **arguments)

    def _call(self, key: str, kind: Callable[..., Any], *positional: Any, first: bool = True, **arguments: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kind(*([self._optimizer] if first else []), *positional, **arguments)
        except (Exception, SystemExit) as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "optimizer")
            raise UserError(f"{key}: {kind.__name__}({shown}) fails: {describe_error(error)}") from None


def higher_is_better(metric: str) -> bool:
    """Whether larger values of a metric are better."""
    return "accuracy" in metric


def epochs_of_schedule(schedule: Schedule) -> Iterator[np.ndarray]:
    """All epochs of a schedule that follows no metric."""
    while len(values := schedule.next_epoch(None)):
        yield values


def _function(key: str, given: Any) -> Any:
    """The function of a `module:function`, or those of a list of them: one for each group."""
    if isinstance(given, list):
        return [_function(f"{key}.{number}", one) for number, one in enumerate(given)]
    if not isinstance(given, str) or ":" not in given:
        raise UserError(f"{key}: {given!r}: `module:function` is needed")
    return find_function(key, given)


def _inner(key: str, given: Any) -> dict[str, Any]:
    """A schedule among the arguments of another."""
    if (
        not isinstance(given, dict)
        or not isinstance(given.get("name"), str)
        or not isinstance(given.get("arguments", {}), dict)
        or given.keys() - INNER
    ):
        raise UserError(f"{key}: a schedule has a `name` and `arguments`, and here nothing else; got {given!r}")
    return {"arguments": {}, **given}


def _is_scheduler(kind: Any) -> bool:
    bases = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)
    return (
        isinstance(kind, type)
        and issubclass(kind, bases)
        and kind is not lr_scheduler.LRScheduler
        and not kind.__name__.startswith("_")
    )


def _cycles(part: Mapping[str, Any], name: str, group: Mapping[str, Any]) -> bool:
    """Whether a part changes the momentum, too, by this name: OneCycleLR and CyclicLR do."""
    inner = part["arguments"].get("schedulers")
    if isinstance(inner, list):
        return any(_cycles({"arguments": {}, **one}, name, group) for one in inner)
    return (
        part["name"] in ("OneCycleLR", "CyclicLR")
        and part["arguments"].get("cycle_momentum", True) is not False
        and name in group
    )
