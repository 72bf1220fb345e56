"""The loop of a day: `dvc repro` after another learning rate, beside a script that does the same in one process, and
beside what neither can do without.
"""

import os
import resource
import subprocess
import sys
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
        fields = Path(f"/proc/{train.pid}/stat").read_text().rpartition(")")[2].split()
        train.stdout.read()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def profile(project: Path, stage: str) -> dict[str, float]:
    """Where the CPU seconds of a stage and its children go: imports, which are told by the clock, and all the rest."""
    own = pipeline.environment(project) | {"DVC_ROOT": str(project), "PYTHONPROFILEIMPORTTIME": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(_stage(project, stage), cwd=project, env=own, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = import_seconds(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["all but imports"] = cpu - sum(found.values())
    return {"by the clock": seconds, **dict(sorted(found.items(), key=lambda item: -item[1]))}


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
