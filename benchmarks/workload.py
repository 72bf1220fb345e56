"""What is trained, and how a measurement of it is called: each in a process of its own, as numerics are pinned once a
process.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from surefoot.params.sections import Params

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


LARGE = Workload("60,000 x 784", 60_000, (784,), 10, 64, "networks.mlp:mlp", {"hidden": [128]}, {"lr": 0.01}, epochs=1)
SMALL = replace(LARGE, name="20,000 x 64", rows=20_000, shape=(64,), arguments={"hidden": [256]})
CNN = replace(
    LARGE, name="CNN, 4,096 x 28 x 28", rows=4_096, shape=(1, 28, 28), factory="networks.cnn:cnn", arguments={}
)


@dataclass(frozen=True)
class Asked:
    """What a part of the table is measured by."""

    workloads: dict[str, Workload]
    params: Params  # of the project
    rounds: int
    scratch: Path  # an empty directory
    quick: bool
    clock: str  # of `time`


def make_workloads(params: Params, quick: bool) -> dict[str, Workload]:
    """Those that loops are timed on; of few rows and epochs where it is to be quick."""
    some = {"large": LARGE, "small": SMALL, "digits": digits(params, 2 if quick else 10), "cnn": CNN}
    if quick:
        some["large"] = replace(LARGE, name="2,000 x 784", rows=2_000)
        some["small"] = replace(SMALL, name="2,000 x 64", rows=2_000)
        some["cnn"] = replace(CNN, name="CNN, 256 x 28 x 28", rows=256)
    return some


def digits(params: Params, epochs: int) -> Workload:
    """The project's own run: as many rows as the training split has, the network and optimizer of params.yaml."""
    train = params.train
    with (ROOT / "data" / "raw" / "digits.csv").open() as file:
        rows = round((sum(1 for _ in file) - 1) * (1 - params.prepare.validation - params.prepare.test))
    optimizer = train.model_dump(include={"lr", "momentum", "nesterov", "dampening", "weight_decay"})
    return Workload(
        "digits",
        rows,
        params.batch.shape or (64,),
        10,
        params.batch.size,
        train.model.factory,
        train.model.arguments,
        optimizer,
        epochs,
    )


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
