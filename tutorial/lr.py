"""The learning rate: too small, right, too large, diverging."""

from typing import TYPE_CHECKING

from tutorial import draw, lab

if TYPE_CHECKING:
    from tutorial.lab import Epoch

LRS = (0.0001, 0.001, 0.01, 0.1, 0.3, 1.0)


def main() -> None:
    """Train with each."""
    lab.pinned(lab.params())
    from surefoot.training.divergence import Diverged

    figure, (axes,) = draw.panels("Training loss by learning rate")
    rows = [("lr", "training loss", "validation loss", "accuracy")]
    for number, lr in enumerate(LRS):
        history: list[Epoch] = []
        try:
            for metrics, _ in lab.epochs(lab.params(train__lr=lr)):
                history.append(metrics)
            last = history[-1]
            rows.append(
                (
                    f"{lr:g}",
                    f"{last['train/loss']:.4f}",
                    f"{last['validation/loss']:.4f}",
                    f"{last['validation/accuracy']:.4f}",
                )
            )
            label = f"{lr:g}"
        except Diverged:
            rows.append((f"{lr:g}", "diverges", f"in epoch {len(history) + 1}", "-"))
            label = f"{lr:g}, diverges"
        if history:
            axes.semilogy(
                range(1, len(history) + 1),
                [metrics["train/loss"] for metrics in history],
                label=label,
                **draw.style(number),
            )
        else:
            axes.plot([], [], label=f"{label} in epoch 1", linestyle="", **draw.style(number))
    draw.table(*rows)
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(5e-4, 5e3))
    axes.legend(title="train.lr", ncols=3, fontsize=9, loc="upper right")
    draw.save(figure, "lr")
