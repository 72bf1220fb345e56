"""A copy of the project to train in and to damage, and what must be true of it at the end."""

import contextlib
import csv
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

PROJECT = Path(__file__).resolve().parents[2]
COPIED = ("src", "data/raw", "dvc.yaml", "params.yaml", "pyproject.toml", ".dvc/config", ".gitignore", ".dvcignore")
OUTPUTS = ("models/model.safetensors", "models/run.json", "reports/history.csv", "reports/metrics.json")
TEST_METRICS = {f"test/{name}" for name in ("loss", "accuracy", "precision_macro", "recall_macro", "f1_macro", "ece")}
METRICS = {
    "train/loss",
    "validation/loss",
    "validation/accuracy",
    "lr",
    "gradient_norm",
    "epoch_seconds",
    "rows_per_second",
    "steps_per_second",
    "peak_memory_mb",
}
PATIENCE = 300.0  # seconds that a command may take


class Wrong(Exception):
    """A round that didn't end right."""


@dataclass(frozen=True)
class Reference:
    """What a run ends with when nothing disturbs it."""

    train: dict[str, Any]  # what it changes of the params under `train`
    outputs: dict[str, bytes]
    epochs: int


class Workspace:
    """A copy of the project under Git and DVC, prepared and batched, with a store and an MLflow of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chain = path / ".surefoot" / "chain"
        self.log = path.with_name(f"{path.name}.log")
        foreign = ("MLFLOW_", "DVC_", "GIT_", "PYTHON", "SUREFOOT_", "MKL_", "OMP_", "ATEN_", "ONEDNN_")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "MPLBACKEND": "agg",
            "PYTHONPATH": "src",
            **{
                f"DVC_{kind}_DIR": str(path.with_name(f"{path.name}.dvc-{kind.lower()}"))
                for kind in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")
            },
        }
        # What the stages get from DVC when they are run without it.
        self.alone = {"DVC_ROOT": str(path)}

    @classmethod
    def make(cls, path: Path, **train: Any) -> "Workspace":
        """Copy the project, commit it, prepare and batch its data."""
        path.mkdir(parents=True)
        for name in COPIED:
            source, target = PROJECT / name, path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, target)
        (path / ".venv").symlink_to((PROJECT / ".venv").resolve())
        workspace = cls(path)
        workspace.params(**train)
        git = ["git", "-c", "user.name=Soak", "-c", "user.email=soak@example.org"]
        for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "The project"]):
            workspace.run([*git, *command])
        workspace.run([*workspace.dvc, "repro", "batch"])
        shutil.copy(path / "dvc.lock", path.with_name(f"{path.name}.dvc.lock"))
        return workspace

    def copy(self, path: Path) -> "Workspace":
        """Another one like it."""
        # MLflow's store says where its artifacts lie: each workspace needs one of its own.
        shutil.copytree(self.path, path, symlinks=True, ignore=shutil.ignore_patterns("mlflow.db*"))
        shutil.copy(self.path.with_name(f"{self.path.name}.dvc.lock"), path.with_name(f"{path.name}.dvc.lock"))
        return Workspace(path)

    @property
    def python(self) -> str:
        return str(self.path / ".venv" / "bin" / "python")

    @property
    def dvc(self) -> list[str]:
        return [self.python, "-m", "dvc"]

    def params(self, **train: Any) -> None:
        """Change params under `train`, from what the project has."""
        params = yaml.safe_load((PROJECT / "params.yaml").read_text())
        params["batch"]["size"] = 16
        params["train"] |= train
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def reset(self, *, mlflow: bool = True) -> None:
        """Forget all training, here, in DVC and in MLflow; `mlflow`: leave the store there, but empty."""
        for name in (".surefoot", "mlartifacts", "models", "reports", ".dvc/cache/runs", ".dvc/tmp"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        shutil.copy(self.path.with_name(f"{self.path.name}.dvc.lock"), self.path / "dvc.lock")
        if mlflow and (self.path / "mlflow.db").exists():
            empty(self.path / "mlflow.db")
        else:
            for file in self.path.glob("mlflow.db*"):
                file.unlink()

    def start(self, command: list[str], **more: Any) -> "subprocess.Popen[bytes]":
        """Start a command in a process group of its own; what it prints goes to the log."""
        environ = self.environ | more.pop("environ", {})
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            return subprocess.Popen(
                command,
                cwd=self.path,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **more,
            )

    def ended(self, process: "subprocess.Popen[bytes]") -> int:
        """The exit code of a process, waited for; none may hang."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            raise Wrong(f"{process.args} hung") from None

    def run(self, command: list[str], *, code: int = 0, **environ: str) -> str:
        """Run a command that must end with this code; returns what it printed."""
        before = self.log.stat().st_size if self.log.exists() else 0
        got = self.ended(self.start(command, environ=environ))
        said = self.log.read_bytes()[before:].decode(errors="replace")
        if got != code:
            raise Wrong(f"exit code {got}, not {code}: {' '.join(command)}\n{said[-2000:]}")
        return said

    def stage(self, name: str, *, code: int = 0, **environ: str) -> str:
        """Run a stage without DVC."""
        return self.run([self.python, "-m", f"surefoot.stages.{name}"], code=code, **(self.alone | environ))

    def repro(self, **environ: str) -> str:
        """Run `dvc repro` to its end."""
        return self.run([*self.dvc, "repro"], **environ)

    def reference(self, **train: Any) -> Reference:
        """Make a reference, and forget it."""
        self.params(**train)
        self.reset()
        self.repro()
        made = Reference(train, {name: (self.path / name).read_bytes() for name in OUTPUTS}, len(history(self.path)))
        self.check(made)
        self.reset()
        return made

    def check(self, reference: Reference, *, database: Path | None = None, outputs: tuple[str, ...] = OUTPUTS) -> None:
        """The outputs have the reference's bytes, and MLflow one run, finished, with each point of each curve once.

        Raises:
            Wrong: not so.
        """
        self.check_outputs(reference, outputs)
        self.check_mlflow(reference, database or self.path / "mlflow.db", test="reports/metrics.json" in outputs)

    def check_outputs(self, reference: Reference, outputs: tuple[str, ...] = OUTPUTS) -> None:
        for name in outputs:
            if (self.path / name).read_bytes() != reference.outputs[name]:
                raise Wrong(f"{name} differs from that of the run that nothing disturbed")

    def check_mlflow(self, reference: Reference, database: Path, *, test: bool = True, lr: float | None = None) -> None:
        points, runs = mlflow_runs(database, lr)
        if [status for _, status in runs] != ["FINISHED"]:
            raise Wrong(f"MLflow has the runs {runs}, not one that is FINISHED")
        steps = {(name, epoch) for name in METRICS for epoch in range(1, reference.epochs + 1)}
        wanted = (
            steps | {("best_epoch", 0), ("chosen_epoch", 0)} | ({(name, 0) for name in TEST_METRICS} if test else set())
        )
        # A training of more than ten seconds, on a busy machine, has `system/...` as well.
        found = Counter((name, step) for name, step, _ in points if not name.startswith("system/"))
        if set(found) != wanted:
            raise Wrong(
                f"MLflow's history lacks {sorted(wanted - set(found))}, and has beside it {sorted(set(found) - wanted)}"
            )
        if doubled := sorted(point for point, times in found.items() if times > 1):
            raise Wrong(f"MLflow has twice: {doubled}")
        values = {(name, step): value for name, step, value in points}
        for row in history(self.path):
            for name in METRICS & set(row):
                if values[name, int(row["epoch"])] != row[name]:
                    raise Wrong(
                        f"MLflow says {name} {values[name, int(row['epoch'])]} at epoch {row['epoch']:g}, the history"
                        f" {row[name]}"
                    )


