"""What is refused before anything is trained, and in which words: networks, losses, optimizers and weights that don't
fit.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, nearest_name
from surefoot.training.network import outputs_of
from surefoot.training.objective import Objective
from surefoot.training.without_dynamo import without_dynamo

# Arguments that are params of their own: train.momentum, ...; an optimizer that doesn't know one must not be given
# another value than this.
OWN = {"momentum": 0.0, "nesterov": False, "dampening": 0.0, "weight_decay": 0.0}


def check_output(model: nn.Module, inputs: Tensor, outputs: int) -> Tensor:
    """Try the network on one batch; returns what it gives.

    Raises:
        UserError: if it fails, if its output isn't a float tensor of shape (rows, outputs), or if it changes its
            inputs.
    """
    given = inputs.clone()
    try:
        output = outputs_of(model, given)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"train.model: the network fails on a batch of shape {tuple(inputs.shape)}: {describe_error(error)}"
        ) from None
    wanted = (len(inputs), outputs)
    if not isinstance(output, Tensor) or output.shape != wanted or not output.is_floating_point():
        got = (
            f"shape {tuple(output.shape)} and type {output.dtype}"
            if isinstance(output, Tensor)
            else f"a {type(output).__name__}"
        )
        raise UserError(
            f"train.model: on a batch of shape {tuple(inputs.shape)} the network gives {got}; "
            f"it must give shape {wanted}: for each row "
            + ("a number (logit) for each class" if outputs > 1 else "one number")
        )
    if not torch.equal(given, inputs):  # each epoch would validate on other rows than the one before
        raise UserError(
            "train.model: the network changes the inputs that it is given, in place; let it work on a copy: x = x * 2,"
            " not x *= 2 or x.mul_(2), and no `inplace=True` in its first layer"
        )
    return output


def check_loss(objective: Objective, outputs: Tensor, targets: Tensor) -> None:
    """Try the loss on one batch.

    Raises:
        UserError: if it fails, or isn't one number.
    """
    shapes = (
        f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} and type"
        f" {str(targets.dtype).removeprefix('torch.')}"
    )
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            loss = objective.loss(outputs, targets)
    except Exception as error:
        raise UserError(f"train.loss: it fails on {shapes}: {describe_error(error)}") from None
    # With as many rows as outputs torch spreads the targets out over them, and only warns.
    if any("Using a target size" in str(warning.message) for warning in said):
        raise UserError(
            f"train.loss: it needs outputs and targets of one shape, but gets {shapes}; a loss for {objective.task} is"
            " needed"
        )
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise UserError(f"train.loss: on {shapes} it gives {got}; one number is needed (reduction: mean)")


def optimizer_class(name: str) -> Any:
    """The class of torch.optim that `train.optimizer.name` names.

    Raises:
        UserError: there is none, or it isn't for minibatches.
    """
    kinds = {
        key: kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    if name not in kinds:
        raise UserError(
            f"train.optimizer.name: torch.optim has no optimizer {name!r}; {nearest_name(name, sorted(kinds))}"
        )
    if kinds[name] is torch.optim.LBFGS:
        raise UserError(
            "train.optimizer.name: LBFGS evaluates the loss several times a step, which minibatches don't allow; take"
            " another optimizer"
        )
    return without_dynamo(kinds[name])


def check_optimizer_arguments(
    kind: Any, own: Mapping[str, Any], arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> None:
    """See whether an optimizer takes what it would be given, as far as its signature tells.

    Raises:
        UserError: it doesn't.
    """
    name, known = kind.__name__, inspect.signature(kind).parameters
    for key in arguments:
        if key in OWN or key == "lr":
            raise UserError(f"train.optimizer.arguments.{key}: train.{key} is where this is set")
    for key, value in own.items():
        if key not in known and value != OWN[key]:
            raise UserError(f"train.{key}: {name} takes none; set it to {str(OWN[key]).lower()}")
    for key, value in arguments.items():
        _refuse_boolean(f"train.optimizer.arguments.{key}", value, known.get(key))
    for number, group in enumerate(groups):
        for key, value in group["arguments"].items():
            if key not in known or key == "params":
                hint = nearest_name(key, sorted(known.keys() - {"params"}))
                raise UserError(
                    f"train.optimizer.groups: {name} has no argument {key!r} for a group, given to"
                    f" {group['parameters']!r}; {hint}"
                )
            _refuse_boolean(f"train.optimizer.groups.{number}.arguments.{key}", value, known[key])


def _refuse_boolean(key: str, value: Any, parameter: inspect.Parameter | None) -> None:
    """To Python true is 1, and torch takes it for a number."""
    if (
        isinstance(value, bool)
        and parameter
        and isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
    ):
        raise UserError(f"{key}: a number is needed, got {str(value).lower()}")


def check_groups(
    kind: Any,
    options: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    matched: Sequence[Sequence[nn.Parameter]],
) -> None:
    """See whether an optimizer takes the arguments of each group by itself: of several, torch looks at all together.

    Raises:
        UserError: it doesn't.
    """
    for number, (group, parameters) in enumerate(zip(groups, matched, strict=False)):
        if group["frozen"]:  # it never comes to the optimizer, which may not take it: Muon takes no biases
            continue
        try:
            kind(parameters, **{**options, **group["arguments"]})
        except Exception as error:
            raise UserError(
                f"train.optimizer.groups.{number}.arguments: {kind.__name__} refuses them: {describe_error(error)}"
            ) from None


def why_none_matches(pattern: str, names: Sequence[str], had: bool) -> str:
    """Why a pattern of `train.optimizer.groups` has no parameter; `had`: groups before it have those that match it."""
    some = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    why = "matches only parameters that groups before it have" if had else f"matches no parameter; there are {some}"
    return f"{pattern!r} {why}"


def read_start_weights(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a network that training is to start from; nothing is unpickled.

    Raises:
        UserError: naming it: it isn't safetensors, is cut short, or has values that aren't finite.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"train.start_from: {name} is no safetensors file, or is damaged: {' '.join(str(error).split())}"
        ) from None
    for tensor, values in tensors.items():
        # Of 8 bits torch can't say it.
        if values.is_floating_point() and not (values if values.itemsize > 1 else values.float()).isfinite().all():
            raise UserError(
                f"train.start_from: {name}: {tensor} holds values that aren't finite (NaN or infinite), from which"
                " nothing can be trained"
            )
    return tensors


def load_start_weights(model: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Bring the weights and buffers of another training into a network.

    Raises:
        UserError: they don't fit; which, and why that may be.
    """
    own = model.state_dict()
    faults = []
    for key in [*own, *sorted(tensors.keys() - own.keys())]:
        one, other = (
            f"{found[key].dtype} {list(found[key].shape)}".removeprefix("torch.") if key in found else "none"
            for found in (tensors, own)
        )
        if one != other:
            faults.append(f"{key} is {one}, the network has {other}")
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"train.start_from: {name} doesn't fit train.model: {'; '.join(faults[:3])}{more}",
            "a class or category that is new in the data changes outputs or inputs, as does another train.model; then"
            " start from null",
        )
    model.load_state_dict(tensors)
