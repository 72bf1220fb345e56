import numpy as np
import pytest
import torch

from surefoot.training import exact_roots, numerics

ONE_HALF = 0.5
WAYS = {
    "torch.sqrt": lambda x: torch.sqrt(x),
    "torch.sqrt, out": lambda x: torch.sqrt(x, out=torch.empty_like(x)),
    "torch.sqrt_": lambda x: torch.sqrt_(x.clone()),
    "torch.pow": lambda x: torch.pow(x, ONE_HALF),
    "torch.pow, out": lambda x: torch.pow(x, ONE_HALF, out=torch.empty_like(x)),
    "torch._foreach_sqrt": lambda x: torch._foreach_sqrt([x])[0],
    "torch._foreach_sqrt_": lambda x: _in_place(torch._foreach_sqrt_, x),
    "sqrt": lambda x: x.sqrt(),
    "sqrt_": lambda x: x.clone().sqrt_(),
    "pow": lambda x: x.pow(ONE_HALF),
    "pow_": lambda x: x.clone().pow_(ONE_HALF),
    "**": lambda x: x**ONE_HALF,
    "**=": lambda x: _power_in_place(x.clone()),
}


def _in_place(function, x):
    changed = x.clone()
    function([changed])
    return changed


def _power_in_place(x):
    x **= ONE_HALF
    return x


@pytest.mark.parametrize("way", WAYS)
def test_roots_are_correctly_rounded(way):
    numerics.pin("portable", 1)
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    assert WAYS[way](x).numpy().tobytes() == np.sqrt(x.numpy()).tobytes()


def test_every_mantissa_is_correctly_rounded():
    for exponent in (127, 128):
        for first in range(0, 1 << 23, 1 << 20):
            x = (np.arange(first, first + (1 << 20), dtype=np.uint32) | np.uint32(exponent << 23)).view(np.float32)
            assert np.array_equal(exact_roots.sqrt(torch.from_numpy(x)).numpy(), np.sqrt(x))


def test_special_values_are_those_of_torch():
    x = torch.tensor([0.0, -0.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-40, 1.4e-45])
    with np.errstate(invalid="ignore"):
        assert np.array_equal(exact_roots.sqrt(x).numpy(), np.sqrt(x.numpy()), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.complex64])
def test_what_is_not_float32_goes_to_torch(dtype):
    x = torch.arange(1, 9).to(dtype)
    assert torch.equal(x.sqrt(), exact_roots._torch_sqrt(x)) and x.sqrt().dtype == exact_roots._torch_sqrt(x).dtype


def test_other_powers_are_those_of_torch():
    x = torch.rand(50)
    assert torch.equal(x**2, x * x) and torch.equal(2**x, torch.full((), 2.0).pow(x))
    assert (x.__pow__("half")) is NotImplemented
    with pytest.raises(TypeError):
        x ** "half"


def test_gradients_are_those_of_the_root():
    for root in (lambda x: x.sqrt(), lambda x: x**ONE_HALF, lambda x: (x * 1).sqrt_()):
        x = torch.tensor([0.25, 4.0], requires_grad=True)
        root(x).sum().backward()
        assert x.grad.tolist() == [1.0, 0.25]
