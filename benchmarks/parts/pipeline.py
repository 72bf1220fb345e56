"""`dvc repro` in a new copy of the project."""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import pipeline
from benchmarks.report import Row, progress, ratio_row
from benchmarks.workload import Asked

OVER_PARTS = 1.5


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    # The same run, so as many epochs as the pipeline trains.
    workload = replace(asked.workloads["digits"], epochs=asked.params.train.epochs)
    measured: list[dict[str, float]] = []
    for number in range(asked.rounds + 1):  # the first warms the file cache up
        progress(f"dvc repro: round {number} of {asked.rounds}" if number else "dvc repro: warm-up")
        with tempfile.TemporaryDirectory(dir=asked.scratch) as project:
            measured.append(pipeline.measure_round(Path(project), workload, asked.params.numerics))
    seconds = {name: [one[name] for one in measured[1:]] for name in measured[0]}

    def median(name: str) -> str:
        return f"{statistics.median(seconds[name]):.2f} s"

    yield Row("dvc repro, from scratch", median("scratch"))
    each = ", ".join(f"{name} {median('import ' + name)}" for name in pipeline.IMPORTS)
    yield Row("imports of its eight processes", f"{median('imports')} ({each})")
    yield Row(f"bare training of the same run, {workload.epochs} epochs", median("bare training"))
    parts = [imports + training for imports, training in zip(seconds["imports"], seconds["bare training"], strict=True)]
    yield ratio_row("dvc repro from scratch / imports and bare training", seconds["scratch"], parts, OVER_PARTS)
