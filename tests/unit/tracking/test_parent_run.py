"""The run in MLflow above those of a sweep."""

import subprocess
import sys
from subprocess import PIPE

import pytest

from surefoot.base import locks
from surefoot.base.errors import UserError
from surefoot.commands import compare, ui
from surefoot.run import recorded_run
from surefoot.tracking import find_runs, parent_run
from surefoot.tracking.metric_points import Point
from surefoot.tracking.tracker import Tracker
from tests.helpers import PROJECT, description


def tracker(here, number, sweep="it's a sweep", **tags):
    tags |= {"surefoot.sweep": sweep} if sweep else {}
    return Tracker(
        f"identity {number}",
        description(f"run {number}", {"train.lr": number}, tags),
        locks.Locks(here / "lock"),
    )


COUNT = 3
# Forked from one that has imported all, which takes seconds.
WORKERS = f"""
import os, sys
sys.path[:0] = [{str(PROJECT)!r}, {str(PROJECT / "src")!r}]
from pathlib import Path
from mlflow import MlflowClient
from tests.unit.tracking.test_parent_run import tracker

def work(number):
    one = tracker(Path.cwd(), number)
    os.write(1, b"ready\\n"); os.read(0, 1)
    one.open("RUNNING")
    assert one.run_id and not one.lacks, one.lacks
    os.write(1, b"open\\n"); os.read(0, 1)
    one.end("FINISHED")

children = []
for number in range({COUNT}):
    children.append(os.fork())
    if not children[-1]:
        try:
            work(str(number))
            os._exit(0)
        finally:
            os.write(1, b"failed\\n")
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def parents(here):
    return [run for run in here.runs() if run.data.tags.get("surefoot.kind") == "sweep"]


def children(here, parent):
    return {run.info.run_name for run in here.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}


def test_it_is_made_once_however_many_start_at_the_same_time(tracked):
    with subprocess.Popen(
        [sys.executable, "-c", WORKERS], cwd=tracked.path, stdin=PIPE, stdout=PIPE, text=True
    ) as workers:
        assert [workers.stdout.readline() for _ in range(COUNT)] == ["ready\n"] * COUNT
        workers.stdin.write("." * COUNT)
        workers.stdin.flush()
        assert [workers.stdout.readline() for _ in range(COUNT)] == ["open\n"] * COUNT
        (parent,) = parents(tracked)
        assert (parent.info.run_name, parent.info.status) == ("it's a sweep", "RUNNING")
        assert children(tracked, parent) == {f"run {number}" for number in range(COUNT)}
        assert (
            len({run.inputs.dataset_inputs[0].dataset.digest for run in tracked.runs() if run.inputs.dataset_inputs})
            == 1
        )
        workers.communicate("." * COUNT, timeout=120)
        assert workers.returncode == 0
    (parent,) = parents(tracked)
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time


def test_its_status_is_what_those_below_it_make(tracked):
    def status():
        (parent,) = parents(tracked)
        return parent.info.status

    def one(number, end, **tags):
        run = tracker(tracked, number, **tags)
        run.open("RUNNING")
        assert status() == "RUNNING"
        run.end(end)
        return status()

    assert one(1, "FAILED") == "FAILED", "all failed"
    assert one(2, "FINISHED") == "FINISHED"
    assert one(3, "FAILED") == "FINISHED", "as where one lr of several diverges"
    assert one(4, "KILLED") == "KILLED", "somebody stopped it"
    assert one(5, "KILLED", **{"surefoot.incomplete": "pruned after 1 of 3 epochs"}) == "FINISHED", "a search goes on"
    first, second = tracker(tracked, 6), tracker(tracked, 7)
    first.open("RUNNING")
    second.open("RUNNING")
    second.end("FINISHED")
    assert status() == "RUNNING"
    first.end("FINISHED")
    assert status() == "FINISHED"


def test_brought_later_or_above_runs_that_had_none(tracked):
    client = tracked.client()
    for number in (1, 2):
        one = tracker(tracked, number)
        one.open("RUNNING")
        one.end("FINISHED")
    (parent,) = parents(tracked)
    client.delete_run(parent.info.run_id)
    again = tracker(tracked, 1)
    again.open()  # as `surefoot sync` does
    (parent,) = parents(tracked)
    assert children(tracked, parent) == {"run 1", "run 2"}
    assert parent.info.status == "FINISHED"


def test_what_is_no_sweep_has_none(tracked):
    alone = tracker(tracked, 1, sweep="")
    alone.open("RUNNING")
    alone.end("FINISHED")
    tool = tracker(tracked, 2, **{"surefoot.kind": "lr-find"})
    tool.open("RUNNING")
    tool.end("FINISHED")
    assert len(tracked.runs()) == 2
    assert not any("mlflow.parentRunId" in run.data.tags for run in tracked.runs())


def test_no_command_takes_it_for_a_run(tracked, tmp_path):
    for number in (1, 2):
        one = tracker(tracked, number, sweep="lr")
        one.open("RUNNING")
        one.add_points([Point("validation/loss", 0.5, 1, 1_700_000_000.0)])
        one.end("FINISHED")
    (parent,) = parents(tracked)
    told = "'lr' trained nothing: it is the parent of the runs of lr; name one of those"
    for name in ("lr", parent.info.run_id, parent.info.run_id[:8]):
        with pytest.raises(UserError, match="trained nothing: it is the parent"):
            recorded_run.find_recorded(name)
    with pytest.raises(UserError, match=told):
        compare.compare_runs(["run 1", "lr"], tmp_path / "x.png")
    with find_runs.reading_mlflow() as client:
        runs, _ = find_runs.latest_runs(client)
    assert {run.info.run_name for run in runs} == {"run 1", "run 2"}
    assert "/runs?" in ui.comparison_page()
    # A run of the same name is meant.
    tracked.client().set_tag(
        tracked.client().search_runs([parent.info.experiment_id], "attributes.run_name = 'run 1'")[0].info.run_id,
        "DVC_EXP_NAME",
        "lr",
    )
    assert recorded_run.find_recorded("lr").run.info.run_name == "run 1"


def test_a_name_with_quotes_of_both_kinds(tracked):
    one = tracker(tracked, 1, sweep="""it's "so" """)
    one.open("RUNNING")
    one.end("FINISHED")
    assert one.run_id
    assert parents(tracked) == [], "MLflow's filters can't say it"


def test_two_machines_that_each_made_one_settle_on_the_first(tracked, monkeypatch):
    """Their locks don't know of each other."""
    client = tracked.client()
    experiment = client.create_experiment("surefoot")
    found, other = parent_run._find, []

    def unseen(client, experiment, quoted):
        if not other:
            other.append(
                client.create_run(
                    experiment, start_time=1, run_name="lr", tags={"surefoot.parent_of": "lr", "surefoot.kind": "sweep"}
                )
            )
            return None
        return found(client, experiment, quoted)

    monkeypatch.setattr(parent_run, "_find", unseen)
    child = client.create_run(experiment, tags={"surefoot.sweep": "lr"})
    parent_run.join_parent(client, experiment, child, "lr")
    (parent,) = parents(tracked)
    assert parent.info.run_id == other[0].info.run_id
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
