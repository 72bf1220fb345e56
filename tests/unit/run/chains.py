"""Tiny chains to train within a test, and the same training written by hand."""

import math
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import nn

from surefoot.base import digests
from surefoot.data.order import RowOrder
from surefoot.run.chain import Chain
from surefoot.run.record import Record
from surefoot.run.segments import all_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.loop import Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.network import to_bytes
from surefoot.training.numerics import seed_step
from tests.helpers import some_run

SEED, ROWS, SIZE, CLASSES = 3, 45, 8, 3
STEPS = math.ceil(ROWS / SIZE)  # of an epoch: 6
OPTIMIZER = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


def make_rows(seed, rows):
    seed_step(seed, 99)
    return Rows(torch.randn(rows, 5), torch.randint(CLASSES, (rows,)))


TRAINING, VALIDATION = make_rows(0, ROWS), make_rows(1, 20)


def make_model():
    """Something of all that a state has: weights, buffers kept and not kept, dropout, a part frozen in
    evaluation mode.
    """
    seed_step(SEED, 0)
    model = nn.Sequential(
        nn.Linear(5, 7),
        nn.BatchNorm1d(7),
        Noise(),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(7, 6),
        nn.BatchNorm1d(6),
        nn.Linear(6, CLASSES),
    )
    model[6].eval()
    return model


class Noise(nn.Module):
    """Adds noise in training; counts its calls in a buffer that isn't persistent, and uses the count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, inputs):
        if not self.training:
            return inputs
        self.calls += 1
        return inputs + torch.randn_like(inputs) / (10 + self.calls)


def trainer(model, options, *more, **settings):
    """A trainer whose optimizer is SGD with these options."""
    return Trainer(model, torch.optim.SGD(model.parameters(), lr=0.0, **options), *more, **settings)


def make():
    return trainer(make_model(), OPTIMIZER, TRAINING, VALIDATION, SIZE, SEED)


def chain(parts, store, make, order, **options):
    """A chain of known segments."""
    epochs = groupby(parts, key=lambda part: part.epoch)
    return Chain(lambda _: list(next(epochs, (0, ()))[1]), parts[-1].epoch, store, make, order, **options)


def order(epoch):
    return torch.from_numpy(RowOrder(ROWS, SEED, epoch).indices())


def schedule(epochs, lr=0.05):
    """Falls from step to step."""
    return [lr / (1 + np.arange(epoch * STEPS, (epoch + 1) * STEPS) / 10) for epoch in range(epochs)]


def cut(epochs, checkpoint_every=0, lr=0.05):
    return all_segments({"test": 1}, schedule(epochs, lr), checkpoint_every)


@dataclass
class Outcome:
    """What a walk along a chain gave."""

    steps: int = 0
    said: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)  # epochs
    weights: bytes = b""


class Halt(Exception):
    """Stands for whatever stops a training."""


def walk(path, parts, *, stop=None, make=make, mark=False, **options):
    """Follow a chain in the store at `path`: one of known segments, or what `parts` makes of (store, **hooks).

    `stop`: after so many segments were trained.
    """
    store = path if isinstance(path, TrajectoryStore) else TrajectoryStore(path)
    outcome, calls = Outcome(), 0

    def check():
        nonlocal calls
        if stop is not None and calls >= stop:
            raise Halt
        calls += 1

    hooks = {"check": check, "say": outcome.said.append, **options}
    with (
        parts(store, **hooks) if callable(parts) else chain(parts, store, make, order, **hooks) as links,
        suppress(Halt),
    ):
        try:
            for reached in links.follow():
                outcome.records.append(reached.record)
                outcome.trained += [reached.record.epoch] if reached.trained else []
            outcome.steps = links.steps_trained
            outcome.weights = links.weights(links.segments[-1].key)
            if mark:
                best = min(outcome.records, key=lambda record: record.metrics["validation/loss"])
                keys = [part.key for part in parts if part.ends_epoch]
                identity = digests.sha256(parts[-1].key.encode())
                store.mark_run(some_run(identity, epoch_keys=keys, last=keys[-1], best=best.key))
        finally:
            outcome.steps = max(outcome.steps, links.steps_trained)
    return outcome


def by_hand(epochs, lr=0.05):
    """The loop of the tutorials, uninterrupted: for each step the digest of the state after it, metrics, and the last
    network.
    """
    model, loss_function = make_model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, **OPTIMIZER)
    states, metrics, step = {}, [], 0
    for epoch, lrs in enumerate(schedule(epochs, lr), 1):
        total = norm = 0.0
        for rows, rate in zip(order(epoch).split(SIZE), lrs, strict=True):
            step += 1
            seed_step(SEED, step)
            optimizer.param_groups[0]["lr"] = float(rate)
            optimizer.zero_grad()
            loss = loss_function(model(TRAINING.inputs[rows]), TRAINING.targets[rows])
            loss.backward()
            norm += math.hypot(*[parameter.grad.norm().item() for parameter in model.parameters()])
            optimizer.step()
            total += loss.item() * len(rows)
            tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | {
                "buffers.2.calls": model[2].calls
            }
            for number, parameter in enumerate(model.parameters()):
                tensors[f"optimizer.{number}.momentum_buffer"] = optimizer.state[parameter]["momentum_buffer"]
            states[step] = digests.sha256(to_bytes(tensors))
        model.eval()
        with torch.no_grad():
            logits = model(VALIDATION.inputs)
        model.train()
        model[6].eval()
        right = (logits.argmax(1) == VALIDATION.targets).double().mean().item()
        loss = loss_function(logits, VALIDATION.targets).item()
        metrics.append(
            {
                "train/loss": total / ROWS,
                "gradient_norm": norm / STEPS,
                "validation/loss": loss,
                "validation/accuracy": right,
                "lr": float(lrs[-1]),
            }
        )
    return states, metrics, to_bytes(dict(model.state_dict()))


class Scratch:
    """A directory that goes with the block, for tests by Hypothesis."""

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory()
        return Path(self._directory.name)

    def __exit__(self, *_):
        self._directory.cleanup()
