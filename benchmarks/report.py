"""Rows of the table: figures beside their targets."""

import os
import platform
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    figure: str
    target: str = ""
    verdict: str = ""


def ratio_row(what: str, ours: list[float], theirs: list[float], at_most: float | None) -> Row:
    """The median of the ratios within each round, and their range."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(ratios)
    figure = f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    if at_most is None:
        return Row(what, figure)
    return Row(what, figure, f"at most {at_most}", "reached" if middle <= at_most else "missed")


def figure_row(what: str, figure: float, at_most: float, unit: str) -> Row:
    """A figure that has a target by itself."""
    text = f"{figure:,.2f}" if unit == "s" else f"{figure:,.0f}"
    return Row(what, f"{text} {unit}", f"at most {at_most:g} {unit}", "reached" if figure <= at_most else "missed")


def machine(quick: bool) -> str:
    """One line on what was measured on."""
    try:
        cpu = next(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    return f"{cpu}, {os.cpu_count()} cores; {versions}" + "; --quick: not for quoting" * quick


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table that reads well as plain text."""
    cells = [("what", "measured", "target", ""), *((row.what, row.figure, row.target, row.verdict) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def progress(text: str) -> None:
    """What is measured now."""
    print(text, file=sys.stderr, flush=True)
