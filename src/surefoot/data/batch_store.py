"""The batch store: fixed-width arrays that are memory-mapped, and an index that is written last.

index.json                 batch size, rows, batches in an epoch, shapes, dtypes, task, scale, order of rows, class
counts, part files, digests
train/inputs.npy           float32, uint8 or int64 (rows, *shape), in training order: shuffled once
train/targets.npy          int64 (rows,): indices of classes; or float32
validation/..., test/...   the same, in file order
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.base import digests, reading, writing
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.data.part_files import RowRange, rows_in
from surefoot.data.splits import SPLITS


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

    index: dict[str, Any]
    train: SplitArrays
    validation: SplitArrays
    test: SplitArrays
    only: tuple[RowRange, ...] | None = None

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
        return str(self.index["task"])

    @property
    def outputs(self) -> int:
        """How many numbers the network must give for a row: one for each class, or one."""
        return len(self.classes) if self.task == "classification" else 1

    @property
    def target_scale(self) -> dict[str, list[float]] | None:
        """What targets, stored in their own unit, are brought to in training; None: they are trained on as they are, as
        in older stores.
        """
        return self.index.get("target_scale")

    @property
    def inputs_scaled(self) -> bool:
        """Whether inputs that are numbers are brought to one scale; also where there are none."""
        measured = [
            feature
            for feature in self.index["features"] or []
            if feature["kind"] in ("numeric", "date") or feature.get("dtype", "int64") != "int64"
        ]
        return (
            bool(self.index["scale"])
            or not measured
            or any(by != 1 for feature in measured for by in feature["divide"] or [])
        )

    @property
    def target_unit(self) -> float | None:
        """What 1 of a scaled target is in its own unit; None: they aren't scaled."""
        return self.target_scale["divide"][0] if self.target_scale else None

    @property
    def preparation(self) -> dict[str, Any]:
        """What a network's description says of its inputs and outputs, so that raw rows can be predicted."""
        return preparation_of_index(self.index)

    def schema(self) -> dict[str, Any]:
        """What a network may want to know: the task, the classes, and of each input column its kind and its place in a
        row.
        """
        return {"task": self.task, "classes": self.classes, "features": self.index["features"]}

    @property
    def batch_size(self) -> int:
        """Rows in a minibatch."""
        return int(self.index["batch_size"])

    @property
    def rows_per_epoch(self) -> int:
        """Training rows that an epoch uses: all, or whole minibatches only where `batch.drop_last` is set."""
        rows = len(self.train.targets) if self.only is None else rows_in(self.only)
        return rows - rows % self.batch_size if self.index["drop_last"] else rows

    def order(self, seed: int, epoch: int) -> RowOrder | RowOrderAmong:
        """The training rows of an epoch, in the order in which they are trained on."""
        index = self.index
        if self.only is not None:
            return RowOrderAmong(self.only, len(self.train.targets), seed, epoch)[: self.rows_per_epoch]
        blocks = (index["block"], index["window"]) if index["shuffle"] == "blocks" else ()
        return RowOrder(len(self.train.targets), seed, epoch, *blocks)[: self.rows_per_epoch]


def preparation_of_index(index: dict[str, Any]) -> dict[str, Any]:
    """From an `index.json`, what it takes to bring raw rows to a network, and its outputs to answers."""
    known = index["preparation"] | index
    return {
        name: known[name]
        for name in ("task", "classes", "input_shape", "features", "scale", "target_scale", "notation")
        if name in known
    }


def write_index(
    out: Path,
    splits: dict[str, dict[str, Any]],
    *,
    batch_size: int,
    drop_last: bool,
    shape: tuple[int, ...],
    classes: list[str],
    preparation: dict[str, Any],
    task: str = "classification",
    scale: dict[str, list[float]] | None = None,
    target_scale: dict[str, list[float]] | None = None,
    features: list[dict[str, Any]] | None = None,
    blocks: tuple[int, int] | None = None,
    parts: list[dict[str, Any]] | None = None,
) -> None:
    """Write `index.json`.

    `splits` is what `write_split` said of each; `preparation`, what a row that comes later needs; `scale`, what inputs
    are brought to in the training step, (x - subtract) / divide: a number each, one for each of the first axis of an
    input, or one for each value of it; `target_scale`, the same of targets, where they aren't trained on as they are;
    `blocks`, rows in a block and blocks in a window, where rows are shuffled so; `parts`, the part files of the raw
    data, in order: path, digest, and rows by split.
    """
    rows = splits["train"]["rows"]
    index = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "shuffle": "blocks" if blocks else "full",
        "block": blocks[0] if blocks else None,
        "window": blocks[1] if blocks else None,
        "batches_per_epoch": rows // batch_size if drop_last else -(-rows // batch_size),
        "task": task,
        "outputs": len(classes) if task == "classification" else 1,
        "input_shape": shape,
        "dtype": splits["train"]["inputs"]["dtype"],
        "scale": scale,
        **({"target_scale": target_scale} if target_scale else {}),
        "classes": classes,
        "features": features,
        "preparation": preparation,
        "parts": parts or [],
        "splits": {split: splits[split] for split in SPLITS},
    }
    writing.write_json(out / "index.json", index | {"digest": digests.sha256(digests.canonical_json(index))})


def open_store(path: Path) -> Store:
    """Open the batch store in the directory `path`. Three lines read a batch from anywhere:

    store = open_store(Path("data/batches"))
    rows = store.order(seed=0, epoch=1)[: store.batch_size].indices()
    inputs, targets = store.train.inputs[rows], store.train.targets[rows]

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    index = reading.read_made_json(path / "index.json", "batch")
    told = {name: value for name, value in index.items() if name != "digest"}
    with reading.reading_made(path / "index.json", "batch", ValueError):
        if index.get("digest") != digests.sha256(digests.canonical_json(told)):
            raise ValueError("it isn't as it was written")

    def opened(split: str) -> SplitArrays:
        return SplitArrays(*(_mapped(path / split / f"{name}.npy") for name in ("inputs", "targets")))

    return Store(index, opened("train"), opened("validation"), opened("test"))


def _mapped(path: Path) -> np.ndarray:
    """An array of the store. Mode "c", copy on write: torch warns of arrays that it could not write to."""
    with reading.reading_made(path, "batch", ValueError, EOFError):
        reading.open_file(path).close()
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        return array
