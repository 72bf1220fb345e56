"""What takes seconds to import, and isn't needed, isn't there at the end of a stage."""

import os
import subprocess
import sys

import pytest

from tests.helpers import PROJECT

STAGE = """
import gc, sys
from surefoot.stages.{0} import main
main()
assert gc.isenabled() and gc.get_freeze_count() > 100_000
print(*sys.modules, file=sys.stderr)
"""
NEEDED_BY_NONE = {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sklearn", "sympy", "dvc", "pyarrow"}
OF_SHARING = {"fsspec", "s3fs", "aiobotocore"}  # only where SUREFOOT_STORE is a URL
OF_TRACKING = {"mlflow", "pandas", "sqlalchemy"}  # a process of its own has them


@pytest.fixture
def batched(tracked):
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    return tracked


def imported(stage):
    """The modules in a process that ran a stage."""
    code, path = STAGE.format(stage), {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_train_and_evaluate_import_no_compiler_no_sklearn_and_no_mlflow(batched):
    of_train, of_evaluate = imported("train"), imported("evaluate")
    assert not (of_train | of_evaluate) & (NEEDED_BY_NONE | OF_TRACKING | OF_SHARING)
    assert "torch" in of_train & of_evaluate
    assert "matplotlib" in of_evaluate - of_train
    # evaluate plans nothing.
    assert "surefoot.run.score_model" in of_evaluate
    trains = {f"surefoot.{name}" for name in ("training.optimizer", "training.schedule", "training.loop", "run.chain")}
    assert trains <= of_train
    assert [name for name in of_evaluate if name in trains or name.startswith("surefoot.run.plan")] == []


def test_train_starts_the_process_that_writes_to_mlflow_before_it_imports_what_takes_long():
    code = """
import sys
from surefoot.run import start_tracking
from surefoot.stages import train
start_tracking.start_process = lambda channel: sys.exit(" ".join(sys.modules))
train.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PROJECT / "src")}, capture_output=True, text=True
    )
    there = set(done.stderr.split())
    assert "surefoot.run.start_tracking" in there
    assert not there & {"torch", "numpy", "pydantic", "yaml", "http.client", "surefoot.params.sections"}
