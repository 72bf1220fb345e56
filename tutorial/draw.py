"""Figures as PNG of 850 pixels' width.

Colours are Okabe and Ito's, which colour-blind people can tell apart; each line has a marker of its own, too.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from surefoot.base import writing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "os^Dvp"
OUT = Path("reports/tutorial")


def panels(*titles: str, ratio: Sequence[float] | None = None) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(8.5, 4), dpi=100, layout="constrained")
    axes = list(figure.subplots(1, len(titles), squeeze=False, width_ratios=ratio)[0])
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=11)
        axis.grid(alpha=0.3)
    return figure, axes


def style(number: int, every: Any = None) -> dict[str, Any]:
    """Colour and marker of the line with this number."""
    return {"color": COLOURS[number], "marker": MARKERS[number], "markersize": 4, "markevery": every}


def save(figure: Figure, name: str) -> None:
    """Write a figure and say where."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    path = OUT / f"{name}.png"
    writing.write_bytes(path, data.getvalue())
    print(f"figure: {path}", flush=True)


def table(*rows: Sequence[str]) -> None:
    """Print rows of cells in columns, ends aligned; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    sys.stdout.flush()
