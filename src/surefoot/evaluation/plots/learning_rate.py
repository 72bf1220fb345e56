"""Plots of learning rates, as PNG: the schedule of a run, and a range test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surefoot.evaluation.plots.figures import BLUE, COLOURS, constant_axis, short_label, to_png
from surefoot.evaluation.schedule_points import SchedulePoints

LABEL = 40  # characters of the groups' patterns that are shown


def schedule_plot(
    points: SchedulePoints,
    columns: Sequence[tuple[int, str]],
    groups: Sequence[str],
    steps_per_epoch: int,
    planned: int,
    title: str = "Schedule",
) -> bytes:
    """What is scheduled, over the steps of a run; epochs above.

    Args:
        points: steps and values.
        columns: the number of the optimizer's group and the name of what is scheduled.
        groups: what to call each group.
        steps_per_epoch: of a whole epoch.
        planned: epochs of the whole run; where fewer are given, the rest isn't known.
        title: of the plot.
    """
    steps, values = points
    names = list(dict.fromkeys(name for _, name in columns))
    figure = Figure(figsize=(7, 1.5 + 3 * len(names)), dpi=120, layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, place + 1)
        _draw_scheduled(axes, name, steps, values, columns, groups)
        axes.set(xlabel="step" if place == len(names) - 1 else "", xlim=(0, planned * steps_per_epoch))
        if place == 0:
            _mark_epochs(axes, steps_per_epoch)
    # A name is a text of the user's: `$` in it begins no formula.
    figure.suptitle(title, parse_math=False)
    return to_png(figure)


def _draw_scheduled(
    axes: Axes,
    name: str,
    steps: np.ndarray,
    values: np.ndarray,
    columns: Sequence[tuple[int, str]],
    groups: Sequence[str],
) -> None:
    """Draw what is scheduled under one name, a line for each of the optimizer's groups."""
    lines: dict[bytes, tuple[np.ndarray, list[str]]] = {}  # groups that have the same values share a line
    for column, (group, what) in enumerate(columns):
        if what == name:
            lines.setdefault(values[:, column].tobytes(), (values[:, column], []))[1].append(groups[group])
    marker = "." if len(steps) < 20 else None
    for colour, (line, who) in zip(COLOURS * len(lines), lines.values(), strict=False):
        axes.plot(steps, line, color=colour, marker=marker, label=short_label(", ".join(who), LABEL))
    # Where most of the run is far below the highest, a linear axis would show nothing of it.
    shown = np.array([line for line, _ in lines.values()])
    log = shown.min() > 0 and shown.max() > 5 * np.median(shown)
    called = {"lr": "learning rate", "betas": "momentum (first of betas)"}.get(name, name)
    axes.set(ylabel=called, yscale="log" if log else "linear")
    if shown.min() == shown.max():
        constant_axis(axes, float(shown.max()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(title="parameters")


def range_test_plot(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    diverging: float | None,
    suggestions: Sequence[tuple[str, float]],
) -> bytes:
    """The loss over a rising learning rate, with what is suggested.

    Args:
        lrs: of each step.
        losses: just before the step.
        smoothed: the same, smoothed.
        diverging: where the smoothed loss exploded.
        suggestions: names and learning rates.
    """
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(lrs, losses, color="0.7", linewidth=1, label="loss of a minibatch")
    axes.plot(lrs, smoothed, color=BLUE, linewidth=2, label="smoothed")
    if diverging:
        axes.axvline(diverging, color="0.5", linestyle=":", label=f"exploded: {diverging:.2g}")
    for colour, style, (name, lr) in zip(COLOURS[1:], ("--", "-.", "-"), suggestions, strict=False):
        axes.axvline(lr, color=colour, linestyle=style, label=f"{name}: {lr:.2g}")
    # To where it exploded, not to the heights that it reached then.
    low, high = min(smoothed), max(losses[: 1 + len(losses) // 2])
    room = 0.1 * (high - low) or 1.0
    axes.set(
        title="Learning-rate range test",
        xlabel="learning rate",
        ylabel="loss",
        xscale="log",
        ylim=(low - 2 * room, high + 3 * room),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    return to_png(figure)


def _mark_epochs(axes: Axes, steps_per_epoch: int) -> None:
    def epoch(step: Any) -> Any:
        return step / steps_per_epoch

    def step(epoch: Any) -> Any:
        return epoch * steps_per_epoch

    above = axes.secondary_xaxis("top", functions=(epoch, step))
    above.set_xlabel("epoch")
    above.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
