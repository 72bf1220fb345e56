"""The network that is trained, as `train.model.factory` in params.yaml names it. It is yours: change it."""

from math import prod

from torch import nn


def network(input_shape: tuple[int, ...], outputs: int, hidden: list[int]) -> nn.Module:
    """Fully connected layers: inputs (rows, *input_shape) to (rows, outputs); `hidden` is the width of each between."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(input_shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, outputs))
