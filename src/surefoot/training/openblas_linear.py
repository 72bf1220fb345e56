"""Linear layers whose bits are the same on Intel and AMD, at full speed: NumPy's OpenBLAS multiplies, with its kernels
for Haswell.

MKL gives such bits by its compatible path alone, at a third of the speed. docs/numerics.md has the measurements.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

KERNELS = b"Haswell"
_torch_linear = F.linear


class _Product(torch.autograd.Function):
    """The product of two matrices; may be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return _multiply(left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        left, right = ctx.saved_tensors
        need_left, need_right = ctx.needs_input_grad
        return product(gradient, right.t()) if need_left else None, product(left.t(), gradient) if need_right else None


class _Linear(torch.autograd.Function):
    """The linear layer of a matrix of rows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        outputs = _multiply(inputs, weight.t())
        return outputs if bias is None else outputs.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        need_inputs, need_weight, need_bias = ctx.needs_input_grad
        return (
            product(gradient, weight) if need_inputs else None,
            product(gradient.t(), inputs) if need_weight else None,
            gradient.sum(0) if need_bias else None,
        )


def product(left: Tensor, right: Tensor) -> Tensor:
    """The product of two float32 matrices."""
    return _Product.apply(left, right) if torch.is_grad_enabled() else _multiply(left, right)  # type: ignore[no-untyped-call]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Stands in for `torch.nn.functional.linear`; what is not plain float32 goes there."""
    if (
        not (input.dtype is weight.dtype is torch.float32 and (bias is None or bias.dtype is torch.float32))
        or input.dim() == 0
        or weight.dim() != 2
        or input.shape[-1] != weight.shape[1]  # torch says what is wrong
        or torch.is_autocast_enabled("cpu")
        or not input.is_cpu
        or torch._C._are_functorch_transforms_active()
    ):
        return _torch_linear(input, weight, bias)
    if input.dim() == 2:
        return _Linear.apply(input, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    return _Linear.apply(input.reshape(-1, input.shape[-1]), weight, bias).view(*input.shape[:-1], len(weight))  # type: ignore[no-any-return, no-untyped-call]


def install_linear(threads: int) -> None:
    """Bring OpenBLAS to the kernels that OPENBLAS_CORETYPE names, and linear layers to OpenBLAS.

    Raises:
        RuntimeError: NumPy isn't that of PyPI, or OpenBLAS has taken other kernels.
    """
    library = _openblas()
    if library is None:
        raise RuntimeError(
            "numerics 'portable' needs the NumPy of PyPI, which brings OpenBLAS along; this one is another build"
        )
    # OpenBLAS chose its kernels when NumPy was imported, perhaps before the variable was set: let it choose again.
    library.gotoblas_dynamic_quit()
    library.gotoblas_dynamic_init()
    library.scipy_openblas_set_num_threads64_(threads)
    library.scipy_openblas_get_corename64_.restype = ctypes.c_char_p
    took = library.scipy_openblas_get_corename64_()
    if took != KERNELS or library.scipy_openblas_get_num_threads64_() != threads:
        raise RuntimeError(f"numerics 'portable' did not take effect: OpenBLAS computes with {took!r}")
    F.linear = linear


def _openblas() -> ctypes.CDLL | None:
    """The library that NumPy's wheels for Linux bring along."""
    for path in (Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas64_*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "gotoblas_dynamic_init"):
            return library
    return None


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    # Memory of torch's: aligned as other operations expect it.
    out = torch.empty(left.shape[0], right.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, as in torch, and no warning
        np.matmul(left.numpy(), right.numpy(), out=out.numpy())
    return out
