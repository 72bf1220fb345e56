"""The loop of a first PyTorch lesson, and Surefoot's, on the same rows in the same order."""

import torch

from surefoot.data.order import RowOrder
from tutorial import draw, lab

SHOWN = (1, 2, 3, 10, 30)


def train(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    orders: list[torch.Tensor],
    size: int,
    lr: float,
    momentum: float,
) -> list[float]:
    """The loop of a first lesson; gives the mean loss of each epoch."""
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    losses = []
    for order in orders:  # an epoch: every row once, in an order of its own
        total = 0.0
        for rows in order.split(size):  # a step: the next minibatch
            optimizer.zero_grad()
            loss = loss_function(model(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / len(order))
    return losses


def main() -> None:
    """Train by both, and compare every weight."""
    params = lab.params()
    trainer = lab.trainer(params)
    model, data = trainer.model, trainer.training
    inputs, targets = data.inputs[:], data.targets[:]
    orders = [
        torch.from_numpy(RowOrder(len(targets), params.seed, epoch).indices())
        for epoch in range(1, params.train.epochs + 1)
    ]
    plain = train(model, inputs, targets, orders, params.batch.size, params.train.lr, params.train.momentum)

    history = []
    for metrics, trainer in lab.epochs(params):  # noqa: B007
        history.append(metrics)
    ours = [metrics["train/loss"] for metrics in history]
    draw.table(
        ("epoch", "loss, plain loop", "loss, Surefoot"),
        *((f"{epoch}", f"{plain[epoch - 1]:.6f}", f"{ours[epoch - 1]:.6f}") for epoch in SHOWN),
    )
    differing = sum(int((a != b).sum()) for a, b in zip(model.parameters(), trainer.model.parameters(), strict=True))
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"weights that differ after {len(ours)} epochs: {differing} of {weights:,}")

    figure, (axes,) = draw.panels("The same training by two loops")
    epochs = range(1, len(ours) + 1)
    axes.semilogy(epochs, plain, color=draw.COLOURS[4], linewidth=6, alpha=0.6, label="training loss, plain loop")
    axes.semilogy(epochs, ours, label="training loss, Surefoot", **draw.style(0))
    axes.semilogy(
        epochs, [metrics["validation/loss"] for metrics in history], label="validation loss, Surefoot", **draw.style(1)
    )
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    draw.save(figure, "loop")
