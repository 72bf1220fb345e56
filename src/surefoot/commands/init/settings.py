"""What `surefoot init` has decided, and the digits as an example."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    return Settings(
        all_params(prepare, [1, 8, 8]),
        copies=dict(files),
        told=["data/raw/digits.csv: 1,797 images of handwritten digits, as an example; --data FILE takes your own"],
    )


def all_params(prepare: Mapping[str, Any], shape: list[int] | None) -> dict[str, Any]:
    """params.yaml for such data."""
    return {
        "seed": 0,
        "prepare": {**prepare},
        "batch": {"size": 64, "shape": shape},
        "train": {
            "model": {"factory": "networks.mine:network", "arguments": {"hidden": [100]}},
            "start_from": None,
            "epochs": 30,
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
    }
