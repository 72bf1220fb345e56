"""The contenders: four ways to train one network on the same rows. Importing this imports torch: pin numerics first."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot.data.order import epoch_order
from surefoot.training.sgd import minibatches, train_epoch

SEED = 0


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

        loader = DataLoader(TensorDataset(training.inputs, training.targets), batch_size=training.batch_size, shuffle=True)
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
    """What `surefoot.training.sgd.epochs` does in an epoch, without the validation."""
    steps = 0
    for epoch in range(1, training.epochs + 1):
        order = torch.from_numpy(epoch_order(len(training.targets), SEED, epoch))
        batches = minibatches(training.inputs, training.targets, order, training.batch_size)
        _, bad_step = train_epoch(training.model, training.loss_function, training.optimizer, batches, SEED, steps)
        assert bad_step is None
        steps += -(-len(order) // training.batch_size)


CONTENDERS: dict[str, Callable[[Training], None]] = {"tutorial": tutorial, "lightning": lightning, "bare": bare, "ours": ours}
