"""The product of two matrices by NumPy's OpenBLAS as an operation of torch's, so that a graph can have it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _product(left: Tensor, right: Tensor) -> Tensor:
    """What `openblas_linear` does, less setting NumPy's error state: whoever runs a graph sets it once for many."""
    out = torch.empty(left.shape[0], right.shape[1])
    np.matmul(left.numpy(), right.numpy(), out=out.numpy())
    return out


@cache
def as_operation() -> Callable[[Tensor, Tensor], Tensor]:
    """The operation."""
    _library().define("openblas_product(Tensor left, Tensor right) -> Tensor")
    _library().impl("openblas_product", _product, "CPU")
    operation: Any = torch.ops.surefoot.openblas_product
    return operation  # type: ignore[no-any-return]


@cache
def _library() -> Any:
    return torch.library.Library("surefoot", "DEF")  # what it defines is gone when it is
