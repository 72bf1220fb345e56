"""What `surefoot init` has decided, and the digits as an example."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from surefoot.base.errors import UserError
from surefoot.base.paths import RAW
from surefoot.base.wording import listed_names, number_of
from surefoot.commands.init.look_at_data import Looked
from surefoot.commands.init.raw_data_named import NamedData

BATCH = 64
STEPS = 10_000
"""So many are trained, but for `FEWEST_EPOCHS` at least and `MOST_EPOCHS` at most."""
FEWEST_EPOCHS, MOST_EPOCHS = 50, 100
# With a constant rate more epochs go on from the last. Adam's default suits data of any kind; the digits show SGD.
ADAM = {"lr": 0.001, "momentum": 0.0, "optimizer": {"name": "Adam"}}
SGD = {"lr": 0.01, "momentum": 0.9}


@dataclass(frozen=True)
class Settings:
    """What params.yaml says, what comes with it, and why."""

    params: dict[str, Any]
    """Nested as in params.yaml, with the keys that a user changes first."""
    copies: dict[str, Path] = field(default_factory=dict)
    """Raw data that are copied, by where they come to lie below the directory."""
    elsewhere: list[str] = field(default_factory=list)
    """Raw data that stay where they lie, in the repository and outside of data/raw; relative to the directory."""
    told: list[str] = field(default_factory=list)
    """What was chosen and why, in lines."""


def example_settings(files: Mapping[str, Path]) -> Settings:
    """The digits; `files`: theirs, by where they come to lie."""
    prepare = {"source": "data/raw/digits.csv", "target": "digit", "task": "classification"}
    told = ["data/raw/digits.csv: 1,797 images of handwritten digits, as an example; --data FILE takes your own"]
    return Settings(_params(prepare, [1, 8, 8], 30, SGD), copies=dict(files), told=told)


def own_settings(raw: NamedData, looked: Looked, place: Path, root: Path) -> Settings:
    """Those of somebody's data: they stay where they lie in DVC's root; what lies outside is copied into data/raw."""
    copies: dict[str, Path] = {}
    elsewhere: list[str] = []
    named: dict[str, str] = {}
    for key, given in raw.files.items():
        path = given.parent.resolve() / given.name if given.name not in ("", "..") else given.resolve()  # links stay
        if path.is_relative_to(root.resolve()):
            named[key] = os.path.relpath(path, place.resolve())
            if not Path(named[key]).is_relative_to(RAW):
                elsewhere.append(named[key])
        else:
            named[key] = f"{RAW}/{path.name}"
            if copies.setdefault(named[key], path) != path:
                raise UserError(f"{path} and {copies[named[key]]} would both be copied to {named[key]}; rename one")
    told = list(looked.told)
    if copies:
        told.append(f"copied, as they lie outside of DVC's root, {root}: {listed_names(map(str, copies.values()))}")
    if elsewhere:
        told.append(f"used where they lie, which dvc.yaml names: {listed_names(elsewhere)}")
    schema = looked.schema
    shape = list(schema.shape) if len(schema.shape) > 1 else None
    if shape:
        told.append(f"batch.shape: {shape}, of one input")
    rows = schema.rows["train"]
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, ceil(STEPS * BATCH / rows)))
    told.append(f"train: {epochs} epochs, by Adam with lr {ADAM['lr']}, for {number_of(rows, 'training row')}")
    return Settings(_params({**named, **looked.values}, shape, epochs, ADAM), copies, elsewhere, told)


def _params(
    prepare: Mapping[str, Any], shape: list[int] | None, epochs: int, pace: Mapping[str, Any]
) -> dict[str, Any]:
    """params.yaml for such data."""
    return {
        "seed": 0,
        "prepare": {**prepare},
        "batch": {"size": BATCH, "shape": shape},
        "train": {
            "model": {"factory": "networks.mine:network", "arguments": {"hidden": [100]}},
            "start_from": None,
            "epochs": epochs,
            **pace,
            "weight_decay": 0.0,
        },
    }
