"""What a person reads when a run has ended: its test figures as a table of plain text."""

from collections.abc import Mapping
from math import log10

from surefoot.base import terminal
from surefoot.evaluation.intervals import Interval


def summary_table(
    rows: int,
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    since: tuple[str, Mapping[str, float]] | None,
) -> list[str]:
    """Lines of the test metrics with their intervals, and the change.

    Args:
        rows: that were tested.
        metrics: by name.
        intervals: of as many of them as have one.
        since: what to compare with: a commit, and the metrics there; None if there is nothing.
    """
    commit, before = since or ("", {})
    cells = [(f"{rows:,} test rows", "", "95 % interval", f"change since {commit}" if since else "")]
    for name, value in metrics.items():
        ends = (
            f"{format_number(intervals[name][0])} to {format_number(intervals[name][1])}" if name in intervals else "-"
        )
        cells.append(
            (
                name,
                format_number(value),
                ends,
                (format_change(value - before[name]) if name in before else "new") if since else "",
            )
        )
    return terminal.table_lines(cells, right=(1, 2, 3))


def format_number(value: float) -> str:
    """With five digits, four of them after the point at most: 0.9665, 54.123, 12,346; what is very small or large with
    an exponent.
    """
    size = abs(value)
    if value and not 1e-4 <= size < 1e9:
        return f"{value:.3e}"
    return f"{value:,.{max(0, 4 - int(log10(max(1, size))))}f}"


def format_change(difference: float) -> str:
    """With a sign; nothing changed is a dash."""
    return f"{'+' if difference > 0 else ''}{format_number(difference)}" if difference else "same"
