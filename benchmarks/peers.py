"""Contenders that compile, and the matrix products that none can do without. Importing this imports torch: pin numerics
first.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from benchmarks.loops import Training


def compiled(training: "Training") -> None:
    """The bare loop with `torch.compile` on the network with its loss, and on the optimizer's step."""
    if not training.held:
        model, loss_function = training.model, training.loss_function
        training.held = (
            torch.compile(lambda inputs, targets: loss_function(model(inputs), targets), dynamic=False),
            torch.compile(training.optimizer.step, dynamic=False),
        )
    loss_of, update = training.held
    for _ in range(training.epochs):
        # Without the last minibatch, which is smaller and would be compiled by itself.
        for rows in _whole(torch.randperm(len(training.targets)), training.batch_size):
            training.optimizer.zero_grad()
            loss_of(training.inputs[rows], training.targets[rows]).backward()
            update()


def jax_scan(training: "Training") -> None:
    """JAX's `lax.scan` over an epoch, with losses and gradients' norms. Raises ImportError where it isn't there."""
    if not training.held:
        training.held = _jax_epoch(training)
    state, epoch = training.held
    for _ in range(training.epochs):
        rows = torch.stack(_whole(torch.randperm(len(training.targets)), training.batch_size))
        state, found = epoch(state, rows.numpy())
        float(found.sum())  # waits for it
    training.held = state, epoch


def products(training: "Training") -> None:
    """The matrix products of the linear layers, forward and backward: no gathering, no loss, no update."""
    weights = [layer.weight.detach() for layer in training.model.modules() if isinstance(layer, nn.Linear)]
    size = training.batch_size
    hidden = [torch.randn(size, len(weight)) for weight in weights]
    steps = len(training.targets) // size
    with torch.no_grad():
        for step in range(training.epochs * steps):
            first = step % steps * size
            layers = [training.inputs[first : first + size].flatten(1), *hidden]
            for number, weight in enumerate(weights):
                torch.mm(layers[number], weight.t())
                torch.mm(layers[number + 1].t(), layers[number])
                if number:
                    torch.mm(layers[number + 1], weight)


def _whole(rows: Tensor, size: int) -> list[Tensor]:
    return list(rows[: len(rows) // size * size].split(size))


def _jax_epoch(training: "Training") -> tuple[Any, Callable[[Any, Any], Any]]:
    """The weights and momenta as JAX has them, and a function of them and of the rows of each step."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    options = training.optimizer.defaults
    layers = [layer for layer in training.model.modules() if not isinstance(layer, nn.Sequential)]
    weights = [[jnp.asarray(values.detach().numpy()) for values in layer.parameters()] for layer in layers]
    inputs, targets = jnp.asarray(training.inputs.numpy()), jnp.asarray(training.targets.numpy())

    def loss_of(weights: Any, rows: Any) -> Any:
        values = inputs[rows]
        for layer, own in zip(layers, weights, strict=True):
            values = _JAX_LAYERS[type(layer)](jax, values, layer, *own)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(values), targets[rows][:, None], axis=1)
        return -chosen.mean()

    def step(state: Any, rows: Any) -> Any:
        weights, momenta = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows)
        norm = jnp.sqrt(sum(jnp.vdot(some, some) for some in jax.tree.leaves(gradients)))
        momenta = jax.tree.map(lambda old, new: options["momentum"] * old + new, momenta, gradients)
        weights = jax.tree.map(lambda old, momentum: old - options["lr"] * momentum, weights, momenta)
        return (weights, momenta), jnp.stack([loss, norm])

    scanned = jax.jit(lambda state, rows: jax.lax.scan(step, state, rows), donate_argnums=0)
    return (weights, jax.tree.map(jnp.zeros_like, weights)), scanned


def _jax_norm(jax: Any, values: Any, layer: nn.BatchNorm2d, weight: Any, bias: Any) -> Any:
    mean, variance = values.mean((0, 2, 3), keepdims=True), values.var((0, 2, 3), keepdims=True)
    scaled = (values - mean) * jax.lax.rsqrt(variance + layer.eps)
    return scaled * weight[:, None, None] + bias[:, None, None]


_JAX_LAYERS: dict[type, Callable[..., Any]] = {
    nn.Flatten: lambda jax, values, layer: values.reshape(len(values), -1),
    nn.Linear: lambda jax, values, layer, weight, bias: values @ weight.T + bias,
    nn.ReLU: lambda jax, values, layer: jax.nn.relu(values),
    nn.Conv2d: lambda jax, values, layer, weight, bias: (
        jax.lax.conv_general_dilated(values, weight, (1, 1), "SAME") + bias[:, None, None]
    ),
    nn.MaxPool2d: lambda jax, values, layer: jax.lax.reduce_window(
        values, -float("inf"), jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
    ),
    nn.BatchNorm2d: _jax_norm,
}
