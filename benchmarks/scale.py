"""Data larger than memory: what batch and train take, in time and in memory.

Each task runs in a process of its own (`call_worker`).
"""

import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.workload import ROOT, Workload, call_worker

CHUNK = 1 << 20
BLOCKS = (1024, 16)
# As many windows as data of many times the memory have, for 1,258 rows.
DIGITS: dict[str, tuple[int, ...]] = {
    "full": (),
    "blocks of 16 rows in windows of 4": (16, 4),
    "blocks of 128 rows alone": (128, 1),
}


def sized(workload: Workload, size: int) -> Workload:
    """The same with so many bytes of inputs."""
    return replace(workload, rows=size // (4 * prod(workload.shape)))


def batch(workload: Workload, directory: Path) -> dict[str, float]:
    """A batch store whose training rows are shuffled, as the stage `batch` writes it: seconds, and bytes of memory
    above what the imports take.
    """
    import numpy as np

    from surefoot.data.batch_index import Preparation, write_index
    from surefoot.data.batch_writer import write_split
    from surefoot.data.order import RowOrder
    from surefoot.data.splits import SPLITS

    numbers = np.random.default_rng(0)
    inputs, targets = (
        numbers.standard_normal((1024, *workload.shape), dtype=np.float32),
        numbers.integers(workload.classes, size=1024),
    )
    start_bytes, start = _memory(), time.perf_counter()
    splits = {}
    for split in SPLITS:
        rows = workload.rows if split == "train" else 1024
        places = RowOrder(rows, 0, 0) if split == "train" else None
        blocks = ((inputs[: rows - first], targets[: rows - first]) for first in range(0, rows, 1024))
        splits[split] = write_split(directory / split, blocks, rows, workload.shape, places, classes=workload.classes)
    labels = [str(number) for number in range(workload.classes)]
    write_index(
        directory,
        splits,
        batch_size=workload.batch_size,
        drop_last=False,
        shape=workload.shape,
        classes=labels,
        preparation=Preparation(),
        blocks=BLOCKS,
    )
    return {"seconds": time.perf_counter() - start, "bytes": _peak() - start_bytes}


def copy(_workload: Workload, directory: Path) -> float:
    """Seconds to copy the training rows to the same disk."""
    start = time.perf_counter()
    with (directory / "train/inputs.npy").open("rb") as source, (directory / "copy").open("wb") as target:
        while data := source.read(CHUNK):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())
    seconds = time.perf_counter() - start
    (directory / "copy").unlink()
    return seconds


