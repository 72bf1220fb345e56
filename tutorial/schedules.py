"""Changing the learning rate as training goes, by a plan and by feedback, where minibatches are so noisy that it
matters.
"""

from statistics import mean, stdev
from typing import Any

from tutorial import draw, lab

# Linear regression: 309 training rows, 10 inputs. The least possible loss can be computed, so how far a training is
# from it can be seen.
TASK: dict[str, Any] = {
    "prepare__source": "sklearn:diabetes",
    "prepare__target": "progression",
    "prepare__task": "regression",
    "prepare__normalize_target": "none",  # so that the loss is in the target's own unit
    "batch__shape": None,
    "batch__size": 8,
    "train__model__arguments": {"hidden": []},
    "train__epochs": 40,
}
WARM_UP = {"name": "LinearLR", "arguments": {"start_factor": 0.01, "total_iters": 200}, "per": "step", "length": 200}
COSINE = {"name": "CosineAnnealingLR", "per": "step"}
PLANS: dict[str, tuple[float, Any]] = {
    "constant, large": (0.01, {"name": "constant"}),
    "constant, small": (0.001, {"name": "constant"}),
    "step": (0.01, {"name": "StepLR", "arguments": {"step_size": 15, "gamma": 0.1}}),
    "warm-up, cosine": (0.01, [WARM_UP, COSINE]),
    "one cycle": (0.01, {"name": "OneCycleLR", "per": "step"}),
    "on plateau": (0.01, {"name": "ReduceLROnPlateau", "arguments": {"factor": 0.2, "patience": 3}}),
}


def main() -> None:
    """Train by each plan; then the same on the digits, where it hardly matters."""
    lab.pinned(lab.params())
    figure, (left, right) = draw.panels("Learning rate", "Training loss above the least possible")
    rows: list[tuple[str, ...]] = [("schedule", "train.lr", "above the least, epoch 10", "20", "40")]
    for number, (name, (lr, plan)) in enumerate(PLANS.items()):
        lrs, above = [], []
        for metrics, trainer in lab.epochs(lab.params(**TASK, train__lr=lr, train__schedule=plan)):
            lrs.append(metrics["lr"])
            above.append(_above_least(trainer))
        rows.append((name, f"{lr:g}", *(f"{above[epoch - 1]:.1f}" for epoch in (10, 20, 40))))
        left.semilogy(range(1, 41), lrs, label=name, **draw.style(number, 4))
        right.semilogy(range(1, 41), above, label=name, **draw.style(number, 4))
    draw.table(*rows)
    left.set(xlabel="epoch", ylabel="lr at the epoch's end", ylim=(1e-5, 0.02))
    right.set(xlabel="epoch", ylabel="mean squared error above the least")
    figure.legend(*right.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(PLANS))
    draw.save(figure, "schedules")

    for name, schedule in {"constant": {"name": "constant"}, "cosine": COSINE}.items():
        losses = [
            lab.train(seed=seed, train__lr=0.03, train__schedule=schedule)[-1]["validation/loss"] for seed in range(3)
        ]
        print(f"digits, {name}: validation loss {mean(losses):.3f}, give or take {stdev(losses):.3f} between 3 seeds")


def _above_least(trainer: Any) -> float:
    """The loss on all training rows, less that of the best weights that there are, which least squares gives."""
    import torch

    inputs, targets = trainer.training.inputs[:].double().flatten(1), trainer.training.targets[:].double()
    with torch.no_grad():
        loss = ((trainer.model(trainer.training.inputs[:]).double().flatten() - targets) ** 2).mean()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(inputs, targets[:, None]).solution.flatten()
    return float(loss - ((inputs @ best - targets) ** 2).mean())
