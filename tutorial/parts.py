"""A model, its loss and its optimizer; and what one step does, by its length."""

import math

from tutorial import draw, lab


def main() -> None:
    """Build them as the stage train does, take a step by hand, and many steps of different lengths."""
    params = lab.params()
    lab.pinned(params)
    import numpy as np
    import torch

    trainer = lab.trainer(params)
    model, loss, optimizer = trainer.model, trainer.objective.loss, trainer.optimizer
    inputs, targets = trainer.training.inputs[:], trainer.training.targets[:]
    print(model)
    print(f"{sum(weights.numel() for weights in model.parameters()):,} weights")

    before = loss(model(inputs), targets)
    before.backward()
    print(
        f"loss before the first step {before.item():.3f}; of a guess that gives each of 10 classes the same chance:"
        f" {math.log(10):.3f}"
    )

    start = [weights.detach().clone() for weights in model.parameters()]
    by_hand = [weights - params.train.lr * weights.grad for weights in model.parameters()]
    optimizer.step()
    largest = max(
        float((hand - weights).detach().abs().max()) for hand, weights in zip(by_hand, model.parameters(), strict=True)
    )
    print(f"weights by optimizer.step() and by hand differ by at most {largest:.0e}, which is rounding")

    lrs = np.logspace(-3, 2, 101)
    losses = []
    with torch.no_grad():
        for lr in lrs:
            for weights, first in zip(model.parameters(), start, strict=True):
                weights.copy_(first - float(lr) * weights.grad)
            losses.append(loss(model(inputs), targets).item())
    best = int(np.argmin(losses))
    draw.table(
        ("lr of the step", "loss after it"),
        *((f"{lrs[row]:.3g}", f"{losses[row]:.3f}") for row in sorted({0, 20, 40, best, 60, 70, 80, 100})),
    )
    print(f"the best single step is of lr {lrs[best]:.2g}")

    figure, (axes,) = draw.panels("Loss on all training rows after one step from the same start")
    axes.loglog(lrs, losses, color=draw.COLOURS[0], label="after the step")
    axes.axhline(before.item(), color="0.5", linestyle=":", label="before the step")
    axes.plot(lrs[best], losses[best], "o", color=draw.COLOURS[1], label=f"the best single step: lr {lrs[best]:.2g}")
    axes.set(xlabel="learning rate of the step", ylabel="loss", ylim=(0.5, 300))
    axes.legend()
    draw.save(figure, "parts")
