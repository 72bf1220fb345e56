"""What `index.json` of a batch store says: one type, of which the file is made and as which it is read.

It is written last: a store without it isn't whole. One of an older Surefoot lacks what has a default here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from surefoot.base import digests, reading, writing
from surefoot.base.documents import Count, Digest, Document
from surefoot.data.part_files import PartFile
from surefoot.data.splits import SPLITS

FILE = "index.json"
Scale = dict[str, list[float]]  # subtract and divide


class ArrayFile(Document):
    """One of the store's arrays."""

    dtype: str
    shape: list[Count]
    sha256: Digest


class SplitFiles(Document):
    """A split's two arrays, and how many rows of each class are in them."""

    rows: Count
    class_counts: list[Count]
    inputs: ArrayFile
    targets: ArrayFile


class Preparation(Document):
    """What `schema.json` says that a row which comes later needs, so that the model can be used on raw rows."""

    source: str = ""
    dropped: dict[str, int] = Field(default={})
    """How many rows were, by the reason."""
    examples: list[Any] = Field(default=[])
    split: dict[str, Any] = Field(default={})
    """The params by which rows were split."""
    notation: dict[str, Any] | None = None


class BatchIndex(Document):
    """`index.json`: what is in a batch store, and what it was made from. The fields are written in this order."""

    batch_size: Count
    drop_last: bool
    shuffle: Literal["full", "blocks"]
    block: int | None
    """Rows in a block, where rows are shuffled so."""
    window: int | None
    """Blocks in a window."""
    batches_per_epoch: Count
    task: Literal["classification", "binary", "regression"]
    outputs: Count
    input_shape: list[Count]
    dtype: str
    """Of inputs."""
    scale: Scale | None
    """What inputs are brought to in the training step, (x - subtract) / divide: a number each, one for each of the
    first axis of an input, or one for each value of it.
    """
    target_scale: Scale | None = None
    """The same of targets, stored in their own unit; None: they are trained on as they are."""
    classes: list[str]
    """The labels; a target is an index into them."""
    features: list[dict[str, Any]]
    """The fitted preparation of each input column (`surefoot.data.features`)."""
    preparation: Preparation
    parts: list[PartFile] = Field(default=[])
    """The part files of the raw data, in order."""
    splits: dict[str, SplitFiles]
    digest: Digest = ""
    """Of all the rest."""

    def network_description(self) -> dict[str, Any]:
        """What it takes to bring raw rows to a network, and its outputs to answers."""
        known = self.preparation.plain() | self.plain()
        names = ("task", "classes", "input_shape", "features", "scale", "target_scale", "notation")
        return {name: known[name] for name in names if name in known}


def write_index(
    out: Path,
    splits: dict[str, SplitFiles],
    *,
    batch_size: int,
    drop_last: bool,
    shape: tuple[int, ...],
    classes: list[str],
    preparation: Preparation,
    task: str = "classification",
    scale: Scale | None = None,
    target_scale: Scale | None = None,
    features: Sequence[dict[str, Any]] = (),
    blocks: tuple[int, int] | None = None,
    parts: Sequence[PartFile] = (),
) -> None:
    """Write `index.json`; `splits` is what `write_split` said of each, `blocks` rows in a block and blocks in a window,
    where rows are shuffled so.
    """
    rows = splits["train"].rows
    fields = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "shuffle": "blocks" if blocks else "full",
        "block": blocks[0] if blocks else None,
        "window": blocks[1] if blocks else None,
        "batches_per_epoch": rows // batch_size if drop_last else -(-rows // batch_size),
        "task": task,
        "outputs": len(classes) if task == "classification" else 1,
        "input_shape": list(shape),
        "dtype": splits["train"].inputs.dtype,
        "scale": scale,
        **({"target_scale": target_scale} if target_scale else {}),
        "classes": classes,
        "features": list(features),
        "preparation": preparation,
        "parts": list(parts),
        "splits": {split: splits[split] for split in SPLITS},
    }
    index = BatchIndex.model_validate(fields).plain()
    writing.write_json(out / FILE, index | {"digest": _digest(index)})


def read_index(path: Path) -> BatchIndex:
    """The index of the batch store in the directory `path`.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    index = reading.read_made_json(path / FILE, "batch")
    with reading.reading_made(path / FILE, "batch", ValueError):
        if index.get("digest") != _digest({name: value for name, value in index.items() if name != "digest"}):
            raise ValueError("it isn't as it was written")
        return BatchIndex.model_validate(index)


def _digest(index: dict[str, Any]) -> str:
    return digests.sha256(digests.canonical_json(index))
