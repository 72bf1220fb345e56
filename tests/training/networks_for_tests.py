"""Factories that are right and wrong in one way each."""

from math import prod

import torch
from torch import nn

not_a_function = 3


def good(input_shape, classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, classes))


def returns_a_list(input_shape, classes):
    return [1]


def fails(input_shape, classes):
    raise ValueError("no such\nwidth")


def one_output_too_many(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(2, classes + 1))


class Forward(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.what = what

    def forward(self, inputs):
        return self.what(self, inputs)


def fails_in_forward(input_shape, classes):
    def forward(self, inputs):
        raise RuntimeError("mat1 and mat2\n  do not fit")  # the line that is named

    return Forward(forward)


def gives_a_tuple(input_shape, classes):
    return Forward(lambda self, inputs: (inputs, inputs))


def gives_classes(input_shape, classes):
    return Forward(lambda self, inputs: torch.zeros(len(inputs), classes, dtype=torch.int64))


def gives_one_row(input_shape, classes):
    return Forward(lambda self, inputs: torch.zeros(1, classes))


def explodes(input_shape, classes):
    """Logits that become infinite as soon as a step was taken."""
    return Forward(lambda self, inputs: (self.weight * 1e38 * 1e10).expand(len(inputs)).unsqueeze(1) * torch.eye(classes)[0])
