"""A multilayer perceptron."""

from math import prod

from torch import nn


def mlp(input_shape: tuple[int, ...], outputs: int, hidden: list[int] | None = None, dropout: float = 0.0) -> nn.Module:
    """Fully connected layers with ReLU: inputs (rows, *input_shape) to (rows, outputs)."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(input_shape)
    for units in [128] if hidden is None else hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    return nn.Sequential(*layers, nn.Linear(width, outputs))
