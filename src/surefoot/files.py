"""Where things lie, and how they are written: beside, then renamed, so that nobody sees half a file."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared")
BATCHES = Path("data/batches")
MODEL = Path("models/model.safetensors")
HISTORY = Path("reports/history.csv")
METRICS = Path("reports/metrics.json")
CONFUSION = Path("reports/confusion.csv")


def root() -> Path:
    """The repository's root, absolute; in DVC's temporary copies the root of the one they came from."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling a value: sorted keys, no spaces, shortest round-trip floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill; it takes the place of `path` when the block ends well, and vanishes when not."""
    beside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
