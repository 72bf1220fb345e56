"""Several processes that share the shards of a minibatch, beside one that has them all: the CNN on images of 28 x 28.

Forked processes take steps, in turn with others. Numerics must be pinned.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workload import Workload

STEPS, ROWS, SIZE = 8, 2048, 256
# By name: shards, processes, and whether steps are recorded.
WAYS = {
    "1 shard, recorded": (1, 1, True),
    "1 shard, eager": (1, 1, False),
    "2 shards": (2, 1, False),
    "8 shards": (8, 1, False),
    "2 shards, 2 processes": (2, 2, False),
    "8 shards, 2 processes": (8, 2, False),
}


def time_processes(
    _workload: Workload, _directory: Path, rounds: int, ways: Sequence[str] = tuple(WAYS)
) -> dict[str, dict[str, list[float]]]:
    """For each way and round the seconds that a step takes, by the clock and of the first process's CPU, and how much
    that sends, as a multiple of what a ring all-reduce would.
    """
    import torch  # noqa: F401 - once, not in each process

    found: dict[str, dict[str, list[float]]] = {way: {"wall": [], "cpu": [], "sent": []} for way in ways}
    for _ in range(rounds):
        for way in ways:
            with tempfile.TemporaryDirectory(prefix="surefoot-bench-") as scratch:
                shards, processes, recorded = WAYS[way]
                started = [_fork(rank, processes, shards, recorded, Path(scratch)) for rank in range(processes)]
                assert not any(os.waitpid(process, 0)[1] for process in started), way
                for name, value in json.loads((Path(scratch) / "found.json").read_text()).items():
                    found[way][name].append(value)
    return found


def _fork(rank: int, processes: int, shards: int, recorded: bool, scratch: Path) -> int:
    process = os.fork()
    if not process:
        code = 1
        try:
            found = _take_steps(rank, processes, shards, recorded, scratch)
            if rank == 0:
                (scratch / "found.json").write_text(json.dumps(found))
            code = 0
        finally:
            os._exit(code)
    return process


def _take_steps(rank: int, processes: int, shards: int, recorded: bool, scratch: Path) -> dict[str, float]:
    import torch
    import torch.distributed as dist

    from networks.cnn import cnn
    from surefoot.training.loop import Progress, Trainer
    from surefoot.training.minibatches import Rows
    from surefoot.training.preflight import optimizer_class
    from surefoot.training.recorded.recorded_trainer import RecordedTrainer
    from surefoot.training.sharded.sharded_trainer import ShardedTrainer
    from surefoot.training.sharded.transport import Alone, Group

    transport: Any = Alone()
    if processes > 1:
        store = dist.FileStore(str(scratch / "store"), processes)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
        transport = Group()
    sent = [0]
    transport.exchange = _counted(transport.exchange, sent, processes)
    transport.collect = _counted(transport.collect, sent, processes)
    torch.manual_seed(0)
    model = cnn((1, 28, 28), 10)
    data = Rows(torch.randn(ROWS, 1, 28, 28), torch.randint(10, (ROWS,)))
    kind: Callable[..., Trainer] = RecordedTrainer if recorded else Trainer
    more: dict[str, Any] = {}
    if shards > 1:
        kind, more = ShardedTrainer, {"shards": shards, "transport": transport}
    optimizer = optimizer_class("SGD")(model.parameters(), lr=0.0, momentum=0.9)
    trainer = kind(model, optimizer, data, data, SIZE, 0, **more)
    steps = 32 if recorded else 2  # before it is measured: of these most are taken eagerly
    order = torch.arange(ROWS)
    for first in range(0, steps, 8):
        trainer.train(order[: SIZE * min(8, steps)], [[0.01]] * min(8, steps), Progress(), first)
    if processes > 1:
        dist.barrier()
    sent[0], wall, cpu = 0, time.perf_counter(), time.process_time()
    trainer.train(order[: SIZE * STEPS], [[0.01]] * STEPS, Progress(), steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()
    gradient = 4 * sum(parameter.numel() for parameter in model.parameters())
    ring = 2 * (processes - 1) / processes * gradient
    return {"wall": wall / STEPS, "cpu": cpu / STEPS, "sent": sent[0] / STEPS / ring if ring else 0.0}


def _counted(move: Callable[..., Any], sent: list[int], processes: int) -> Callable[..., Any]:
    """The same, which counts the bytes that it sends."""

    def moved(data: Any, *more: Any) -> Any:
        size = sum(part.numel() * part.itemsize for part in ([data] if hasattr(data, "numel") else data))
        # Of what is exchanged all but a process's own slice; what is collected goes to each of the others.
        sent[0] += size * (processes - 1) // processes if isinstance(data, (list, tuple)) else size * (processes - 1)
        return move(data, *more)

    return moved
