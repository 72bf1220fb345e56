"""The course of a training: loss, what is measured beside it, learning rate and gradient norm over epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from surefoot.evaluation.plots import figures

MARKED = 60  # up to so many epochs each has a marker
SERIES = {
    "train/": ("training", figures.BLUE, "o"),
    "validation/": ("validation", figures.ORANGE, "s"),
    "validation/average_": ("validation, averaged weights", figures.GREEN, "^"),
}
NAMES = {
    "loss": ("Loss", "loss"),
    "accuracy": ("Accuracy", "share of rows that are right"),
    "mae": ("Mean absolute error", "in units of the target"),
    "lr": ("Learning rate", "learning rate"),
    "gradient_norm": ("Gradient norm", "norm of the gradient, all parameters"),
}


def training_plot(history: Mapping[str, Sequence[float]], chosen: int, select: str) -> bytes:
    """A panel for each thing that was measured, the epoch whose weights were chosen marked in each.

    Args:
        history: the columns of history.csv: `epoch`, `train/loss`, `validation/loss`, ...; NaN where nothing was
            measured.
        chosen: the epoch of the model.
        select: why it was chosen (`train.select`).
    """
    numbers = {name: np.asarray(values, np.float64) for name, values in history.items()}
    panels: dict[str, list[str]] = {}
    for column in history:
        if column != "epoch" and np.isfinite(numbers[column]).any():
            panels.setdefault(_split(column)[1], []).append(column)
    # Loss first, learning rate and gradient norm last.
    order = sorted(panels, key=lambda name: (name != "loss", name == "gradient_norm", name == "lr", name))
    epochs = numbers["epoch"]
    columns = 2 if len(order) > 1 else 1
    rows = -(-len(order) // columns)
    figure, axes = figures.new_figure(5.2 * columns, 3.4 * rows + 0.5, rows, columns)
    for name, panel in zip(order, axes, strict=False):
        title, unit = NAMES.get(name, (name, name))
        single = len(panels[name]) == 1
        for column in panels[name]:
            which, colour, marker = SERIES.get(_split(column)[0], ("", figures.BLUE, "o"))
            values = numbers[column]
            there = np.isfinite(values)
            style = {"marker": marker, "markersize": 3} if there.sum() <= MARKED else {"linewidth": 1}
            panel.plot(epochs[there], values[there], color=colour, label=which, **style)
            title += f", {which}" if single and which else ""
        panel.axvline(chosen, color=figures.GREY, linestyle=":", label=f"the model: epoch {chosen:,}")
        panel.set(title=title, xlabel="epoch", ylabel=unit)
        shown = np.concatenate([numbers[column] for column in panels[name]])
        if name != "accuracy":
            figures.logarithmic_axis(panel, shown)
        if name == "lr" and np.nanmin(shown) == np.nanmax(shown):
            figures.constant_axis(panel, float(np.nanmax(shown)))
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if len(epochs) == 1:
            panel.set_xlim(epochs[0] - 1, epochs[0] + 1)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    for unused in axes[len(order) :]:
        unused.remove()
    count = f"{len(epochs):,} epoch" + ("s" if len(epochs) > 1 else "")
    figure.suptitle(f"Training over {count}; the model is that of epoch {chosen:,} ({select.replace('_', ', ')})")
    return figures.to_png(figure)


def _split(column: str) -> tuple[str, str]:
    """`validation/average_loss` as (`validation/average_`, `loss`)."""
    prefix = next((prefix for prefix in sorted(SERIES, reverse=True) if column.startswith(prefix)), "")
    return prefix, column.removeprefix(prefix)
