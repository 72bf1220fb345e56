"""Where things lie."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
START_FROM = Path("data/start_from")
PREPARED = Path("data/prepared")
BATCHES = Path("data/batches")
MODEL = Path("models/model.safetensors")
RUN = Path("models/run.json")
HISTORY = Path("reports/history.csv")
METRICS = Path("reports/metrics.json")
INTERVALS = Path("reports/intervals.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")
MEASURED = (METRICS, INTERVALS, PREDICTIONS, CLASSES, PLOTS)  # what evaluate says of a model and its data


def from_here(path: Path) -> Path:
    """A path as short as it can be told in the current directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def trajectory_store() -> Path:
    """The trajectory store: SUREFOOT_STORE, or `.surefoot/` at the repository's root."""
    return Path(os.environ.get("SUREFOOT_STORE") or repository_root() / ".surefoot")


def repository_root() -> Path:
    """The repository's root, absolute; in DVC's temporary copies the root of the one they came from."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()
