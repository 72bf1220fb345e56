"""Data larger than memory: what batch and train take, in time and in memory."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import scale
from benchmarks.report import Row, figure_row, progress, ratio_row
from benchmarks.workload import Asked, call_worker

BATCH_OVER_COPY, LIMITED_OVER_FREE, LARGE_OVER_SMALL = 2.5, 1.3, 1.1
MEMORY = 500  # MB above what the imports take


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    small, large = sizes = (300_000_000, 1_200_000_000) if asked.quick else (500_000_000, 5_000_000_000)
    names = " and ".join(f"{size / 1e9:g} GB" for size in sizes)
    workload = asked.workloads["large"]
    found = []
    for number in range(asked.rounds):
        progress(f"data of {names}: round {number + 1} of {asked.rounds}")
        found.append(scale.measure(workload, asked.scratch, asked.params.numerics, sizes))
    seconds = [one["batch"][-1]["seconds"] for one in found]
    yield ratio_row(
        f"batch of {large / 1e9:g} GB / copying it to the same disk",
        seconds,
        [one["copy"] for one in found],
        BATCH_OVER_COPY,
    )
    for what, name in (("batch", "batch"), ("full", "train, full"), ("blocks", "train, blocks")):
        peaks = [[one[what][place]["bytes"] for one in found] for place in (0, 1)]
        most = max(map(max, peaks))
        yield figure_row(f"{name}: peak memory above its imports, {names}", most / 1e6, MEMORY, "MB")
        yield ratio_row(
            f"{name}: that of {large / 1e9:g} GB / of {small / 1e9:g} GB", peaks[1], peaks[0], LARGE_OVER_SMALL
        )
    what = "train, blocks: memory of a quarter of its data / no limit"
    if all(one["limited"] for one in found):
        yield ratio_row(what, [one["limited"] for one in found], [one["free"] for one in found], LIMITED_OVER_FREE)
    else:
        yield Row(what, "no control group can be made here")
    progress("digits, 10 seeds: full and blocks")
    some = call_worker(
        "accuracy", replace(asked.workloads["digits"], epochs=30), asked.scratch, seeds=2 if asked.quick else 10
    )
    for name, values in some.items():
        off = statistics.stdev(values) / len(values) ** 0.5
        yield Row(f"digits, {name}: test accuracy", f"{statistics.mean(values):.4f} ± {off:.4f}")
    differences = [ours - theirs for ours, theirs in zip(*list(some.values())[:2], strict=True)]
    noise = 2 * statistics.stdev(differences) / len(differences) ** 0.5
    middle = statistics.mean(differences)
    yield Row(
        "digits: full - blocks",
        f"{middle:+.4f}",
        f"within {noise:.4f}, two standard errors",
        "reached" if abs(middle) <= noise else "missed",
    )
