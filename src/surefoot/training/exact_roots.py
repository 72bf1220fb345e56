"""Square roots whose bits are the same on Intel and AMD: correctly rounded, by way of double precision.

torch takes them from MKL's vector library, which rounds by the kind of processor. docs/numerics.md has what was
measured.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_torch_sqrt = torch.sqrt


def sqrt(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Stands in for `torch.sqrt`; what isn't float32 on the CPU goes there.

    The root of a float is never so near the middle between two floats that an error in the last place of a double could
    round it to the wrong one.
    """
    if input.dtype is not torch.float32 or not input.is_cpu:
        return _torch_sqrt(input, out=out)
    root = _torch_sqrt(input.double()).float()
    return root if out is None else torch.mul(root, 1, out=out)


def install_roots() -> None:
    """Bring all of torch's ways to a square root here."""
    for (owner, name), function in _WAYS.items():
        setattr(owner, name, function)


def _sqrt_in_place(input: Tensor) -> Tensor:
    return input.copy_(sqrt(input))


def _half(power: Callable[..., Tensor], root: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A power, but a root where the exponent is one half, as torch has it."""

    def function(input: Any, exponent: Any, **out: Any) -> Tensor:
        is_root = isinstance(input, Tensor) and isinstance(exponent, float) and exponent == 0.5
        return root(input, **out) if is_root else power(input, exponent, **out)

    return function


_WAYS: dict[tuple[Any, str], Callable[..., Any]] = {
    (torch, "sqrt"): sqrt,
    (torch, "sqrt_"): _sqrt_in_place,
    (torch, "pow"): _half(torch.pow, sqrt),
    (torch, "_foreach_sqrt"): lambda inputs: [sqrt(input) for input in inputs],
    (torch, "_foreach_sqrt_"): lambda inputs: [_sqrt_in_place(input) for input in inputs],
    # Functions written in Python are methods, as torch's own are.
    (Tensor, "sqrt"): lambda self: sqrt(self),
    (Tensor, "sqrt_"): _sqrt_in_place,
    **{(Tensor, name): _half(getattr(Tensor, name), sqrt) for name in ("pow", "__pow__")},
    **{(Tensor, name): _half(getattr(Tensor, name), _sqrt_in_place) for name in ("pow_", "__ipow__")},
}
