"""The images that a classifier was most wrong about."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surefoot.evaluation.metrics import Scored
from surefoot.evaluation.plots import figures

SHOWN = 25
COLUMNS = 5
SMALLEST = 4  # pixels a side; less is no image


def worst_mistakes(tested: Scored) -> NDArray[np.int64]:
    """The rows that were taken for another class, those to whose own class the least probability was given first."""
    own = tested.probabilities[np.arange(len(tested.actual)), tested.actual.astype(np.int64)]
    order = np.argsort(own, kind="stable")
    found: NDArray[np.int64] = order[tested.actual[order] != tested.predicted[order]][:SHOWN]
    return found


def as_images(inputs: NDArray[Any], features: Sequence[Mapping[str, Any]]) -> NDArray[np.float64] | None:
    """Inputs as images (rows, channels, height, width) with 1 or 3 channels, as they were before they were normalized;
    None if they aren't images.

    Args:
        inputs: (rows, *shape), as the batch store has them.
        features: the fitted preparation that they went through.
    """
    shape = inputs.shape[1:]
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= SMALLEST:
        pixels = inputs
    elif inputs.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and min(shape[:2]) >= SMALLEST:
        pixels = inputs.transpose(0, 3, 1, 2)
    elif inputs.dtype == np.uint8 and len(shape) == 2 and min(shape) >= SMALLEST:
        pixels = inputs[:, None]
    else:
        return None
    if inputs.dtype == np.uint8:
        return pixels.astype(np.float64)
    if features[0]["kind"] != "array" and any(
        feature["kind"] != "numeric" or feature["width"] != 1 for feature in features
    ):
        return None
    subtract, divide = (
        np.array([number for feature in features for number in feature[name] or []]) for name in ("subtract", "divide")
    )
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    return (flat * divide + subtract if len(divide) else flat).reshape(pixels.shape)


def mistakes_plot(tested: Scored, rows: NDArray[np.int64], pixels: NDArray[np.float64]) -> bytes:
    """Each of the images with what it is, what it was taken for, and the probabilities of both.

    Args:
        tested: all test rows.
        rows: numbers of those to show.
        pixels: (rows, channels, height, width), as they were before they were normalized.
    """
    mistakes = int((tested.actual != tested.predicted).sum())
    columns = min(COLUMNS, max(2, len(rows)))
    lines = -(-len(rows) // columns)
    figure, axes = figures.new_figure(2.1 * columns, 0.7 + 2.45 * lines, lines, columns)
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.shape[1] == 3:  # of any range, such as 0 to 255
        pixels = (pixels - low) / (high - low or 1)
        low, high = 0.0, 1.0
    for row, image, panel in zip(rows, pixels, axes, strict=False):
        actual, predicted = int(tested.actual[row]), int(tested.predicted[row])
        panel.imshow(
            image.transpose(1, 2, 0) if len(image) == 3 else image[0],
            cmap="gray",
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        text = [
            f"{word}: {figures.short_label(tested.classes[number], 16)} ({tested.probabilities[row, number]:.0%})"
            for word, number in (("actual", actual), ("predicted", predicted))
        ]
        panel.set_title("\n".join(text), fontsize=8)
        panel.set_xlabel(f"test row {row:,}", fontsize=7, color="0.4")
        panel.set(xticks=[], yticks=[])
    for unused in axes[len(rows) :]:
        unused.remove()
    shown = "all of them" if mistakes <= len(rows) else f"the worst {len(rows)}"
    figure.suptitle(
        f"{mistakes:,} of {len(tested.actual):,} test rows are wrong: {shown}, with the probability given", fontsize=10
    )
    return figures.to_png(figure)
