"""The loop of a day: `dvc repro` after another learning rate, beside a script that does the same in one process, and
beside what neither can do without.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import pipeline
from benchmarks.workload import ROOT, Workload, call_worker

TORCH = [sys.executable, "-c", "import torch"]
SCRIPT = ROOT / "benchmarks" / "plain_script.py"
PACKAGES = ("torch", "mlflow", "sqlalchemy", "pandas", "matplotlib", "pyarrow", "numpy", "pydantic", "surefoot")

Clocked = tuple[float, float]  # seconds by the clock, seconds of CPU


def measure_round(project: Path, digits: Workload, profile: str, number: int) -> dict[str, Clocked]:
    """Seconds of each thing, once, in a copy of the project that has been run."""
    lr = 0.01 + number / 10_000  # another one each time
    pipeline.bump_lr(project, lr)
    dvc = [str(project / ".venv" / "bin" / "dvc"), "repro", "--quiet"]
    script = [sys.executable, str(SCRIPT), "data/raw/digits.csv", str(lr), str(digits.epochs)]
    found = {"ours": _clock(dvc, project), "script": _clock(script, project), "dvc": _clock(dvc, project)}
    found["torch"] = _clock(TORCH, project)
    training = call_worker("train", digits, project / "data" / "batches", profile)
    found["training"] = (training, training)
    pipeline.bump_lr(project, lr + 0.00005)
    cpu = _cpu_to_first_epoch(project)
    found["first epoch"] = (cpu, cpu)
    pipeline.bump_lr(project, lr)
    return found


def _clock(command: list[str], project: Path) -> Clocked:
    """Of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = pipeline.seconds_of(command, project)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _stage(project: Path, name: str) -> list[str]:
    return [str(project / ".venv" / "bin" / "python"), "-m", f"surefoot.stages.{name}"]


def _cpu_to_first_epoch(project: Path) -> float:
    """Seconds of CPU that the process of `train` itself has taken when it says that its first epoch is done."""
    own = pipeline.environment(project) | {"DVC_ROOT": str(project)}
    with subprocess.Popen(_stage(project, "train"), cwd=project, env=own, stdout=subprocess.PIPE, text=True) as train:
        assert train.stdout
        while not train.stdout.readline().startswith("epoch "):
            assert train.poll() is None
        seconds, _ = _cpu_of(train.pid)
        train.stdout.read()
    return seconds


def _cpu_of(pid: int) -> Clocked:
    """Seconds of CPU of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, system, of_children, their_system = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15])
    return own + system, of_children + their_system


def profile(project: Path, stage: str) -> dict[str, float]:
    """Where the seconds of a stage go: by the clock, of CPU in its own process and in its children, which write to
    MLflow; and by the clock the imports of the former.
    """
    own = pipeline.environment(project) | {"DVC_ROOT": str(project)}
    python, *arguments = _stage(project, stage)
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(
            [python, "-X", "importtime", *arguments], cwd=project, env=own, stdout=subprocess.DEVNULL, stderr=told
        ) as process,
    ):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is still listed
        seconds, (cpu, of_children) = time.perf_counter() - start, _cpu_of(process.pid)
        told.seek(0)
        imports = import_seconds(told.read())
    largest = dict(sorted(imports.items(), key=lambda item: -item[1]))
    return {"by the clock": seconds, "CPU": cpu, "CPU of its children": of_children} | {
        f"import {name}": seconds for name, seconds in largest.items()
    }


def import_seconds(told: str) -> dict[str, float]:
    """Seconds of the imports of each package, with what only it imports, from what `python -X importtime` told."""
    found: dict[str, float] = defaultdict(float)
    inside: list[tuple[int, str]] = []  # depth and package of the imports around this one
    for line in reversed(told.splitlines()):  # a module comes after those that it imports
        parts = line.removeprefix("import time:").split("|")
        if len(parts) != 3 or not parts[0].strip().isdigit():
            continue
        depth, top = len(parts[2]) - len(parts[2].lstrip()), parts[2].strip().partition(".")[0]
        while inside and inside[-1][0] >= depth:
            inside.pop()
        outer = inside[-1][1] if inside else ""
        package = outer if outer not in ("", "surefoot") else top if top in PACKAGES else outer
        inside.append((depth, package))
        found[package or "others"] += int(parts[0]) / 1e6
    return dict(found)
