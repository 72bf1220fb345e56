"""What is trained, and how a measurement of it is called: each in a process of its own, as numerics are pinned once a
process.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workload:
    """What is trained on what: the rows are random numbers, which cost the same as real ones."""

    name: str
    rows: int
    shape: tuple[int, ...]
    classes: int
    batch_size: int
    factory: str
    arguments: dict[str, Any]
    optimizer: dict[str, Any]
    epochs: int  # that are timed as one


def call_worker(
    task: str, workload: Workload, directory: Path, profile: str = "native", cgroup: str | None = None, **arguments: Any
) -> Any:
    """Run one of the tasks in a new process, in a control group if one is given, and return its answer."""
    message = {
        "task": task,
        "workload": asdict(workload),
        "directory": str(directory),
        "profile": profile,
        "cgroup": cgroup,
        "arguments": arguments,
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(message)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
