"""The contenders: ways to train one network on the same rows. Importing this imports torch: pin numerics first."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import peers
from benchmarks.workload import Workload
from surefoot.data.batch_store import open_store
from surefoot.data.order import RowOrder
from surefoot.run.chain import Chain
from surefoot.run.segments import cut_into_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.loop import Progress, Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.network import build
from surefoot.training.recorded.recorded_trainer import RecordedTrainer

SEED = 0
LR = 0.01


@dataclass
class Training:
    """What a contender is given: the network, its optimizer, and the rows in the form that it would have them in."""

    model: nn.Module
    loss_function: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    targets: Tensor
    batch_size: int
    epochs: int
    scratch: Path
    held: Any = None  # what a contender makes once


def prepare(contender: str, workload: Workload, directory: Path) -> Training:
    """The training that a contender is given.

    Ours reads memory-mapped rows, as it does in the pipeline, the others rows in memory.
    """
    if contender in OURS:
        split = open_store(directory).train
        inputs, targets = split.inputs, split.targets
    else:
        inputs, targets = (np.load(directory / "train" / f"{name}.npy") for name in ("inputs", "targets"))
    model = build(workload.factory, workload.arguments, tuple(workload.shape), workload.classes, SEED)
    optimizer = torch.optim.SGD(model.parameters(), **workload.optimizer)
    rows = (torch.from_numpy(inputs), torch.from_numpy(targets))
    return Training(
        model, torch.nn.CrossEntropyLoss(), optimizer, *rows, workload.batch_size, workload.epochs, directory
    )


def tutorial(training: Training) -> None:
    """The loop of the PyTorch tutorials: a DataLoader over a TensorDataset, the loss added up."""
    loader = DataLoader(TensorDataset(training.inputs, training.targets), batch_size=training.batch_size, shuffle=True)
    model, loss_function, optimizer = training.model, training.loss_function, training.optimizer
    for _ in range(training.epochs):
        running_loss = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_function(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()


def lightning(training: Training) -> None:
    """Lightning's Trainer with everything switched off. Raises ImportError where it isn't installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning.pytorch import LightningModule, Trainer

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

        class Module(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = training.model

            def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
                inputs, targets = batch
                return training.loss_function(self.model(inputs), targets)

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return training.optimizer

        loader = DataLoader(
            TensorDataset(training.inputs, training.targets), batch_size=training.batch_size, shuffle=True
        )
        Trainer(accelerator="cpu", max_epochs=training.epochs, barebones=True).fit(Module(), loader)


def bare(training: Training) -> None:
    """The least that is minibatch SGD: permute once an epoch, index the tensors, no loss kept."""
    model, loss_function, optimizer = training.model, training.loss_function, training.optimizer
    for _ in range(training.epochs):
        for rows in torch.randperm(len(training.targets)).split(training.batch_size):
            optimizer.zero_grad()
            loss = loss_function(model(training.inputs[rows]), training.targets[rows])
            loss.backward()
            optimizer.step()


def ours(training: Training) -> None:
    """What the stage `train` does in an epoch, without the validation and without keeping the chain; steps are
    recorded, in the round that warms up.
    """
    _train(training, RecordedTrainer)


def eager(training: Training) -> None:
    """The same with `train.step: eager`."""
    _train(training, Trainer)


def _train(training: Training, kind: type[Trainer]) -> None:
    if not training.held:
        training.held = _trainer(training, kind)
    steps = -(-len(training.targets) // training.batch_size)
    for epoch in range(training.epochs):
        training.held.train(_order(training, epoch), [[LR]] * steps, Progress(), epoch * steps)


def kept(training: Training) -> None:
    """Eager steps through a chain in an empty store: a state and a record for each epoch, and the validation of a few
    rows.
    """
    steps = -(-len(training.targets) // training.batch_size)
    next_segments = cut_into_segments({"benchmark": time.time_ns()}, lambda _: np.full(steps, LR), 0)
    with (
        tempfile.TemporaryDirectory(dir=training.scratch) as path,
        Chain(
            next_segments,
            training.epochs,
            TrajectoryStore(Path(path)),
            lambda: _trainer(training, Trainer),
            lambda epoch: _order(training, epoch),
        ) as chain,
    ):
        for _ in chain.follow():
            pass


def _trainer(training: Training, kind: type[Trainer]) -> Trainer:
    few = Rows(training.inputs[:10], training.targets[:10])
    optimizer = {
        name: value
        for name, value in training.optimizer.defaults.items()
        if name in ("momentum", "nesterov", "dampening", "weight_decay")
    }
    return kind(
        training.model,
        torch.optim.SGD(training.model.parameters(), lr=0.0, **optimizer),
        Rows(training.inputs, training.targets),
        few,
        training.batch_size,
        SEED,
    )


def _order(training: Training, epoch: int) -> RowOrder:
    return RowOrder(len(training.targets), SEED, epoch)


CONTENDERS: dict[str, Callable[[Training], None]] = {
    "tutorial": tutorial,
    "lightning": lightning,
    "bare": bare,
    "eager": eager,
    "ours": ours,
    "kept": kept,
    "compiled": peers.compiled,
    "jax": peers.jax_scan,
    "products": peers.products,
}
OURS = ("eager", "ours", "kept")
