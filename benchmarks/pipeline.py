"""`dvc repro` by the clock, in a copy of the project, beside what it can't do without: imports and a bare training."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.workload import ROOT, Workload, call_worker

# What each process can't do its work without. train and evaluate have one beside them that imports MLflow.
IMPORTS = {
    "dvc": "dvc.cli.parser, dvc.repo, networkx",
    "start_from": "surefoot.stages.start_from",
    "prepare": "surefoot.stages.prepare, surefoot.data.readers.csv",
    "batch": "surefoot.stages.batch",
    "train": "surefoot.stages.train, surefoot.run.train_run, networks.mlp",
    "evaluate": "surefoot.stages.evaluate, surefoot.run.score_model, surefoot.evaluation.reports, networks.mlp",
    "MLflow": "mlflow.pyfunc, mlflow.store.tracking.sqlalchemy_store",
}


def measure_round(project: Path, digits: Workload, profile: str) -> dict[str, float]:
    """Seconds of each thing, once, in a new copy of the project in the directory `project`."""
    copy(project)
    seconds = {"scratch": repro(project)}
    imports = {
        f"import {name}": seconds_of([sys.executable, "-c", f"import {modules}"], project)
        for name, modules in IMPORTS.items()
    }
    seconds |= imports | {"imports": sum(imports.values()) + imports["import MLflow"]}
    seconds["bare training"] = call_worker("train", digits, project / "data" / "batches", profile)
    return seconds


def copy(project: Path) -> None:
    """Copy what Git has or would add to a new repository, with this project's `.venv`: what a fresh clone is after
    set-up.
    """
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    (project / ".venv").symlink_to(Path(sys.prefix))
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "copy"]):
        subprocess.run(["git", *command], cwd=project, check=True)


def repro(project: Path) -> float:
    """Seconds that `dvc repro` takes."""
    return seconds_of([str(project / ".venv" / "bin" / "dvc"), "repro", "--quiet"], project)


def seconds_of(command: list[str], project: Path) -> float:
    """Seconds that a command takes in the project."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")
    return seconds


def environment(project: Path) -> dict[str, str]:
    """What a process in the project is given, away from any tracking server and DVC state of the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "DVC_", "PYTHON", "OMP_", "MKL_"))
    }
    return kept | {"PYTHONPATH": str(project / "src"), "DVC_SITE_CACHE_DIR": str(project / ".dvc" / "site")}


def bump_lr(project: Path, lr: float) -> None:
    """Set `train.lr` in its params.yaml."""
    params = project / "params.yaml"
    bumped, found = re.subn(r"^(  lr: *)[^ \n]+", rf"\g<1>{lr}", params.read_text(), flags=re.MULTILINE)
    assert found == 1
    params.write_text(bumped)
