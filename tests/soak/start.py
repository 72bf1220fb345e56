"""Many first starts at once on an MLflow store that isn't there yet: each gets its run."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.soak.workspace import Reference, Workspace, Wrong, mlflow_runs

STARTS, EPOCHS = 8, 3


def run(path: Path, count: Callable[..., None], starts: int = STARTS) -> None:
    """Start trainers of different learning rates at once, in copies as DVC makes them, on one store of states and one
    of MLflow's.
    """
    root = Workspace.make(path)
    rates = [(number + 1) / 1000 for number in range(starts)]
    copies = []
    for rate in rates:
        copy = Workspace(path.with_name(f"copy-{rate:g}"))
        shutil.copytree(path, copy.path, symlinks=True)
        copy.params(lr=rate, epochs=EPOCHS)
        copies.append(copy)
    wrong = None
    try:
        trainers = [copy.start([copy.python, "-m", "surefoot.stages.train"], environ=root.alone) for copy in copies]
        codes = [copy.ended(trainer) for copy, trainer in zip(copies, trainers, strict=True)]
        if any(codes):
            raise Wrong(f"exit codes {codes}")
        said = "".join(copy.log.read_text(errors="replace") for copy in copies)
        if "warning" in said:
            raise Wrong(f"warnings:\n{said}")
        _, runs = mlflow_runs(path / "mlflow.db")
        if len(runs) != starts:
            raise Wrong(f"{starts} starts made {len(runs)} runs in MLflow")
        for copy, rate in zip(copies, rates, strict=True):
            copy.check_mlflow(Reference({}, {}, EPOCHS), path / "mlflow.db", test=False, lr=rate)
    except Exception as error:
        wrong = error
    count("start", f"{starts} first starts at once on an empty MLflow store", wrong=wrong, workspace=root)
