"""SGD against Adam, each at its best learning rate, over the same epochs."""

from math import isfinite
from statistics import mean, stdev
from typing import Any

from tutorial import draw, lab

SEEDS = range(3)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"train__optimizer": {"name": "SGD"}, "train__momentum": 0.0},
    "SGD, momentum 0.9": {"train__optimizer": {"name": "SGD"}, "train__momentum": 0.9},
    "Adam": {"train__optimizer": {"name": "Adam"}, "train__momentum": 0.0},
}
LRS = {"SGD": (0.1, 0.3, 1.0, 2.0), "SGD, momentum 0.9": (0.01, 0.03, 0.1, 0.2), "Adam": (0.001, 0.003, 0.01, 0.03)}
DEEP = {"train__model__arguments": {"hidden": [64] * 10}}
DEEP_LRS = {"SGD, momentum 0.9": (0.01, 0.03, 0.1), "Adam": (0.001, 0.003)}


def main() -> None:
    """Train with each at several learning rates: the default network, and a very deep one."""
    lab.pinned(lab.params())
    figure, (left, right) = draw.panels(
        "Digits: 3 seeds at each lr", "A network of 11 layers, at the best lr", ratio=(3, 2)
    )
    at_best: dict[str, list[float]] = {}
    rows = [("optimizer", "best lr", "validation loss", "between seeds", "accuracy")]
    for number, (name, settings) in enumerate(OPTIMIZERS.items()):
        tried = {lr: [_last(settings, lr, seed) for seed in SEEDS] for lr in LRS[name]}
        found = {
            lr: [last for last in lasts if last] for lr, lasts in tried.items() if all(lasts)
        }  # without those that diverged
        losses = {lr: [last["validation/loss"] for last in lasts] for lr, lasts in found.items()}
        best = min(losses, key=lambda lr: mean(losses[lr]))
        at_best[name] = losses[best]
        accuracy = mean(last["validation/accuracy"] for last in found[best])
        rows.append((name, f"{best:g}", f"{mean(losses[best]):.3f}", f"± {stdev(losses[best]):.3f}", f"{accuracy:.3f}"))
        left.loglog(list(losses), [mean(values) for values in losses.values()], label=name, **draw.style(number))
        for lr, values in losses.items():
            left.plot(
                [lr] * len(values),
                values,
                marker=draw.MARKERS[number],
                markersize=4,
                linestyle="",
                color=draw.COLOURS[number],
                alpha=0.4,
            )
    left.set(xlabel="train.lr", ylabel="validation loss after 30 epochs")
    left.set_yticks([0.07, 0.1, 0.2, 0.5, 1, 2], ["0.07", "0.1", "0.2", "0.5", "1", "2"])
    left.legend(fontsize=9)
    left.yaxis.minorticks_off()
    first, last_layer = _gradient_lengths()
    for number, (name, lrs) in enumerate(DEEP_LRS.items(), 1):
        histories = {lr: _history({**OPTIMIZERS[name], **DEEP}, lr, 0) for lr in lrs}
        best = min(
            lrs, key=lambda lr: histories[lr][-1]["validation/loss"] if len(histories[lr]) == 30 else float("inf")
        )
        last = histories[best][-1]
        rows.append(
            (
                f"11 layers, {name}",
                f"{best:g}",
                f"{last['validation/loss']:.3f}",
                "one seed",
                f"{last['validation/accuracy']:.3f}",
            )
        )
        right.plot(
            range(1, 31),
            [metrics["train/loss"] for metrics in histories[best]],
            label=f"{name}, lr {best:g}",
            **draw.style(number, 3),
        )
    right.set(xlabel="epoch", ylabel="training loss")
    right.legend(fontsize=9)
    draw.table(*rows)
    less = sum(adam < sgd for adam, sgd in zip(at_best["Adam"], at_best["SGD, momentum 0.9"], strict=True))
    print(f"Adam's validation loss is below that of SGD with momentum on {less} of {len(SEEDS)} seeds")
    print(
        f"11 layers before the first step: the first one's gradient is {last_layer / first:.0f} times as short as the"
        " last one's"
    )
    draw.save(figure, "optimizers")


def _gradient_lengths() -> tuple[float, float]:
    """Of the weights of the deep network's first layer and of its last, on all training rows."""
    trainer = lab.trainer(lab.params(**DEEP))
    trainer.objective.loss(trainer.model(trainer.training.inputs[:]), trainer.training.targets[:]).backward()
    lengths = [
        float(weights.grad.norm()) for name, weights in trainer.model.named_parameters() if name.endswith("weight")
    ]
    return lengths[0], lengths[-1]


def _history(settings: dict[str, Any], lr: float, seed: int) -> list[lab.Epoch]:
    """The epochs, as far as they went."""
    from surefoot.training.divergence import Diverged

    history: list[lab.Epoch] = []
    try:
        for metrics, _ in lab.epochs(lab.params(**settings, train__lr=lr, seed=seed)):
            history.append(metrics)
    except Diverged:
        pass
    return history


def _last(settings: dict[str, Any], lr: float, seed: int) -> lab.Epoch | None:
    """The last epoch; None where training diverged."""
    history = _history(settings, lr, seed)
    return history[-1] if len(history) == 30 and isfinite(history[-1]["validation/loss"]) else None
