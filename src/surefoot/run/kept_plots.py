"""Plots that lie beside the states of a run until they are in MLflow."""

from pathlib import Path

from surefoot.base import writing
from surefoot.run.trajectory_store import TrajectoryStore


def keep_plots(identity: str, plots: dict[str, bytes], store: TrajectoryStore) -> None:
    """Leave them for MLflow: `surefoot sync` brings them there where it is out of reach now."""
    for name, data in plots.items():
        writing.write_bytes(store.path / "plots" / identity / name, data)


def kept_plots(identity: str, store: TrajectoryStore) -> list[Path]:
    """Those that are left."""
    return sorted((store.path / "plots" / identity).glob("*.png"))
