"""The peak resident size of a process that trains one epoch."""

import statistics
from collections.abc import Iterator

from benchmarks.parts.loops import LABELS
from benchmarks.report import Row, progress, ratio_row
from benchmarks.workload import Asked, call_worker

OVER_BARE = 1.1


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    workload = asked.workloads["large"]
    call_worker("write_data", workload, asked.scratch)
    peaks: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(asked.rounds):
        progress(f"peak memory: round {number + 1} of {asked.rounds}")
        for contender, some in peaks.items():
            some.append(call_worker("peak_memory", workload, asked.scratch, asked.params.numerics, contender=contender))
    for contender, some in peaks.items():
        how = (
            "rows in memory"
            if contender == "bare"
            else "rows memory-mapped; the pages of the file that were read count"
        )
        yield Row(
            f"{workload.name}: peak memory of {LABELS[contender]}",
            f"{statistics.median(some) / 2**20:,.0f} MiB ({how})",
        )
    yield ratio_row(f"{workload.name}: peak memory, ours / bare", peaks["ours"], peaks["bare"], OVER_BARE)
