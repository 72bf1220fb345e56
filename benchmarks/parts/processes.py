"""Several processes that share the shards of a minibatch, beside one that has them all."""

import statistics
from collections.abc import Iterator

from benchmarks.others import watch_others
from benchmarks.report import Row, progress, ratio_row
from benchmarks.scaling import PROCESSES, seconds_a_step, times_as_fast
from benchmarks.workload import Asked, call_worker

SHARDS_OVER_ONE = 1.25
PROCESSES_OVER_ONE = 0.556  # 1.8 times as fast
SENT_OVER_RING = 1.1


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    progress("processes: the CNN by 1, 2 and 8 shards, by one process and by two")
    with watch_others() as others:
        found = call_worker(
            "time_processes", asked.workloads["cnn"], asked.scratch, asked.params.numerics, rounds=asked.rounds
        )
    name = "wall" if asked.clock == "perf_counter" else "cpu"
    where = "CNN, batches of 256"
    for way, values in found.items():
        yield Row(f"{where}: {way}", f"{1000 * statistics.median(values[name]):.1f} ms a step")
    for ours, theirs, at_most in (
        ("8 shards", "1 shard, eager", SHARDS_OVER_ONE),
        ("2 shards, 2 processes", "2 shards", PROCESSES_OVER_ONE),
    ):
        yield ratio_row(f"{where}: {ours} / {theirs}", found[ours][name], found[theirs][name], at_most)
    yield Row(f"{where}: what else ran meanwhile", str(others))
    sent = found["2 shards, 2 processes"]["sent"]
    yield ratio_row(f"{where}: bytes sent / by a ring all-reduce", sent, [1.0] * len(sent), SENT_OVER_RING)
    for processes in PROCESSES[1:]:
        figure = (
            f"{1000 * seconds_a_step(processes):.1f} ms a step, {times_as_fast(processes):.1f} times as fast as one"
        )
        yield Row(f"{where}: {processes:,} processes, computed (docs/scaling.md)", figure)
