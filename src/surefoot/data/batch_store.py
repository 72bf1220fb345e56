"""The batch store: fixed-width arrays that are memory-mapped, and an index that is written last.

index.json                 what is in the arrays, and what they were made from (`surefoot.data.batch_index`)
train/inputs.npy           float32, uint8 or int64 (rows, *shape), in training order: shuffled once
train/targets.npy          int64 (rows,): indices of classes; or float32
validation/..., test/...   the same, in file order
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.base import reading
from surefoot.data.batch_index import BatchIndex, Scale, read_index
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.data.part_files import RowRange, rows_in


@dataclass(frozen=True)
class SplitArrays:
    """A split's arrays, memory-mapped: inputs float32, uint8 or int64 (rows, *shape), targets int64, float32 or float64
    (rows,).
    """

    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Store:
    """An opened batch store; `only`: the training rows that are trained on, as ranges of the raw data's order, where
    not all are.
    """

    index: BatchIndex
    train: SplitArrays
    validation: SplitArrays
    test: SplitArrays
    only: tuple[RowRange, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.index.input_shape)

    @property
    def classes(self) -> list[str]:
        """The labels; a target is an index into them."""
        return self.index.classes

    @property
    def task(self) -> str:
        """What is predicted: classification, binary or regression."""
        return self.index.task

    @property
    def target_scale(self) -> Scale | None:
        """What targets, stored in their own unit, are brought to in training; None: they are trained on as they are, as
        in older stores.
        """
        return self.index.target_scale

    @property
    def inputs_scaled(self) -> bool:
        """Whether inputs that are numbers are brought to one scale; also where there are none."""
        measured = [
            feature
            for feature in self.index.features
            if feature["kind"] in ("numeric", "date") or feature.get("dtype", "int64") != "int64"
        ]
        return (
            bool(self.index.scale)
            or not measured
            or any(by != 1 for feature in measured for by in feature["divide"] or [])
        )

    @property
    def target_unit(self) -> float | None:
        """What 1 of a scaled target is in its own unit; None: they aren't scaled."""
        return self.target_scale["divide"][0] if self.target_scale else None

    def schema(self) -> dict[str, Any]:
        """What a network may want to know: the task, the classes, and of each input column its kind and its place in a
        row.
        """
        return {"task": self.task, "classes": self.classes, "features": self.index.features}

    @property
    def batch_size(self) -> int:
        """Rows in a minibatch."""
        return self.index.batch_size

    @property
    def rows_per_epoch(self) -> int:
        """Training rows that an epoch uses: all, or whole minibatches only where `batch.drop_last` is set."""
        rows = len(self.train.targets) if self.only is None else rows_in(self.only)
        return rows - rows % self.batch_size if self.index.drop_last else rows

    def order(self, seed: int, epoch: int) -> RowOrder | RowOrderAmong:
        """The training rows of an epoch, in the order in which they are trained on."""
        rows, index = len(self.train.targets), self.index
        if self.only is not None:
            return RowOrderAmong(self.only, rows, seed, epoch)[: self.rows_per_epoch]
        return RowOrder(rows, seed, epoch, index.block, index.window or 1)[: self.rows_per_epoch]


def open_store(path: Path) -> Store:
    """Open the batch store in the directory `path`. Three lines read a batch from anywhere:

    store = open_store(Path("data/batches"))
    rows = store.order(seed=0, epoch=1)[: store.batch_size].indices()
    inputs, targets = store.train.inputs[rows], store.train.targets[rows]

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """

    def opened(split: str) -> SplitArrays:
        return SplitArrays(*(_mapped(path / split / f"{name}.npy") for name in ("inputs", "targets")))

    return Store(read_index(path), opened("train"), opened("validation"), opened("test"))


def _mapped(path: Path) -> np.ndarray:
    """An array of the store. Mode "c", copy on write: torch warns of arrays that it could not write to."""
    with reading.reading_made(path, "batch", ValueError, EOFError):
        reading.open_file(path).close()
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        return array