def history(path: Path) -> list[dict[str, float]]:
    """The rows of `reports/history.csv`."""
    with (path / "reports" / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def mlflow_runs(database: Path, lr: float | None = None) -> tuple[list[tuple[str, int, float]], list[tuple[str, str]]]:
    """The points (name, step, value) and the runs (id, status) of an MLflow store, or those of the runs with this
    `train.lr`.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection:
        runs = connection.execute(
            "select run_uuid, status from runs where ?1 is null or run_uuid in (select run_uuid from params where key ="
            " 'train.lr' and value = ?1)",
            (None if lr is None else str(lr),),
        ).fetchall()
        points = [
            point
            for run, _ in runs
            for point in connection.execute("select key, step, value from metrics where run_uuid = ?", (run,))
        ]
    return points, runs


def empty(database: Path) -> None:
    """Delete all runs of an MLflow store and whatever belongs to them; its tables take MLflow seconds to build."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            if table not in ("alembic_version", "experiments", "workspaces"):
                connection.execute(f"delete from {table}")


def kill_group(pid: int) -> None:
    """Kill -9 a process, its group and whatever it started."""
    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, also where nobody reaps it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(what: str, seconds: float, true: Any) -> None:
    """Wait until something is true.

    Raises:
        Wrong: it isn't within that time.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Wrong(f"after {seconds:g} s: {what}")
        time.sleep(0.05)
