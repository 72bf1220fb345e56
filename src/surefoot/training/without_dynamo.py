"""Optimizers that leave `torch._dynamo` alone: torch's import that compiler at their first step, which takes a second,
though nothing is compiled. `torch.compile` imports it where it is used.
"""

import inspect
from functools import wraps
from typing import Any

import torch
from torch.optim import Optimizer


def without_dynamo(kind: Any) -> Any:
    """A class of torch.optim, whose methods are now those under torch's decorators: they compute the same bits."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method: Any = inspect.unwrap(getattr(Optimizer, name))
        method.__dynamo_disable = method  # torch asks dynamo for this, unless it is there
    step = inspect.unwrap(kind.step)

    @wraps(step)
    def eager_step(self: Optimizer, *arguments: Any, **named: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return step(self, *arguments, **named)

    kind.step = eager_step  # around which torch puts hooks and the profiler when the next instance is made
    return kind
