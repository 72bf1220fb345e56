"""The pictures of README and docs that a command makes.

`python -m tests.docs.pictures` makes them anew; look at each before you commit it.

Not made here: docs/images/tutorial (`make tutorial UPDATE=1`), and two pages in a browser: mlflow-compare.png
(`surefoot ui` after a sweep of lr 0.005,0.02,0.08,0.3 by batch size 32,64,128) and dvc-plots.png (`dvc plots diff
--open` after `lr: 0.05`).
"""

import tempfile
from pathlib import Path

from benchmarks.scaling import scaling_plot
from tests.docs.three_promises import measure_promises, promises_plot
from tests.helpers import PROJECT, Workspace, make_workspace

IMAGES = PROJECT / "docs/images"
# The stages, then `surefoot lr-find --out found`, in one process.
PROGRAM = """
import sys
from surefoot import cli
from surefoot.stages import batch, evaluate, prepare, train
for stage in (prepare, batch, train, evaluate):
    stage.main()
sys.argv = ["surefoot", "lr-find", "--out", "found"]
cli.main()
"""
ONE_CYCLE = "{name: OneCycleLR, arguments: {}, per: step}"


def make(workspace: Workspace) -> dict[str, bytes]:
    """Each picture by its name, from the default params."""
    (workspace / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    promises = promises_plot(measure_promises(workspace))
    (workspace / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    python = ".venv/bin/python"
    workspace.run(python, "-c", PROGRAM, PYTHONPATH="src", DVC_ROOT=str(workspace.path))
    found = {name: (workspace / "reports/plots" / name).read_bytes() for name in ("training.png", "mistakes.png")}
    workspace.edit("train.lr", "0.1")
    workspace.edit("train.schedule", ONE_CYCLE)
    workspace.run(python, "-m", "surefoot", "schedule", "--out", "schedule.png", PYTHONPATH="src")
    return found | {
        "lr-find.png": (workspace / "found/lr-find.png").read_bytes(),
        "schedule.png": (workspace / "schedule.png").read_bytes(),
        "scaling.png": scaling_plot(),
        "promises.png": promises,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in make(make_workspace(Path(scratch) / "project")).items():
            old = (IMAGES / name).read_bytes() if (IMAGES / name).is_file() else b""
            (IMAGES / name).write_bytes(data)
            print(f"{name}: {'as it was' if old == data else 'made anew'}")
