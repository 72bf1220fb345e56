"""A small copy of the project to run, and how a process of it ended."""

import fcntl
import gc
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from ruamel.yaml import YAML

from surefoot import cli
from surefoot.base import digests, errors
from surefoot.run import tracking_process
from surefoot.run.record import RunRecord
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking.description import DescribedData, Description

PROJECT = Path(__file__).parent.parent


def description(name="a run", params=None, tags=None) -> Description:
    """What a run in MLflow says of itself, of some data."""
    return Description(
        name=name, params=params or {}, dataset=DescribedData(path="raw.csv", digest="0" * 64), tags=tags or {}
    )


def some_run(identity: str, *, epoch_keys=(), **more) -> RunRecord:
    """A record that says little, as one of an older Surefoot."""
    return RunRecord(**{"description": description(), "identity": identity, "epoch_keys": list(epoch_keys), **more})


def write_mark(store: TrajectoryStore, identity: str, mark: dict) -> None:
    """Write a mark of any kind, sealed as the store's own."""
    body = digests.canonical_json(mark)
    store.run_path(identity).parent.mkdir(parents=True, exist_ok=True)
    store.run_path(identity).write_bytes(digests.sha256(body).encode() + b"\n" + body)


class Done:
    """How a process ended: exit code, standard output, standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def refused(self) -> str:
        """Standard error, after checking that it is how a user's mistake is told."""
        assert self.code == 2, self
        lines = self.err.splitlines()
        assert 1 <= len(lines) <= 2, self
        assert lines[0].startswith("error: "), self
        assert "Traceback" not in self.out + self.err, self
        return self.err


class Workspace:
    """A copy of the project in a Git repository of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def edit(self, key: str, text: str) -> None:
        """Replace the value of a dotted key in params.yaml by `text`; the rest of the file stays as it is."""
        set_param(self / "params.yaml", key, text)

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, **more}

    def run(self, *command: str, check: bool = True, **environment: str) -> Done:
        done = subprocess.run(
            command, cwd=self.path, env=self.environment(**environment), capture_output=True, text=True
        )
        result = Done(done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, result
        return result

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).out

    def dvc(self, *arguments: str, **options) -> Done:
        return self.run(".venv/bin/dvc", *arguments, **options)

    def stage_command(self, name: str) -> list[str]:
        return [".venv/bin/python", "-m", f"surefoot.stages.{name}"]

    def stage(self, name: str, check: bool = True, **environment: str) -> Done:
        """Run a stage as dvc.yaml does, without DVC."""
        return self.run(
            *self.stage_command(name), check=check, PYTHONPATH="src", DVC_ROOT=str(self.path), **environment
        )

    def client(self):
        return mlflow_client(self.path)

    def runs(self):
        """The runs in the store, the latest first."""
        client = self.client()
        experiment = client.get_experiment_by_name("surefoot")
        return (
            client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
            if experiment
            else []
        )

    def trainings(self):
        """The runs in the store that are trainings: no sweep's parent, no `lr-find`."""
        return [run for run in self.runs() if "surefoot.kind" not in run.data.tags]

    def artifact(self, run, path: str) -> Path:
        """A file of a run, in the default store."""
        found = Path(run.info.artifact_uri.removeprefix("file://")) / path
        assert found.is_relative_to(self.path / "mlartifacts")
        return found


def made_once(root: Path, name: str, make) -> Path:
    """A directory under `root` that `make` fills: the first of the workers that asks for it does, the others wait."""
    root.mkdir(parents=True, exist_ok=True)
    path, made = root / name, root / f"{name}.made"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            made.touch()
    return path


def copy_project(source: Path, path: Path) -> None:
    """Copy a project to a new or empty directory; its MLflow store is told where its artifacts lie now."""
    shutil.copytree(
        source, path, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tmp", "__pycache__")
    )
    with closing(sqlite3.connect(path / "mlflow.db")) as store, store:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            store.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(source), str(path)))


