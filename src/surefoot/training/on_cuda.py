"""What is otherwise in a training on a GPU: the optimizer, and how minibatches come there."""

from typing import Any

import torch
from torch import nn

# In place of that of `minibatches`: each comes to the GPU by itself. As a part of several it would begin somewhere in
# memory, depending on where in an epoch training began, and some kernels then add up in another order.
CHUNK_BYTES = 0
# Those whose kernels read the rate on the device.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
# Who gives one of these chooses the kernels; what they are if nobody does.
CHOICES = {"fused": None, "foreach": None, "capturable": False, "differentiable": False}


def fuse(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Let an optimizer of weights on a GPU take its steps by one kernel, where it has one, and unless it was made with
    one of `CHOICES`. It reads the learning rate on the GPU, so that a graph of a step can be given another one.

    Args:
        optimizer: as it was made, before its first step.
        model: the network whose weights it moves.
    """
    groups = optimizer.param_groups
    is_chosen = any(group.get(name) != given for group in groups for name, given in CHOICES.items() if name in group)
    # No kernel takes sparse gradients, or complex weights.
    is_sparse = any(getattr(module, "sparse", False) for module in model.modules())
    is_complex = any(parameter.is_complex() for group in groups for parameter in group["params"])
    if is_chosen or is_sparse or is_complex or not isinstance(optimizer, FUSED):
        return
    for group in groups:
        group["fused"] = True
    rates = [torch.zeros((), device=group["params"][0].device) for group in groups]
    numbers = [group["lr"] for group in groups]

    def put_on_device(*_: Any) -> None:
        for place, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
            if group["lr"] is not rate:  # as a step leaves it that fails
                numbers[place] = group["lr"]
            group["lr"] = rate.fill_(numbers[place])

    def put_back(*_: Any) -> None:
        for group, number in zip(optimizer.param_groups, numbers, strict=True):
            group["lr"] = number

    optimizer.register_step_pre_hook(put_on_device)
    optimizer.register_step_post_hook(put_back)
