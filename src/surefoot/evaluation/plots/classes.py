"""Plots of a classifier's test rows: what is taken for what, how well classes are ranked, and whether probabilities can
be believed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from surefoot.evaluation.intervals import wilson
from surefoot.evaluation.metrics import (
    BINS,
    Floats,
    Scored,
    calibration_error,
    confidence,
    confusion_matrix,
    in_bins,
    per_class,
)
from surefoot.evaluation.plots import figures
from surefoot.evaluation.ranking import RankingCurve, precision_recall_curve, roc_curve

WRITTEN = 30  # classes up to which counts and names are written into the confusion matrix
LISTED = 25  # of more classes or pairs these are listed
CURVES = 50  # classes up to which each has a curve
VALUES = 500_000  # in a curve of all classes together


def confusion_plot(tested: Scored) -> bytes:
    """The confusion matrix as a heat map, with the counts where there is room; of many classes also the commonest
    mistakes.
    """
    count = len(tested.classes)
    matrix = confusion_matrix(tested.actual.astype(np.int64), tested.predicted.astype(np.int64), count)
    labels = [figures.short_label(name) for name in tested.classes]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    title = f"Confusion matrix\n{matrix.sum():,} test rows, accuracy {np.trace(matrix) / matrix.sum():.1%}"
    if count > WRITTEN:
        figure, (axes, beside) = figures.new_figure(14, 7.5, 1, 2, width_ratios=(1.25, 1))
        _pairs(beside, matrix, labels)
        axes.set(xlabel="predicted: number of the class", ylabel="actual: number of the class")
    else:
        side = min(max(4.5, 0.5 * count + 1.9 + 0.08 * max(map(len, labels))), 18)
        figure, (axes,) = figures.new_figure(side + 0.5, side)
        axes.set(xlabel="predicted", ylabel="actual")
        axes.set_xticks(range(count), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set_yticks(range(count), labels)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(
                column,
                row,
                f"{matrix[row, column]:,}",
                ha="center",
                va="center",
                color="white" if share[row, column] > 0.5 else "black",
                fontsize=9,
            )
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1), label="share of the actual class")
    bar.outline.set_visible(False)
    # Over the whole width: the matrix may be narrow.
    figure.suptitle(title)
    return figures.to_png(figure)


def _pairs(axes: Axes, matrix: NDArray[np.int64], labels: list[str]) -> None:
    """The commonest mistakes, as bars."""
    wrong = matrix - np.diag(np.diag(matrix))
    first = np.argsort(-wrong.ravel(), kind="stable")[:LISTED]
    pairs = [
        (row, column) for row, column in zip(*np.unravel_index(first, matrix.shape), strict=True) if wrong[row, column]
    ]
    counts = [int(wrong[pair]) for pair in pairs]
    bars = axes.barh(range(len(pairs)), counts, color=figures.ORANGE)
    axes.bar_label(
        bars,
        [f"{many:,} of {matrix[row].sum():,}" for many, (row, _) in zip(counts, pairs, strict=True)],
        fontsize=8,
        padding=2,
    )
    axes.set_yticks(range(len(pairs)), [f"{labels[row]} → {labels[column]}" for row, column in pairs], fontsize=8)
    axes.set(title="The commonest mistakes: actual → predicted" if pairs else "No mistakes", xlabel="rows")
    axes.set_xlim(0, 1.25 * max(counts, default=1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def precision_and_recall_plot(tested: Scored) -> bytes:
    """Precision and recall of each class with their intervals, and F1; of many classes those with the least F1."""
    table = per_class(tested.actual.astype(np.int64), tested.predicted.astype(np.int64), len(tested.classes))
    there = np.flatnonzero(table["rows"])
    order = there[np.argsort(table["f1"][there], kind="stable")[:LISTED]] if len(there) > LISTED else there
    names = [f"{figures.short_label(tested.classes[number])} ({int(table['rows'][number]):,})" for number in order]
    figure, (axes,) = figures.new_figure(7.5, 1.8 + 0.36 * len(order))
    places, ends_of_all = np.arange(len(order)), [table["f1"][order]]
    for shift, name, of, colour, marker in (
        (-0.18, "precision", "predicted", figures.BLUE, "o"),
        (0.18, "recall", "rows", figures.ORANGE, "s"),
    ):
        shares = table[name][order]
        ends = np.array([wilson(table["right"][number], table[of][number]) for number in order])
        ends_of_all += [ends.ravel(), shares]
        axes.hlines(places + shift, ends[:, 0], ends[:, 1], color=colour, alpha=0.5)
        axes.plot(
            shares,
            places + shift,
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="",
            label=f"{name}, 95 % interval",
        )
    axes.plot(table["f1"][order], places, color="black", marker="|", markersize=11, linestyle="", label="F1")
    axes.set_yticks(places, names)
    every = np.concatenate(ends_of_all)
    axes.set(
        xlabel="share",
        ylabel="class (test rows)",
        xlim=figures.share_limits(every.min(), every.max()),
        ylim=(len(order) - 0.5, -0.5),
    )
    axes.grid(alpha=0.3)
    figure.suptitle(
        "Precision and recall of each class"
        if len(order) == len(there)
        else f"The {len(order)} of {len(there):,} classes with the least F1"
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figures.to_png(figure)


def roc_plot(tested: Scored) -> bytes:
    """The share of a class that is found, over the share of the others that is taken for it."""

    def guess(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=figures.GREY, linestyle=":", label="by chance: 0.500")
        axes.set(title="ROC curve", xlabel="false positive rate", ylabel="true positive rate (recall)")

    return _ranked(tested, roc_curve, guess, "area", 0)


def precision_recall_plot(tested: Scored) -> bytes:
    """The share that is right of what is taken for a class, over the share of the class that is found."""

    def guess(axes: Axes) -> None:
        if tested.task == "binary":
            share = float((tested.actual > 0).mean())
            axes.axhline(share, color=figures.GREY, linestyle=":", label=f"by chance: {share:.3f}")
        axes.set(title="Precision-recall curve", xlabel="recall", ylabel="precision")

    return _ranked(tested, precision_recall_curve, guess, "average precision", 1)


def _ranked(
    tested: Scored,
    curve: Callable[[NDArray[np.bool_], Floats], RankingCurve],
    guess: Callable[[Axes], None],
    area: str,
    best: int,
) -> bytes:
    """Curves of one class against the others: of every class, the worst by name, and of all together. Where all lie in
    a corner, that is enlarged beside.

    `best` is the x at which a perfect curve has its corner; its y there is 1.
    """
    lines = _lines(tested, curve)
    corner = _corner([(x, y) for x, y, _ in lines], best)
    figure, panels = figures.new_figure(11.6 if corner else 6, 6, 1, 2 if corner else 1)
    for axes in panels:
        guess(axes)
        for x, y, style in lines:
            axes.plot(x, y, **style)
        axes.grid(alpha=0.3)
    panels[0].set(
        title=f"{panels[0].get_title()}, {len(tested.actual):,} test rows",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    panels[0].legend(title=area, fontsize="small", loc="lower left" if best else "lower right")
    if corner:
        wide, low = corner
        ends = (1 - 1.05 * wide, 1 + 0.05 * wide) if best else (-0.05 * wide, 1.05 * wide)
        panels[1].set(title="The corner, enlarged", xlim=ends, ylim=(low - 0.05 * (1 - low), 1 + 0.05 * (1 - low)))
    return figures.to_png(figure)


def _corner(curves: list[tuple[Floats, Floats]], best: int) -> tuple[float, float] | None:
    """How wide the corner is in which all curves turn, and the y where it begins; None where it is no small one, or all
    is right.
    """
    wide, low = 0.0, 1.0
    for x, y in curves:
        away = np.abs(x - best)
        wide = max(wide, float(away[y == y.max()].min()))  # from here on the curve is flat
        low = min(low, float(y[away == away.min()].max()))  # up to here it is upright
    return (max(wide, 0.01), min(low, 0.99)) if 0 < max(wide, 1 - low) < 0.5 else None


def _lines(
    tested: Scored, curve: Callable[[NDArray[np.bool_], Floats], RankingCurve]
) -> list[tuple[Floats, Floats, dict[str, Any]]]:
    """Each line with how it is drawn."""
    lines: list[tuple[Floats, Floats, dict[str, Any]]] = []
    if tested.task == "binary":
        x, y, size = curve(tested.actual > 0, tested.scores[:, 0])
        lines.append((x, y, {"color": figures.BLUE, "label": f"{figures.short_label(tested.classes[1])}: {size:.3f}"}))
    else:
        # By probabilities: only those can be compared between rows.
        hit = tested.actual[:, None] == np.arange(len(tested.classes))
        there = np.flatnonzero(hit.any(0) & ~hit.all(0))
        found = (
            {number: curve(hit[:, number], tested.probabilities[:, number]) for number in there}
            if len(there) <= CURVES
            else {}
        )
        worst = sorted(found, key=lambda number: found[number][2])[: 5 if len(found) > 6 else 6]
        for number in found.keys() - set(worst):
            lines.append((*found[number][:2], {"color": figures.GREY, "linewidth": 0.8, "alpha": 0.6}))
        every = -(-hit.size // VALUES)
        x, y, size = curve(hit[::every].ravel(), tested.probabilities[::every].ravel())
        lines.append((x, y, {"color": "black", "linewidth": 2, "label": f"all classes together: {size:.3f}"}))
        for number, colour in zip(worst, figures.COLOURS, strict=False):
            lines.append(
                (
                    *found[number][:2],
                    {
                        "color": colour,
                        "label": f"{figures.short_label(tested.classes[number])}: {found[number][2]:.3f}",
                    },
                )
            )
        if len(found) > len(worst):
            lines[0][2]["label"] = (
                f"{len(found) - len(worst)} classes that are ranked better"  # one entry for all the grey ones
            )
    return lines


def calibration_plot(tested: Scored) -> bytes:
    """The share that came true over the probability that was given, in bins; and how many rows are in each."""
    probability, true = confidence(tested)
    bins = in_bins(probability)
    count = np.bincount(bins, minlength=BINS)
    there = np.flatnonzero(count)
    hits = np.bincount(bins, true, minlength=BINS)[there]
    mean = np.bincount(bins, probability, minlength=BINS)[there] / count[there]
    share = hits / count[there]
    ends = np.array([wilson(*pair) for pair in zip(hits, count[there], strict=True)])
    figure, (axes, below) = figures.new_figure(6, 6.8, 2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=figures.GREY, linestyle=":", label="perfectly calibrated")
    axes.vlines(mean, ends[:, 0], ends[:, 1], color=figures.BLUE, alpha=0.5)
    axes.plot(mean, share, color=figures.BLUE, marker="o", linestyle="", label="test rows, 95 % interval")
    which = figures.short_label(tested.classes[1]) if tested.task == "binary" else "the predicted class"
    title = (
        f"Calibration: expected calibration error {calibration_error(probability, true):.3f}\n{len(true):,} test rows"
        f" in {BINS} bins"
    )
    axes.set(
        title=title,
        ylabel=f"share of {which}" if tested.task == "binary" else "share that is right",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.legend(fontsize="small", loc="best")
    below.bar((np.arange(BINS) + 0.5) / BINS, count, width=0.9 / BINS, color=figures.BLUE)
    below.set(xlabel=f"probability of {which}", ylabel="rows")
    for panel in (axes, below):
        panel.grid(alpha=0.3)
    return figures.to_png(figure)