def train(workload: Workload, directory: Path, shuffle: str) -> dict[str, float]:
    """As many epochs as the workload has: seconds, and bytes of memory above what the process has after its imports."""
    import torch

    from benchmarks.loops import LR, SEED
    from surefoot.data.batch_store import open_store
    from surefoot.data.order import RowOrder
    from surefoot.training.loop import Progress, Trainer
    from surefoot.training.minibatches import Rows
    from surefoot.training.network import build

    torch.set_deterministic_debug_mode("error")
    model = build(workload.factory, workload.arguments, workload.shape, workload.classes, SEED)
    torch.optim.SGD(model.parameters())  # imports much
    start_bytes = _memory()
    store = open_store(directory)
    training, validation = (Rows.stored(split.inputs, split.targets) for split in (store.train, store.validation))
    trainer = Trainer(
        model, torch.optim.SGD(model.parameters(), momentum=0.9), training, validation, workload.batch_size, SEED
    )
    steps = -(-workload.rows // workload.batch_size)
    start = time.perf_counter()
    for epoch in range(1, workload.epochs + 1):
        order = RowOrder(workload.rows, SEED, epoch, *(BLOCKS if shuffle == "blocks" else ()))
        trainer.train(order, [[LR]] * steps, Progress(), (epoch - 1) * steps)
        trainer.end_epoch(epoch, epoch * steps)
    return {"seconds": time.perf_counter() - start, "bytes": _peak() - start_bytes}


def forget(directory: Path) -> None:
    """Have the system drop what it holds of the files: the next to read them reads the disk, and pays
    for the memory.
    """
    if hasattr(os, "posix_fadvise"):
        for path in directory.rglob("*.npy"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def memory_limit(size: int) -> Iterator[Path | None]:
    """A control group whose processes have so many bytes of memory together, the file cache included; None where none
    can be made.
    """
    group = None
    for parent, limit in _groups():
        group = parent / f"surefoot-bench-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(size))
            break
        except OSError:
            if group.exists():
                group.rmdir()
            group = None
    try:
        yield group
    finally:
        if group:
            group.rmdir()


def _groups() -> Iterator[tuple[Path, str]]:
    """Control groups that might get a child, and the name of their limit: this process's own of version 1, the root of
    version 2.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines() if Path("/proc/self/cgroup").exists() else []:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield Path("/sys/fs/cgroup/memory") / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield Path("/sys/fs/cgroup"), "memory.max"


def _memory() -> int:
    """Bytes that this process has in memory; what `_peak` says counts from here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(workload: Workload, directory: Path, profile: str, sizes: tuple[int, int]) -> dict[str, Any]:
    """One round: a small and a large store are made, trained on, and removed again."""
    found: dict[str, Any] = {"batch": [], "full": [], "blocks": []}
    for size in sizes:
        some = sized(workload, size)
        store = directory / str(size)
        store.mkdir()
        found["batch"].append(call_worker("batch", some, store))
        found["copy"] = call_worker("copy", some, store)  # of the large one: it comes last
        for shuffle in ("full", "blocks"):
            found[shuffle].append(call_worker("train_store", some, store, profile, shuffle=shuffle))
        if size == max(sizes):
            forget(store)
            found["free"] = call_worker("train_store", some, store, profile, shuffle="blocks")["seconds"]
            forget(store)
            with memory_limit(size // 4) as group:
                limited = (
                    call_worker("train_store", some, store, profile, cgroup=str(group), shuffle="blocks")
                    if group
                    else None
                )
            found["limited"] = limited and limited["seconds"]
        shutil.rmtree(store)
    return found


def accuracy(workload: Workload, _directory: Path, seeds: int) -> dict[str, list[float]]:
    """Test accuracy on the digits for each seed: all rows shuffled, and blocks; rows that were shuffled once, as batch
    does, and rows by class.
    """
    import numpy as np
    import torch

    from benchmarks.loops import LR
    from surefoot.data.order import RowOrder
    from surefoot.training.loop import Progress, Trainer
    from surefoot.training.minibatches import Rows
    from surefoot.training.network import build, outputs_of

    digits = np.loadtxt(ROOT / "data/raw/digits.csv", delimiter=",", skiprows=1, dtype=np.float32)
    digits = digits[np.random.default_rng(0).permutation(len(digits))]
    inputs, targets = (digits[:, :-1] / 16).reshape(-1, *workload.shape), digits[:, -1].astype(np.int64)
    rows = workload.rows
    test = Rows(torch.from_numpy(inputs[rows:]), torch.from_numpy(targets[rows:]))
    by_class = np.argsort(targets[:rows], kind="stable")
    steps = -(-rows // workload.batch_size)
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        for on_disk, places in (("", RowOrder(rows, seed, 0).indices()), (", by class on disk", by_class)):
            training = Rows(torch.from_numpy(inputs[places]), torch.from_numpy(targets[places]))
            for shuffle, blocks in DIGITS.items():
                model = build(workload.factory, workload.arguments, workload.shape, workload.classes, seed)
                trainer = Trainer(
                    model, torch.optim.SGD(model.parameters(), momentum=0.9), training, test, workload.batch_size, seed
                )
                for epoch in range(1, workload.epochs + 1):
                    trainer.train(RowOrder(rows, seed, epoch, *blocks), [[LR]] * steps, Progress(), (epoch - 1) * steps)
                right = outputs_of(model, test.inputs).argmax(1) == test.targets
                found.setdefault(shuffle + on_disk, []).append(right.double().mean().item())
    return found
