"""What all plots share: PNGs for a person, the same bytes wherever they are made.

Colours are Okabe and Ito's, which colour-blind people can tell apart.
"""

import io
import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, "#000000")
GREY = "0.6"
LABEL = 24  # characters of a class that are shown
POINTS = 10_000  # more than that make a blot, slowly

Floats = NDArray[np.float64]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its axes, row by row."""
    figure = Figure(figsize=(width, height), dpi=95, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).ravel())


def to_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class in a script that the font lacks is shown as boxes
        # What figure.savefig does, but for a draft of the whole figure that it draws before, for its layout. Software
        # would name the version of matplotlib, and so change with it.
        FigureCanvasAgg(figure).print_png(data, metadata={"Software": None})
    return data.getvalue()


def short_label(text: str, length: int = LABEL) -> str:
    """A text of the user's, on one line and not too long: its beginning and its end, as names often share one of them.

    `$` in it begins no formula.
    """
    text, end = " ".join(text.split()), length // 3
    return (text if len(text) <= length else f"{text[: length - end - 1]}…{text[-end:]}").replace("$", r"\$")


def logarithmic_axis(axes: Axes, values: Floats) -> None:
    """A logarithmic y-axis with readable numbers, where the values are positive and span a factor of ten or more."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 10 * values.min():
        return
    axes.set_yscale("log")
    decades = np.log10(values.max() / values.min())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def constant_axis(axes: Axes, value: float) -> None:
    """A y-axis for what is the same all along: from 0, with that value among its few numbers."""
    ends = sorted((0, 1.4 * value)) if value else (-1, 1)
    axes.set_ylim(*ends)
    axes.set_yticks([0, value / 2, value] if value else [0])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:.4g}"))


def share_limits(least: float, largest: float) -> tuple[float, float]:
    """The ends of an axis for shares: 0 and 1, or only the tenths that have something where those are
    fewer than six.
    """
    low, high = np.floor(10 * least + 1e-9) / 10, np.ceil(10 * largest - 1e-9) / 10
    low, high = (low, max(high, low + 0.1)) if high - low < 0.6 else (0.0, 1.0)
    return float(low - 0.02 * (high - low)), float(high + 0.02 * (high - low))


def rows_shown(count: int, kind: str = "test rows") -> tuple[int, str]:
    """Which of many rows to draw, as a step from one to the next, and a text that says so."""
    every = -(-count // POINTS)
    return every, f"{count:,} {kind}" + (f", one in {every} shown" if every > 1 else "")
