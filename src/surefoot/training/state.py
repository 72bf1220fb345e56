"""A training's state as named tensors: all that the next step depends on and that can't be computed again."""

from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.training.weight_average import Average


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> dict[str, Tensor]:
    """`model.*`, `buffers.*`, `optimizer.*`, `average.*` and `averaged.count`.

    `buffers.*` are those that the network leaves out of its state_dict.

    Raises:
        UserError: the network keeps something else than tensors in its state_dict, or the optimizer in its.
    """
    saved = model.state_dict()
    state = {f"model.{name}": value for name, value in saved.items()}
    state |= {f"buffers.{name}": buffer for name, buffer in model.named_buffers() if name not in saved}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"train.model: {name} in the network's state_dict is a {type(value).__name__}; only tensors can be"
                " stored and restored"
            )
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                # SparseAdam counts its steps by an int.
                state[f"optimizer.{index}.{name}"] = torch.tensor(value) if isinstance(value, int) else value
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"train.optimizer: {name} is a {type(value).__name__}; an optimizer that keeps tensors is needed,"
                " whose state can be restored"
            )
    return state | (average.state() if average else {})


def load_state(
    state: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None
) -> None:
    """Bring a network, its optimizer and its average to a state."""
    parts: dict[str, dict[str, Tensor]] = {
        part: {} for part in ("model", "buffers", "optimizer", "average", "averaged")
    }
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    buffers = dict(model.named_buffers())
    for name, tensor in parts["buffers"].items():
        buffers[name].copy_(tensor)
    kept: dict[int, dict[str, Any]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, what = name.partition(".")
        kept.setdefault(int(index), {})[what] = (
            tensor.item() if tensor.dtype == torch.int64 and not tensor.ndim else tensor
        )
    optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})
    if average:
        average.load(parts["average"], parts["averaged"]["count"])
