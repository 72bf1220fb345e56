"""Curves of several runs over epochs in one picture."""

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surefoot.evaluation.plots.figures import COLOURS, constant_axis, to_png

# The line's style tells apart what has the same colour.
STYLES = ("-", "--", ":", "-.")
LABEL = 60  # characters of a run's label that are shown

MetricCurve = Sequence[tuple[int, float]]  # epoch and value


def overlaid_plot(runs: Sequence[tuple[str, Mapping[str, MetricCurve]]], metrics: Sequence[str]) -> bytes:
    """A panel for each metric, a line for each run, as PNG.

    Args:
        runs: label and curves of each, by the metric's name; a run may lack some.
        metrics: in the order of the panels; those that no run has are left out.
    """
    shown = [name for name in metrics if any(curves.get(name) for _, curves in runs)]
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure = Figure(
        figsize=(5.5 * columns + 0.5, 3.4 * rows + 0.6 + 0.2 * -(-len(runs) // columns)), dpi=120, layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = [(colour, style) for style, colour in itertools.product(STYLES, COLOURS)]
    for panel, name in itertools.zip_longest(panels, shown):
        if name is None:
            panel.set_axis_off()
            continue
        values = [value for _, curves in runs for _, value in curves.get(name, ())]
        for (label, curves), (colour, style) in zip(runs, itertools.cycle(styles), strict=False):
            epochs, heights = zip(*curves[name], strict=True) if curves.get(name) else ((), ())
            panel.plot(
                epochs,
                heights,
                color=colour,
                linestyle=style,
                linewidth=1.5,
                marker="o" if len(epochs) == 1 else None,
                label=_short(label),
            )
        # What spans decades, as a loss does that diverges somewhere, is drawn in decades.
        log = min(values) > 0 and max(values) / min(values) > 20 and not name.endswith("accuracy")
        panel.set(title=name, xlabel="epoch", yscale="log" if log else "linear")
        if name == "lr" and min(values) == max(values):
            constant_axis(panel, values[0])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label is a text of the user's: `$` in it begins no formula
    return to_png(figure)


def _short(label: str) -> str:
    # An underscore at the start would hide it from the legend.
    return (label if len(label) <= LABEL else f"{label[: LABEL - 1]}…").removeprefix("_")
