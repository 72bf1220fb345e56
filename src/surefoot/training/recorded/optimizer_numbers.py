"""Numbers of an optimizer's step that aren't the same in each: what is scheduled, and what torch computes of it and of
how many steps were taken. Known by formula; whether a formula is torch's is checked where it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Group = Mapping[str, Any]  # of the optimizer
Numbers = dict[tuple[str, int], float]  # by name, and by the number of the group, or of the minibatch

# Of a group and the number of steps taken, this one included; and what must be scheduled for it to change.
FORMULAS: dict[str, tuple[Callable[[Group, float], float], str]] = {
    "lr": (lambda group, _: group["lr"], "lr"),
    "-lr": (lambda group, _: -group["lr"], "lr"),
    "momentum": (lambda group, _: group["momentum"], "momentum"),
    "1-beta1": (lambda group, _: 1 - group["betas"][0], "betas"),
    "decay": (lambda group, _: 1 - group["lr"] * group["weight_decay"], "lr"),
}
# Adam corrects its moments for having begun at 0: these change with the count alone.
BIAS_CORRECTIONS: dict[str, Callable[[Group, float], float]] = {
    "-step": lambda group, count: -(group["lr"] / (1 - group["betas"][0] ** count)),
    "root": lambda group, count: (1 - group["betas"][1] ** count) ** 0.5,
}
_FORMULAS = {name: formula for name, (formula, _) in FORMULAS.items()} | BIAS_CORRECTIONS
SHARE = "share"  # of a minibatch in the loss of its step
COUNTING = (torch.optim.Adam, torch.optim.AdamW)


def knows_count(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is known what an optimizer computes of the number of steps."""
    return type(optimizer) in COUNTING


def all_numbers(
    groups: Sequence[Group],
    columns: Sequence[tuple[int, str]],
    count: float | None,
    shares: Sequence[float],
    rows: int,
) -> Numbers:
    """All numbers that may change, of a step.

    Args:
        groups: of the optimizer, with what is scheduled for the step.
        columns: what is scheduled: the number of a group, and its name there.
        count: steps that the optimizer has taken, this one included; None where it doesn't count.
        shares: how many of the step's rows the loss of each of its minibatches stands for.
        rows: of the step.
    """
    names = [(SHARE, place) for place in range(len(shares))]
    for place in range(len(groups)):
        names += [(name, place) for name, (_, of) in FORMULAS.items() if (place, of) in columns]
        names += [(name, place) for name in BIAS_CORRECTIONS if count]
    if count:  # Adam takes the rate in its bias correction alone, which comes to be as good as 1
        names = [name for name in names if name[0] not in ("lr", "-lr")]
    found = {}
    for name in names:
        try:
            (found[name],) = known_numbers([name], groups, count or 0.0, shares, rows)
        except (KeyError, TypeError):  # nothing of this optimizer's
            continue
    return found


def known_numbers(
    names: Sequence[tuple[str, int]], groups: Sequence[Group], count: float, shares: Sequence[float], rows: int
) -> list[float]:
    """The numbers of these names, of a step; see `all_numbers`."""
    return [shares[place] / rows if name == SHARE else _FORMULAS[name](groups[place], count) for name, place in names]
