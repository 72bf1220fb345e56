import pytest
import torch
from torch import nn
from torch.nn import functional as F

from surefoot.training import openblas_linear
from surefoot.training.network import to_bytes

plain = openblas_linear._torch_linear


def tensors(*shapes, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def gradients(linear, inputs, weight, bias, dtype):
    leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (inputs, weight, bias)]
    outputs = linear(*leaves)
    outputs.square().sum().backward()
    return [outputs.detach(), *(leaf.grad for leaf in leaves)]


def test_portable_has_replaced_linear():
    assert F.linear is openblas_linear.linear
    layer = nn.Linear(3, 2)
    assert "_Linear" in type(layer(torch.randn(5, 3)).grad_fn).__name__


@pytest.mark.parametrize("shape", [(64, 30), (1, 30), (0, 30), (4, 5, 30), (30,), (2, 3, 4, 30)])
@pytest.mark.parametrize("outputs", [1, 17])
def test_outputs_and_gradients_are_those_of_torch(shape, outputs):
    given = tensors(shape, (outputs, 30), (outputs,))
    exact, ours = gradients(plain, *given, torch.float64), gradients(openblas_linear.linear, *given, torch.float32)
    for right, mine in zip(exact, ours, strict=True):
        assert mine.dtype is torch.float32 and mine.shape == right.shape and mine.is_contiguous()
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-4)


def test_without_bias_and_without_gradients():
    inputs, weight = (tensor.float() for tensor in tensors((6, 5), (4, 5)))
    with torch.inference_mode():
        torch.testing.assert_close(openblas_linear.linear(inputs, weight), plain(inputs, weight))
    weight.requires_grad_()
    openblas_linear.linear(inputs, weight).sum().backward()
    torch.testing.assert_close(weight.grad, inputs.sum(0).expand(4, 5))


def test_what_overflows_is_infinite_and_no_warning():
    assert openblas_linear.linear(torch.full((2, 3), 1e30), torch.full((4, 3), 1e30)).isinf().all()


def test_strided_inputs():
    inputs, weight = (tensor.float() for tensor in tensors((10, 6), (4, 5)))
    for view in (inputs[::2, 1:], inputs.t()[:, :5], torch.ones(1, 1).expand(7, 5)):
        torch.testing.assert_close(openblas_linear.linear(view, weight), plain(view, weight))


def test_gradients_of_gradients_are_those_of_torch():
    """As a gradient penalty needs."""

    def penalty(linear, dtype):
        inputs, weight, bias = (
            tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors((6, 5), (4, 5), (4,))
        )
        (slope,) = torch.autograd.grad(torch.tanh(linear(inputs, weight, bias)).sum(), inputs, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (inputs, weight, bias))

    for right, mine in zip(penalty(plain, torch.float64), penalty(openblas_linear.linear, torch.float32), strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-4)


def test_other_types_and_transforms_go_to_torch():
    inputs, weight = tensors((6, 5), (4, 5))
    assert torch.equal(openblas_linear.linear(inputs, weight), plain(inputs, weight))
    inputs, weight = inputs.float(), weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert openblas_linear.linear(inputs, weight).dtype is torch.bfloat16
    mapped = torch.vmap(lambda row: openblas_linear.linear(row, weight))(inputs)
    torch.testing.assert_close(mapped, plain(inputs, weight))
    per_row = torch.func.jacrev(lambda weight: openblas_linear.linear(inputs, weight))(weight)
    assert per_row.shape == (6, 4, 4, 5)


def test_what_does_not_fit_gets_torchs_own_words():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        openblas_linear.linear(torch.ones(3, 4), torch.ones(2, 5))


def test_layers_that_are_built_on_linear_train():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    layer(torch.randn(3, 4, 8)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert len(to_bytes(layer.state_dict())) > 0
