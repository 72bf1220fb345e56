"""What features of a step cost, beside a loop written by hand with the same."""

from collections.abc import Iterator

from benchmarks.report import Row, progress, ratio_row
from benchmarks.workload import Asked, call_worker

OVER_HAND = 1.05


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    workload = asked.workloads["large"]
    call_worker("write_data", workload, asked.scratch)
    progress(f"{workload.name}: features of a step")
    for name, seconds in call_worker("time_features", workload, asked.scratch, rounds=asked.rounds).items():
        yield ratio_row(f"{workload.name}, native, {name}: ours / by hand", seconds["ours"], seconds["hand"], OVER_HAND)
