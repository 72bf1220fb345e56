"""The optimizer by its name in torch.optim, with groups of parameters by pattern."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, nearest_name

# Arguments that are params of their own: train.momentum, ...; an optimizer that doesn't know one must not be given
# another value than this.
OWN = {"momentum": 0.0, "nesterov": False, "dampening": 0.0, "weight_decay": 0.0}


def optimizer(
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
        own: the values of `OWN`.
        arguments: the other keyword arguments.
        groups: `parameters` (a pattern), `arguments`, `frozen`; the first that matches a parameter has it.

    Raises:
        UserError: there is no such optimizer; it refuses its arguments; a pattern matches no parameter; all are frozen.
    """
    kinds = {
        key: kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    kind: Any = kinds.get(name)
    if kind is None or kind is torch.optim.Optimizer:
        raise UserError(
            f"train.optimizer.name: torch.optim has no optimizer {name!r};"
            f" {nearest_name(name, sorted(kinds.keys() - {'Optimizer'}))}"
        )
    if kind is torch.optim.LBFGS:
        raise UserError(
            "train.optimizer.name: LBFGS evaluates the loss several times a step, which minibatches don't allow; take"
            " another optimizer"
        )
    known = inspect.signature(kind).parameters
    for key in arguments:
        if key in OWN or key == "lr":
            raise UserError(f"train.optimizer.arguments.{key}: train.{key} is where this is set")
    for key, value in own.items():
        if key not in known and value != OWN[key]:
            raise UserError(f"train.{key}: {name} takes none; set it to {str(OWN[key]).lower()}")
    for key, value in arguments.items():
        _refuse_boolean(f"train.optimizer.arguments.{key}", value, known.get(key))
    taken = {key: value for key, value in own.items() if key in known}
    given = [dict(group) for group in groups]
    for number, group in enumerate(given):
        for key, value in group["arguments"].items():
            if key not in known or key == "params":
                hint = nearest_name(key, sorted(known.keys() - {"params"}))
                raise UserError(
                    f"train.optimizer.groups: {name} has no argument {key!r} for a group, given to"
                    f" {group['parameters']!r}; {hint}"
                )
            _refuse_boolean(f"train.optimizer.groups.{number}.arguments.{key}", value, known[key])
    matched = _matched(model, [group["parameters"] for group in given])
    for group, parameters in zip(given, matched, strict=False):
        if group["frozen"]:
            for parameter in parameters:
                parameter.requires_grad_(False)
    trained = [
        {"params": parameters, **group["arguments"]}
        for group, parameters in zip([*given, {"arguments": {}, "frozen": False}], matched, strict=True)
        if parameters and not group["frozen"]
    ]
    if not any(parameter.requires_grad for group in trained for parameter in group["params"]):
        raise UserError("train.optimizer.groups: all parameters of the network are frozen; there is nothing to train")
    try:
        made: torch.optim.Optimizer = kind(trained, lr=lr, **taken, **arguments)
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in {"lr": lr, **taken, **arguments}.items())
        raise UserError(f"train.optimizer: {name}({shown}) fails: {describe_error(error)}") from None
    for number, (group, parameters) in enumerate(zip(given, matched, strict=False)):
        if group["frozen"]:  # it never comes to the optimizer, which may not take it: Muon takes no biases
            continue
        try:  # torch looks at the values of all groups together alone
            kind(parameters, **{"lr": lr, **taken, **arguments, **group["arguments"]})
        except Exception as error:
            raise UserError(
                f"train.optimizer.groups.{number}.arguments: {name} refuses them: {describe_error(error)}"
            ) from None
    return made


def _refuse_boolean(key: str, value: Any, parameter: inspect.Parameter | None) -> None:
    """To Python true is 1, and torch takes it for a number."""
    if (
        isinstance(value, bool)
        and parameter
        and isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
    ):
        raise UserError(f"{key}: a number is needed, got {str(value).lower()}")


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
            some = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            why = (
                "matches only parameters that groups before it have"
                if pattern in anywhere
                else f"matches no parameter; there are {some}"
            )
            raise UserError(f"train.optimizer.groups: {pattern!r} {why}")
    return found
