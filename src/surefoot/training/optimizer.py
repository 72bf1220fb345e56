"""The optimizer by its name in torch.optim, with groups of parameters by pattern."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.training.preflight import check_groups, check_optimizer_arguments, optimizer_class, why_none_matches


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    own: Mapping[str, Any],
    arguments: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
) -> torch.optim.Optimizer:
    """Make the optimizer of a network's parameters; those that are frozen get no gradient any more.

    Args:
        model: the network.
        name: a class of torch.optim.
        lr: learning rate of the groups that name none.
        own: the values of `preflight.OWN`.
        arguments: the other keyword arguments.
        groups: `parameters` (a pattern), `arguments`, `frozen`; the first that matches a parameter has it.

    Raises:
        UserError: there is no such optimizer; it refuses its arguments; a pattern matches no parameter; all are frozen.
    """
    kind = optimizer_class(name)
    check_optimizer_arguments(kind, own, arguments, groups)
    options = {"lr": lr, **{key: own[key] for key in own if key in inspect.signature(kind).parameters}, **arguments}
    matched = _matched(model, [group["parameters"] for group in groups])
    for group, parameters in zip(groups, matched, strict=False):
        if group["frozen"]:
            for parameter in parameters:
                parameter.requires_grad_(False)
    trained = [
        {"params": parameters, **group["arguments"]}
        for group, parameters in zip([*groups, {"arguments": {}, "frozen": False}], matched, strict=True)
        if parameters and not group["frozen"]
    ]
    if not any(parameter.requires_grad for group in trained for parameter in group["params"]):
        raise UserError("train.optimizer.groups: all parameters of the network are frozen; there is nothing to train")
    try:
        made: torch.optim.Optimizer = kind(trained, **options)
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"train.optimizer: {name}({shown}) fails: {describe_error(error)}") from None
    check_groups(kind, options, groups, matched)
    return made


def _matched(model: nn.Module, patterns: Sequence[str]) -> list[list[nn.Parameter]]:
    """The parameters of each pattern, then those of none."""
    # Also by the class of the module that a parameter is of: in a Sequential the names are numbers.
    kinds = {
        f"{prefix}.{name}".lstrip("."): f"{type(module).__name__}.{name}"
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    found: list[list[nn.Parameter]] = [[] for _ in [*patterns, None]]
    anywhere: set[str] = set()
    for name, parameter in model.named_parameters():
        matching = [
            number
            for number, pattern in enumerate(patterns)
            if fnmatchcase(name, pattern) or fnmatchcase(kinds[name], pattern)
        ]
        anywhere |= {patterns[number] for number in matching}
        found[matching[0] if matching else -1].append(parameter)
    for pattern, parameters in zip(patterns, found, strict=False):
        if not parameters:
            names = [name for name, _ in model.named_parameters()]
            raise UserError(f"train.optimizer.groups: {why_none_matches(pattern, names, pattern in anywhere)}")
    return found
