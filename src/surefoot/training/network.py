"""A network by its import path: built, evaluated on many rows, and as safetensors."""

import inspect
import random
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error, find_function
from surefoot.training.minibatches import Stored
from surefoot.training.numerics import seed_step, settings

# So many rows go through the network at once where nothing is trained, or as many as make up so many bytes.
EVALUATION_ROWS = 1024
EVALUATION_BYTES = 64 << 20


def build(
    factory: str,
    arguments: dict[str, Any],
    input_shape: tuple[int, ...],
    outputs: int,
    seed: int,
    schema: Callable[[], dict[str, Any]] = dict,
    device: str = "cpu",
) -> nn.Module:
    """The network that `factory` makes, its first weights a function of `seed`: torch's, Python's and NumPy's
    generators are seeded.

    Args:
        factory: `module:function`.
        arguments: its keyword arguments.
        input_shape: of one row.
        outputs: numbers that it must give for a row: the classes, or 1.
        seed: decides the first weights.
        schema: gives what is known of the inputs; called for a factory that has a parameter `schema`.
        device: where the network is brought to, once its weights are drawn on the CPU.

    Raises:
        UserError: if it can't be imported or called, or doesn't return an nn.Module.
    """
    before = settings()
    function = find_function("train.model.factory", factory)
    seed_step(seed, 0)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    told = {"schema": schema()} if takes_schema(factory) else {}
    try:
        model = function(input_shape, outputs, **told, **arguments)
    except (Exception, SystemExit) as error:
        called = (
            f"{factory}(input_shape={input_shape}, outputs={outputs}"
            + "".join(f", {k}={v!r}" for k, v in arguments.items())
            + ")"
        )
        raise UserError(f"train.model: {called} failed: {describe_error(error)}") from None
    for name, value in settings().items():
        if value != before[name]:
            raise UserError(
                f"train.model.factory: {factory} changes {name} from {before[name]} to {value}, for the whole process;"
                " params.yaml decides that"
            )
    if not isinstance(model, nn.Module):
        raise UserError(f"train.model.factory: {factory} returned a {type(model).__name__}; an nn.Module is needed")
    _check_parameters(model, factory)
    return model.to(device)


def _check_parameters(model: nn.Module, factory: str) -> None:
    parameters = dict(model.named_parameters())
    if not parameters:
        raise UserError(
            f"train.model.factory: {factory} returned a network without parameters; there is nothing to train"
        )
    for name, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.is_meta:
            raise UserError(
                f"train.model.factory: {factory}: parameter {name} has no values yet; a network needs its first weights"
                " (no lazy layers, no meta device)"
            )


def takes_schema(factory: str) -> bool:
    """Whether a factory has a parameter `schema`.

    Raises:
        UserError: it can't be imported.
    """
    try:
        return "schema" in inspect.signature(find_function("train.model.factory", factory)).parameters
    except (TypeError, ValueError):  # written in C
        return False


def outputs_of(model: nn.Module, inputs: Tensor | Stored) -> Tensor:
    """The output for each row, in evaluation mode; every part of the network is left in the mode that it was in."""
    rows = max(1, min(EVALUATION_ROWS, EVALUATION_BYTES // max(1, 4 * prod(inputs.shape[1:]))))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    device = device_of(model)
    with torch.inference_mode():
        # A fixed number of rows at a time: another number could round otherwise.
        parts = [model(part.to(device)) for part in inputs.split(rows)]
    for module, training in modes:
        module.training = training
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as safetensors; the same tensors give the same bytes."""
    # Cloned: safetensors refuses tensors that share memory, such as tied weights.
    return safetensors.torch.save(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    )


def network_of(state: bytes, averaged: bool = False) -> bytes:
    """The network's part of a trainer's state, both as safetensors: with the weights that are trained, or with their
    average.
    """
    tensors = safetensors.torch.load(state)
    prefix = "average." if averaged else "model."
    return to_bytes({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})


def load_weights(model: nn.Module, data: bytes) -> None:
    """Bring saved weights and buffers into a network."""
    model.load_state_dict(safetensors.torch.load(data))
