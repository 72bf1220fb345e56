"""Plots of predicted numbers."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from surefoot.evaluation.metrics import Scored, measure_metrics
from surefoot.evaluation.plots import figures


def predictions_plot(tested: Scored, target: str) -> bytes:
    """Predicted over actual values; on the line they are equal."""
    actual, predicted = tested.actual, tested.predicted
    every, shown = figures.rows_shown(len(actual))
    found = measure_metrics(tested)
    figure, (axes,) = figures.new_figure(6, 6.2)
    low, high = float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))
    axes.plot([low, high], [low, high], color=figures.GREY, linestyle=":", label="predicted = actual")
    axes.scatter(actual[::every], predicted[::every], s=14, alpha=0.5, color=figures.BLUE, linewidths=0)
    name = figures.short_label(target)
    axes.set(xlabel=f"actual {name}", ylabel=f"predicted {name}", aspect="equal")
    figure.suptitle(
        f"Predicted over actual values\n{shown}; mean absolute error {found['mae']:.4g}"
        + (f", R² {found['r2']:.3f}" if "r2" in found else "")
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figures.to_png(figure)


def residuals_plot(tested: Scored, target: str) -> bytes:
    """Predicted less actual value, over the predicted one; and how often each size of it occurs."""
    errors = tested.predicted - tested.actual.astype(np.float64)
    every, shown = figures.rows_shown(len(errors))
    name = figures.short_label(target)
    figure, (axes, beside) = figures.new_figure(9.5, 5, 1, 2, width_ratios=(2.2, 1), sharey=True)
    axes.scatter(tested.predicted[::every], errors[::every], s=14, alpha=0.5, color=figures.BLUE, linewidths=0)
    axes.set(xlabel=f"predicted {name}", ylabel=f"error: predicted - actual {name}", title="Errors over predictions")
    beside.hist(
        errors, bins=min(50, max(5, round(2 * len(errors) ** (1 / 3)))), orientation="horizontal", color=figures.BLUE
    )
    beside.axhline(errors.mean(), color=figures.ORANGE, label=f"mean: {errors.mean():.3g}")
    beside.set(xlabel="test rows", title="How often")
    beside.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for panel in (axes, beside):
        panel.axhline(0, color=figures.GREY, linestyle=":")
        panel.grid(alpha=0.3)
    beside.legend(fontsize="small")
    quartiles = np.quantile(np.abs(errors), [0.5, 0.9])
    figure.suptitle(f"Errors of {shown}: half are below {quartiles[0]:.4g}, nine in ten below {quartiles[1]:.4g}")
    return figures.to_png(figure)