def left(workspace):
    """Processes that work in the project or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "cmdline").read_bytes().decode(errors="replace") + str((process / "cwd").readlink())
        except OSError:
            continue
        if str(workspace.path) in about and process.name != str(os.getpid()):
            found.append(int(process.name))
    return found


def tried(workspace):
    """How each task of the queue came out, when all of it was tried."""
    from dvc.repo import Repo

    # `dvc queue status` would take a second, and the workers' cores with it: it also asks these how they are.
    with Repo(workspace.path) as repo:
        found = [task["status"] for task in repo.experiments.celery_queue.status()]
    return None if {"Queued", "Running"} & set(found) else found


def wait_for(what, seconds=600, pause=0.1):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, what
        time.sleep(pause)
    return found


def run_queue(workspace: Workspace, jobs: int) -> list[str]:
    """Let so many workers of DVC's run all that is queued; how each came out."""
    try:
        subprocess.run(
            [".venv/bin/dvc", "queue", "start", "--jobs", str(jobs)],
            cwd=workspace.path,
            env=workspace.environment(PATH=f"{workspace / '.venv/bin'}:{os.environ['PATH']}"),  # workers call `dvc`
            stdout=subprocess.DEVNULL,  # which workers hold open as long as they live
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return wait_for(lambda: tried(workspace))
    finally:
        workspace.dvc("queue", "stop", "--kill", check=False)
        try:
            wait_for(lambda: not left(workspace), 20)
        except AssertionError:
            for pid in left(workspace):
                os.kill(pid, signal.SIGKILL)
            raise


def set_param(file: Path, key: str, text: str) -> None:
    """Put `text` in the place of a key's value, which begins in the key's own line; the other lines
    stay as they are.
    """
    source = file.read_text()
    node = YAML(typ="safe").compose(source)
    for part in key.split("."):
        name, node = next((name, value) for name, value in node.value if name.value == part)
    start, end = node.start_mark.index, node.end_mark.index
    if (
        start == end or node.start_mark.line > name.end_mark.line
    ):  # nothing, or a block, which ends where the next key begins
        start, end = name.end_mark.index + 1, max(name.end_mark.index + 1, len(source[:end].rstrip()))
        text = f" {text}"
    file.write_text(source[:start] + text + source[end:])


def mlflow_client(root: Path):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def make_workspace(path: Path) -> Workspace:
    path.mkdir(parents=True)
    for name in (
        "dvc.yaml",
        "params.yaml",
        ".dvcignore",
        ".gitignore",
        ".dvc/config",
        ".dvc/.gitignore",
        "data/raw",
        "src",
    ):
        source, to = PROJECT / name, path / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, to)
    (path / ".venv").symlink_to(sys.prefix)
    workspace = Workspace(path)
    workspace.edit("train.epochs", "3")
    workspace.git("init", "--quiet", "--initial-branch=main")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=start")
    return workspace


class TrackingThread:
    """Takes the place of the process that writes to MLflow, at the other end of its channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel.dup()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._channel, suppress(SystemExit):  # by which a test ends it
            tracking_process.follow_stage(self._channel)

    def wait(self, seconds: float | None = None) -> int:
        self._thread.join(seconds)
        return 0

    def kill(self) -> None:
        pass


PARAMS = """\
prepare:
  source: raw.csv
  target: kind
batch: {size: 4}
train:
  model:
    factory: networks.mlp:mlp
    arguments: {hidden: [5]}
  epochs: 2
  lr: 0.1
"""


class Here:
    """An empty directory, made the current one, to run stages in within this process: fast."""

    def __init__(self, path: Path, capfd) -> None:
        self.path, self._capfd = path, capfd
        (path / "params.yaml").write_text(PARAMS)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def edit(self, key: str, text: str) -> None:
        set_param(self / "params.yaml", key, text)

    def once(self, kept: Path, make) -> None:
        """Let `make` fill this directory; what it leaves is kept, and whoever says the same place later has a copy."""
        if kept.exists():
            for path in self.path.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            copy_project(kept, self.path)
        else:
            make()
            copy_project(self.path, kept)

    def csv(self, rows: int = 60, classes: int = 3) -> None:
        """Write raw.csv: inputs `a` and `b`, target `kind`."""
        lines = [f"{number / 7},{number * number % 11},{'xyz'[number % classes]}\n" for number in range(rows)]
        (self / "raw.csv").write_text("".join(["a,b,kind\n", *lines]))

    def stage(self, name: str) -> Done:
        """Run a stage's `main` as its process would."""
        main = import_module(f"surefoot.stages.{name}").main
        self._capfd.readouterr()
        code = 0
        try:
            errors.run_process(main)
        except SystemExit as stop:
            code = stop.code
        finally:
            gc.unfreeze()  # a stage's process ends here: what it left, files too, is no longer needed
        return Done(code, *self._capfd.readouterr())

    def client(self):
        return mlflow_client(self.path)

    def runs(self):
        """The runs in the store, the latest first."""
        client = self.client()
        experiment = client.get_experiment_by_name("surefoot")
        return (
            client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
            if experiment
            else []
        )

    def files(self) -> set[str]:
        """What lies here but for Git's files and the stores of MLflow and of trajectories, as paths."""
        found = (path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())
        return {name for name in found if not name.startswith(("mlflow.db", "mlartifacts/", ".surefoot/", ".git/"))}


def call_surefoot(monkeypatch, capfd, *arguments):
    """A command within this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["surefoot", *map(str, arguments)])
    capfd.readouterr()
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capfd.readouterr()
