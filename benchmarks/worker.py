"""One measurement in a process of its own, since numerics are pinned once a process: `python -m benchmarks.worker
JSON`.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.workload import Workload

THREADS = 1


def write_data(workload: Workload, directory: Path) -> None:
    """Write a batch store with the workload's rows, as the stage `batch` would; the other splits get a few."""
    import numpy as np

    from surefoot.data.batch_index import Preparation, write_index
    from surefoot.data.batch_writer import Block, write_split
    from surefoot.data.splits import SPLITS

    def blocks(rows: int) -> Iterator[Block]:
        numbers = np.random.default_rng(0)
        for start in range(0, rows, 4096):
            count = min(4096, rows - start)
            yield (
                numbers.standard_normal((count, *workload.shape), dtype=np.float32),
                numbers.integers(workload.classes, size=count),
            )

    splits = {}
    for split in SPLITS:
        rows = workload.rows if split == "train" else workload.classes
        splits[split] = write_split(directory / split, blocks(rows), rows, workload.shape, classes=workload.classes)
    labels = [str(number) for number in range(workload.classes)]
    write_index(
        directory,
        splits,
        batch_size=workload.batch_size,
        drop_last=False,
        shape=workload.shape,
        classes=labels,
        preparation=Preparation(),
    )


def time_loops(
    workload: Workload, directory: Path, contenders: list[str], rounds: int, clock: str = "perf_counter"
) -> dict[str, list[float]]:
    """Seconds an epoch of each contender in each round, by a clock of `time`: one after another, after a round to warm
    up.

    None are left of one that isn't installed.
    """
    import torch

    from benchmarks import loops

    trainings = {name: loops.prepare(name, workload, directory) for name in contenders}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, training in list(trainings.items()):
            # Only ours promises determinism, so only ours pays for it.
            torch.set_deterministic_debug_mode("error" if name in loops.OURS else "default")
            now = getattr(time, clock)
            start = now()
            try:
                loops.CONTENDERS[name](training)
            except ImportError:
                del trainings[name]
                continue
            if number:
                seconds[name].append((now() - start) / workload.epochs)
    return seconds


def time_features(workload: Workload, directory: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """`features.time_features`, which imports torch."""
    from benchmarks import features

    return features.time_features(workload, directory, rounds)


def peak_memory(workload: Workload, directory: Path, contender: str) -> int:
    """Peak resident bytes of this process after it has trained as `contender`."""
    from benchmarks import loops

    loops.CONTENDERS[contender](loops.prepare(contender, workload, directory))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train(workload: Workload, directory: Path) -> float:
    """Seconds of a bare training, from opened data and imported modules to the last step."""
    import torch._dynamo  # noqa: F401 - torch.optim does when first used

    from benchmarks import loops

    start = time.perf_counter()
    loops.bare(loops.prepare("bare", workload, directory))
    return time.perf_counter() - start


def main() -> None:
    """Do what the JSON in the first argument says; print the answer as JSON."""
    message = json.loads(sys.argv[1])
    if message["cgroup"]:
        (Path(message["cgroup"]) / "cgroup.procs").write_text(str(os.getpid()))
    if message["task"] not in ("write_data", "batch", "copy"):
        from surefoot.training import numerics

        numerics.pin(message["profile"], THREADS)
    from benchmarks import processes, scale

    tasks: dict[str, Callable[..., Any]] = {
        "write_data": write_data,
        "time_loops": time_loops,
        "time_features": time_features,
        "peak_memory": peak_memory,
        "train": train,
        "batch": scale.batch,
        "copy": scale.copy,
        "train_store": scale.train,
        "accuracy": scale.accuracy,
        "time_processes": processes.time_processes,
    }
    workload = Workload(**{**message["workload"], "shape": tuple(message["workload"]["shape"])})
    print(json.dumps(tasks[message["task"]](workload, Path(message["directory"]), **message["arguments"])))


if __name__ == "__main__":
    main()
