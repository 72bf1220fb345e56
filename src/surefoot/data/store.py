"""The batch store: fixed-width arrays that are memory-mapped, and an index that is written last.

index.json                 batch size, rows, batches in an epoch, shapes, dtypes, class counts, digests
train/inputs.npy           float32 (rows, *shape), in training order: shuffled once
train/targets.npy          int64 (rows,)
validation/..., test/...   the same, in file order
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from surefoot import files
from surefoot.data.split import SPLITS

Block = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Split:
    """A split's arrays, memory-mapped: inputs float32 (rows, *shape), targets int64 (rows,)."""

    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Store:
    """An opened batch store."""

    index: dict[str, Any]
    train: Split
    validation: Split
    test: Split

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.index["input_shape"])

    @property
    def classes(self) -> list[str]:
        """The labels; a target is an index into them."""
        return list(self.index["classes"])

    @property
    def task(self) -> str:
        """What is predicted: classification, binary or regression."""
        return str(self.index.get("task", "classification"))

    @property
    def outputs(self) -> int:
        """How many numbers the network must give for a row: one for each class, or one."""
        return len(self.classes) if self.task == "classification" else 1

    def schema(self) -> dict[str, Any]:
        """What a network may want to know: the task, the classes, and of each input column its kind and its place in a row."""
        return {"task": self.task, "classes": self.classes, "features": self.index.get("features", [])}

    @property
    def batch_size(self) -> int:
        """Rows in a minibatch."""
        return int(self.index["batch_size"])

    @property
    def rows_per_epoch(self) -> int:
        """Training rows that an epoch uses: all, or whole minibatches only where `batch.drop_last` is set."""
        rows = len(self.train.targets)
        return rows - rows % self.batch_size if self.index["drop_last"] else rows


def write_split(out: Path, blocks: Iterator[Block], rows: int, shape: tuple[int, ...], places: np.ndarray | None = None) -> None:
    """Write a split's blocks of (inputs, targets) into the directory `out`; row i goes to places[i], or to i."""
    out.mkdir()
    inputs = open_memmap(out / "inputs.npy", mode="w+", dtype=np.float32, shape=(rows, *shape))
    targets = open_memmap(out / "targets.npy", mode="w+", dtype=np.int64, shape=(rows,))
    start = 0
    for some_inputs, some_targets in blocks:
        here = slice(start, start + len(some_targets))
        to = here if places is None else places[here]
        inputs[to] = some_inputs.reshape(-1, *shape)
        targets[to] = some_targets
        start = here.stop
    inputs.flush()
    targets.flush()


def write_index(out: Path, *, batch_size: int, drop_last: bool, shape: tuple[int, ...], classes: list[str], preparation: dict[str, Any]) -> None:
    """Write `index.json` of the splits in the directory `out`."""
    splits = {split: _describe(out / split, len(classes)) for split in SPLITS}
    rows = splits["train"]["rows"]
    index = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "batches_per_epoch": rows // batch_size if drop_last else -(-rows // batch_size),
        "input_shape": shape,
        "classes": classes,
        "preparation": preparation,
        "splits": splits,
    }
    files.write_json(out / "index.json", index | {"digest": files.sha256(files.canonical_json(index))})


def _describe(path: Path, classes: int) -> dict[str, Any]:
    arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("inputs", "targets")}
    return {
        "rows": len(arrays["targets"]),
        "class_counts": np.bincount(arrays["targets"], minlength=classes).tolist(),
        **{name: {"dtype": array.dtype.name, "shape": array.shape, "sha256": files.sha256_file(path / f"{name}.npy")} for name, array in arrays.items()},
    }


def open_store(path: Path) -> Store:
    """Open the batch store in the directory `path`. Three lines read a batch from anywhere:

    store = open_store(Path("data/batches"))
    rows = epoch_order(len(store.train.targets), seed=0, epoch=1)[: store.batch_size]
    inputs, targets = store.train.inputs[rows], store.train.targets[rows]
    """
    index = json.loads((path / "index.json").read_text())

    def opened(split: str) -> Split:
        # Mode "c", copy on write: torch warns of arrays that it could not write to.
        return Split(*(np.load(path / split / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in ("inputs", "targets")))

    return Store(index, opened("train"), opened("validation"), opened("test"))
