"""What else runs while something is measured: figures of a busy machine mean little."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

NAMED = 3  # of those that took most


@dataclass
class Others:
    """Of processes that aren't below this one, once the block has ended."""

    cores: float = 0.0  # that they kept busy, on average
    names: list[str] = field(default_factory=list)  # those that took most; they were there before and after

    def __str__(self) -> str:
        of = f"{self.cores:.2f} of {os.cpu_count()} cores busy"
        return f"{of} ({', '.join(self.names)})" if self.names else of


@contextmanager
def watch_others() -> Iterator[Others]:
    """Look at what else runs during the block, whose own processes are waited for within it."""
    found = Others()
    began, busy, own, before = time.monotonic(), _busy_seconds(), _own_seconds(), _seconds_of_each()
    yield found
    seconds = max(time.monotonic() - began, 1e-9)
    cores = ((_busy_seconds() - busy) - (_own_seconds() - own)) / seconds
    found.cores = min(max(0.0, cores), os.cpu_count() or 1)  # the system counts in ticks
    took = {key: after - before[key] for key, after in _seconds_of_each().items() if key in before}
    most = sorted(took, key=lambda key: -took[key])[:NAMED]
    found.names = [f"{key[1]} {took[key] / seconds:.2f}" for key in most if took[key] / seconds >= 0.01]


def _busy_seconds() -> float:
    """CPU seconds that all processes of the machine have taken."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


def _own_seconds() -> float:
    """Those of this process, and of the ones it waited for."""
    return sum(os.times()[:4])


def _seconds_of_each() -> dict[tuple[int, str], float]:
    """Those of each other process."""
    found = {}
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times and process.info["pid"] != os.getpid():
            found[process.info["pid"], process.info["name"]] = float(times.user + times.system)
    return found
