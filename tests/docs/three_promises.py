"""README's first picture: more epochs, a kill and a run that is made again, each really done on the digits."""

import csv
import hashlib
import io
import re
import signal
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from ruamel.yaml import YAML

from surefoot.evaluation.plots.figures import ORANGE, SKY, logarithmic_axis, new_figure, to_png
from tests.helpers import PROJECT, Workspace

# Training in a process that is killed when the states before an epoch are stored: a thread writes them meanwhile. The
# signal can't be caught.
KILLED = """
import os, signal, time
from surefoot.base import paths
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.stages import batch, prepare, train
def kill(record):
    while record.epoch == {epoch} - 1:
        if TrajectoryStore(paths.trajectory_store()).count_records() == record.epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
prepare.main()
batch.main()
train.main(kill)
"""
KILLED_IN = 17


@dataclass
class Measured:
    """What came of it: for each of the two trainings that went on, its validation losses, and the epochs that were
    restored; and what `surefoot verify` said.
    """

    killed: tuple[list[float], int]
    longer: tuple[list[float], int]
    verdict: str


def measure_promises(workspace: Workspace) -> Measured:
    """Do all three in a workspace with the default params."""
    python, there = ".venv/bin/python", {"PYTHONPATH": "src", "DVC_ROOT": str(workspace.path)}
    workspace.git("commit", "--quiet", "--all", "--allow-empty", "--message=default params")
    done = workspace.run(python, "-c", KILLED.format(epoch=KILLED_IN), check=False, **there)
    assert done.code == -signal.SIGKILL, done
    killed = _trained(workspace)
    in_one_go = YAML(typ="safe").load(PROJECT / "dvc.lock")["stages"]["train"]["outs"]
    assert {out["path"]: out["md5"] for out in in_one_go} == {
        out["path"]: hashlib.md5((workspace / out["path"]).read_bytes()).hexdigest() for out in in_one_go
    }
    workspace.stage("evaluate")
    (run,) = workspace.trainings()
    verdict = workspace.run(python, "-m", "surefoot", "verify", run.info.run_id, PYTHONPATH="src").out
    workspace.edit("train.epochs", "60")
    return Measured(killed, _trained(workspace), re.search("^identical: .*$", verdict, re.MULTILINE)[0])


def _trained(workspace: Workspace) -> tuple[list[float], int]:
    out = workspace.stage("train").out
    restored = int(re.search(r"^epochs 1-(\d+) restored, training ", out, re.MULTILINE)[1])
    rows = csv.DictReader(io.StringIO((workspace / "reports/history.csv").read_text()))
    return [float(row["validation/loss"]) for row in rows], restored


def promises_plot(measured: Measured) -> bytes:
    """The three, side by side."""
    figure, (longer, killed, again) = new_figure(11, 3.4, columns=3, sharey=True)
    _draw_going_on(longer, *measured.longer)
    epochs, restored = len(measured.longer[0]), measured.longer[1]
    longer.set_title(f"more epochs: {restored}, then {epochs}\nthe first {restored} are restored")
    _draw_going_on(killed, *measured.killed)
    losses, restored = measured.killed
    killed.axvline(restored + 0.5, color="black", linewidth=1, linestyle=":", label="kill -9")
    killed.set_title(f"killed in epoch {restored + 1}, then run again\nthe same bytes as in one go")
    epochs = range(1, len(losses) + 1)
    again.plot(epochs, losses, color=SKY, linewidth=5, label="the run that MLflow shows")
    again.plot(epochs, losses, ".", color=ORANGE, label="made again, from commit and data")
    again.set_title(f"surefoot verify\n{', '.join(measured.verdict.split(', ')[:3])}, ...")
    for axes in (longer, killed, again):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    longer.set_ylabel("validation loss")
    logarithmic_axis(longer, np.array(measured.longer[0]))
    return to_png(figure)


def _draw_going_on(axes: Axes, losses: list[float], restored: int) -> None:
    """The losses of a training that went on after so many epochs."""
    axes.plot(range(1, restored + 1), losses[:restored], ".-", color=SKY, label="restored")
    axes.plot(range(restored + 1, len(losses) + 1), losses[restored:], ".-", color=ORANGE, label="trained")
