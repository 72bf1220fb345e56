"""Factories that are right and wrong in one way each."""

import os
import resource
import signal
from math import prod
from pathlib import Path

import torch
from torch import nn

not_a_function = 3


def good(input_shape, classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, classes))


def normalized(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 6), nn.BatchNorm1d(6), nn.Linear(6, classes))


def takes_the_schema(input_shape, outputs, schema):
    return good(input_shape, outputs)


def steep(times=1000.0):
    """A loss with gradients that large."""
    return lambda outputs, targets: nn.functional.cross_entropy(outputs, targets) * times


def nan_at(call):
    """A loss that is NaN when it is asked for the n-th time."""
    calls = []

    def loss(outputs, targets):
        calls.append(True)
        return nn.functional.cross_entropy(outputs, targets) * (float("nan") if len(calls) == call else 1.0)

    return loss


def kinked():
    """A finite loss whose gradient isn't: that of a root at zero."""
    return lambda outputs, targets: nn.functional.cross_entropy(outputs, targets) + (outputs * 0).square().sum().sqrt()


def cross_entropy():
    return nn.CrossEntropyLoss()


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


def explodes(input_shape, classes, steps):
    """Right for so many steps of training, and NaN in those after it."""
    taken = []

    def forward(self, inputs):
        if self.training:
            taken.append(True)
        logits = self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)
        return logits * (float("nan") if len(taken) > steps else 1.0)

    return Forward(forward)


def on_large_rows(input_shape, classes, what):
    """Goes wrong in training on rows whose first number is large, whatever came before them."""

    def forward(self, inputs):
        logits = self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)
        if self.training and (inputs[:, 0] > 1.5).any():
            if what == "fails":
                raise IndexError("a large row")
            if what == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            return logits * float("nan")
        return logits

    return Forward(forward)


def short_of_memory(input_shape, classes):
    """The last of two processes may have 32 MB more than it has, and needs 256, once there is a file `limited`."""

    def forward(self, inputs):
        if self.training and os.environ.get("RANK") == "1" and Path("limited").exists():
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (32 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            torch.zeros(256 << 20, dtype=torch.uint8)
        return self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.arange(classes)

    return Forward(forward)


def asks_to_be_stopped(input_shape, classes):
    """Sends its process a SIGTERM when it is trained on for the third time."""
    times = []

    def forward(self, inputs):
        if self.training:
            times.append(True)
        if len(times) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)

    return Forward(forward)


def is_not_deterministic(input_shape, classes):
    """By an operation that has no deterministic kernel on the CPU either."""

    def forward(self, inputs):
        logits = self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)
        return logits + torch.zeros_like(logits).put_(torch.tensor([0]), torch.ones(1))

    return Forward(forward)


def fails_in_the_third_step(input_shape, classes):
    times = []

    def forward(self, inputs):
        times.append(self.training)
        if sum(times) == 3:
            raise IndexError("no third step")
        return self.weight * inputs.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)

    return Forward(forward)


def changes_the_threads(input_shape, classes):
    torch.set_num_threads(2)
    return good(input_shape, classes)


class Unexportable(nn.Linear):
    def forward(self, rows):
        return super().forward(rows) * (2 if float(rows.sum()) > 0 else 1)


def unexportable(input_shape, outputs, hidden=None):
    return Unexportable(input_shape[0], outputs)


class KeepsWhatItComputed(nn.Linear):
    """As old weight_norm does."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.twice = self.weight * 2


def keeps_what_it_computed(input_shape, outputs):
    return KeepsWhatItComputed(input_shape[0], outputs)


KEPT = nn.Linear(2, 3)


def gives_the_same(input_shape, outputs):
    return KEPT


def draws_by_chance(input_shape, outputs):
    network = nn.Linear(2, 3)
    with torch.no_grad():
        network.weight[0, 0] = int.from_bytes(os.urandom(2), "big")
    return network


class StopsBetweenSteps(nn.Linear):
    """Where there is a file `stop` its process is stopped by SIGSTOP once, when it validates and has stored a state."""

    def forward(self, inputs):
        if not self.training and Path("stop").exists() and any(Path(".surefoot/chain").glob("*.json")):
            Path("stop").unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().forward(inputs)


def stops_between_steps(input_shape, classes):
    return StopsBetweenSteps(2, classes)


def fails_where_told(input_shape, classes):
    """Can't be made by a process that has FAILS_HERE in its environment."""
    if "FAILS_HERE" in os.environ:
        raise OSError("it fails here")
    return nn.Sequential(nn.Flatten(), nn.Linear(2, classes))
