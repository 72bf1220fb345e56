"""The order in which rows are trained on: all shuffled together, or block by block, as data need that is larger than
memory.
"""

from statistics import mean, stdev
from typing import Any

from tutorial import draw, lab

WAYS: dict[str, dict[str, Any]] = {
    "full": {"batch__shuffle": "full"},
    "blocks": {"batch__shuffle": "blocks", "batch__block": 64, "batch__window": 4},
}


def main() -> None:
    """Draw the order of an epoch both ways, and train by both."""
    lab.pinned(lab.params())
    figure, axes = draw.panels("batch.shuffle: full", "batch.shuffle: blocks (64 rows, window of 4)")
    rows = [("batch.shuffle", "rows held in memory at once", "validation loss", "between 3 seeds")]
    for axis, (name, settings) in zip(axes, WAYS.items(), strict=True):
        params = lab.params(**settings)
        order = lab.batches(params).order(params.seed, 1).indices()
        axis.plot(range(len(order)), order, ".", markersize=3, color=draw.COLOURS[0])
        axis.set(xlabel="turn in the epoch", ylabel="row on disk")
        losses = [lab.train(**settings, seed=seed)[-1]["validation/loss"] for seed in range(3)]
        held = len(order) if name == "full" else params.batch.block * params.batch.window
        rows.append(
            (
                name if name == "full" else f"blocks of {params.batch.block}, window of {params.batch.window}",
                f"{held:,}",
                f"{mean(losses):.4f}",
                f"± {stdev(losses):.4f}",
            )
        )
    draw.table(*rows)
    draw.save(figure, "order")
