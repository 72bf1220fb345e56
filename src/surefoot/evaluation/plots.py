"""Plots as PNG, for the MLflow run. Colours are Okabe and Ito's, which colour-blind people can tell apart."""

import io
import warnings

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE = "#0072B2", "#D55E00"
LABEL = 24  # characters of a class that are shown
POINTS = 10_000  # more than that make a blot, slowly


def loss_curves(epochs: list[int], training: list[float], validation: list[float], chosen: int) -> bytes:
    """Training and validation loss over epochs, the chosen epoch marked."""
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, training, color=BLUE, marker="o", markersize=3, label="training")
    axes.plot(epochs, validation, color=ORANGE, marker="s", markersize=3, label="validation")
    axes.axvline(chosen, color="0.6", linestyle=":", label=f"kept: epoch {chosen}")
    # Some losses go below zero, where a logarithm has nothing to show.
    axes.set(title="Loss", xlabel="epoch", ylabel="loss", yscale="log" if min(training + validation) > 0 else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def confusion(matrix: NDArray[np.int64], classes: list[str]) -> bytes:
    """The confusion matrix as a heat map, the counts written in where there is room."""
    labels = [label if len(label) <= LABEL else f"{label[: LABEL - 1]}…" for label in classes]
    side = min(max(4.5, 0.5 * len(classes) + 1.5 + 0.08 * max(map(len, labels))), 16)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    accuracy = np.trace(matrix) / matrix.sum()
    # Over the whole width: the matrix may be narrow.
    figure.suptitle(f"Confusion matrix\n{matrix.sum():,} test rows, accuracy {accuracy:.1%}")
    axes.set(xlabel="predicted", ylabel="actual")
    if len(classes) <= 30:
        # A label is a text of the user's: `$` in it begins no formula.
        axes.set_xticks(range(len(classes)), labels, rotation=90 if max(map(len, labels)) > 3 else 0, parse_math=False)
        axes.set_yticks(range(len(classes)), labels, parse_math=False)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color="white" if share[row, column] > 0.5 else "black")
    return png(figure)


def predictions(actual: NDArray[np.float32], predicted: NDArray[np.float32]) -> bytes:
    """Predicted over actual values; on the line they are equal."""
    figure = Figure(figsize=(5.5, 5.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    low, high = float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))
    axes.plot([low, high], [low, high], color="0.6", linestyle=":", label="predicted = actual")
    every = -(-len(actual) // POINTS)
    axes.scatter(actual[::every], predicted[::every], s=12, alpha=0.5, color=BLUE, linewidths=0)
    axes.set(title=f"{len(actual):,} test rows" + (f", one in {every} shown" if every > 1 else ""), xlabel="actual", ylabel="predicted", aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class in a script that the font lacks is shown as boxes
        figure.savefig(data, format="png")
    return data.getvalue()
