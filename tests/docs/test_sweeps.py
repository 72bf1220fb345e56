"""Sweeps as docs/sweeps.md shows them."""

import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from surefoot.params.params_yaml import load_params
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import PROJECT, Workspace, make_workspace, run_queue

COSTS = {"rows_per_second", "steps_per_second", "epoch_seconds", "peak_memory_mb", "gradient_norm"}
PAGE = (PROJECT / "docs/sweeps.md").read_text()


def test_every_setting_that_the_page_shows_is_one(tmp_path):
    """Each -S of the page, put into params.yaml as DVC does it."""
    commands = re.findall(r"dvc exp run ([^\n#`]*-S [^\n#`]*)", PAGE)
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command)
        overrides = [word for flag, word in pairwise(words) if flag == "-S"]
        for sweep in get_hydra_sweeps(to_path_overrides(overrides)):
            path = tmp_path / "params.yaml"
            path.write_text((PROJECT / "params.yaml").read_text())
            apply_overrides(path, sweep["params.yaml"])
            load_params(path)


@pytest.mark.slow
def test_six_runs_by_two_workers(tmp_path):
    project = make_workspace(tmp_path / "project")
    clone = Workspace(tmp_path / "clone")
    project.git("clone", "--quiet", ".", str(clone.path))
    (clone / ".venv").symlink_to(Path(sys.prefix))
    done = clone.dvc(
        "exp", "run", "--queue", "--name", "lr-batch", "-S", "train.lr=0.01,0.03,0.1", "-S", "batch.size=32,64"
    )
    assert done.out.count("Queued experiment") == 6
    assert run_queue(clone, jobs=2).count("Success") == 6
    found = {run.info.run_name: run for run in clone.trainings()}
    expected = [(lr, size) for lr in ("0.01", "0.03", "0.1") for size in ("32", "64")]
    assert set(found) == {
        f"digits lr={lr} batch={size} lr-batch-{number}" for number, (lr, size) in enumerate(expected, 1)
    }
    for run in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["surefoot.sweep"] == "lr-batch"
        assert run.data.metrics.keys() >= COSTS | {"test/accuracy"}
    assert {(run.data.params["train.lr"], run.data.params["batch.size"]) for run in found.values()} == set(expected)
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_what_two_schedules_share_is_trained_once(workspace):
    workspace.dvc(
        *("exp", "run", "--queue", "--name", "drop"),
        *(
            "-S",
            "train.schedule.name=MultiStepLR",
            "-S",
            "+train.schedule.arguments.milestones=[2]",
            "-S",
            "+train.schedule.arguments.gamma=0.1,0.3",
        ),
    )
    assert run_queue(workspace, jobs=2).count("Success") == 2
    assert {run.data.tags["surefoot.sweep"] for run in workspace.trainings()} == {"drop"}
    store = TrajectoryStore(workspace / ".surefoot")
    one, other = (run.epoch_keys for run in store.runs().values())
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    assert (
        len(list((workspace / ".surefoot/chain").glob("*.json"))) == 4
    )  # two epochs that are shared, and the third of each
