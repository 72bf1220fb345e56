"""evaluate by several processes: the same files as by one, whatever becomes of the others."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from surefoot.base import paths
from surefoot.run.processes import shared_evaluation
from surefoot.serving import mlflow_model
from tests.helpers import PROJECT, wait_for
from tests.pipeline.test_training import NETWORKS, change

SAYS = "3 processes share the 5,599 test rows\n"


@pytest.fixture
def project(tracked, monkeypatch):
    """Trained, and evaluated by one process; it takes too long for one, as it were."""
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    tracked.csv(rows=8000)
    splits = {"source": "raw.csv", "target": "kind", "validation": 0.1, "test": 0.7}  # 6 parts
    model = {"factory": f"{NETWORKS}:normalized", "arguments": {}}
    change(tracked, {"prepare": splits, "batch": {"size": 256}}, shards=3, epochs=1, model=model)
    for stage in ("prepare", "batch", "train", "evaluate"):
        assert tracked.stage(stage).code == 0
    monkeypatch.setenv("SUREFOOT_PROCESSES", "3")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT / "src"), str(PROJECT)]))
    monkeypatch.setattr(shared_evaluation, "SECONDS", 0)
    return tracked


def measured():
    """What evaluate has written."""
    files = [path for made in paths.MEASURED for path in (sorted(made.iterdir()) if made.is_dir() else [made])]
    return {path: path.read_bytes() for path in files}


def let_others_compute(monkeypatch, until):
    """The stage takes no part; it goes on when `until`, of the directory that is shared, is true. Returns the number of
    parts that it computes.
    """
    computed = []

    def none(_model, _inputs, shared):
        wait_for(lambda: until(shared), pause=0.01)
        return iter(())

    def counted(model, inputs, compute=shared_evaluation.outputs_of):
        computed.append(len(inputs))
        return compute(model, inputs)

    monkeypatch.setattr(shared_evaluation, "computed_parts", none)
    monkeypatch.setattr(shared_evaluation, "outputs_of", counted)
    return computed


@pytest.fixture
def others(monkeypatch):
    """The processes that take parts, once the stage has started them."""
    started = []

    @contextmanager
    def noted(*arguments, start=shared_evaluation._others):
        with start(*arguments) as processes:
            started.extend(processes)
            yield processes

    monkeypatch.setattr(shared_evaluation, "_others", noted)
    return started


def made(shared: Path):
    return list(shared.glob("*.safetensors"))


def test_what_others_computed_has_the_same_bits(project, monkeypatch):
    alone = measured()
    computed = let_others_compute(monkeypatch, lambda shared: len(made(shared)) == 4)
    done = project.stage("evaluate")
    assert SAYS in done.out
    assert done.err == ""
    assert len(computed) == shared_evaluation.TRIED
    assert measured() == alone


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_where_others_die_or_hang_the_stage_computes_what_is_missing(project, others, monkeypatch, number):
    alone = measured()

    def one_is_made_then_none(shared):
        if made(shared):
            for process in others:
                process.send_signal(number)
            return True
        return False

    computed = let_others_compute(monkeypatch, one_is_made_then_none)
    assert project.stage("evaluate").err == ""
    assert len(others) == 2
    assert len(computed) >= shared_evaluation.TRIED
    assert measured() == alone
    assert all(process.returncode for process in others), "none is left"


def test_others_of_which_the_params_are_others_compute_nothing(project, others, monkeypatch):
    alone, parts = measured(), []

    def all_have_ended(shared):
        ended = all(process.poll() is not None for process in others)
        parts.extend(made(shared))
        return ended

    monkeypatch.setattr(shared_evaluation, "_digest", lambda _: "of other params")
    computed = let_others_compute(monkeypatch, all_have_ended)
    assert project.stage("evaluate").code == 0
    assert len(computed) == 6
    assert ([process.returncode for process in others], parts) == ([0, 0], [])
    assert measured() == alone


def test_what_the_environment_says_must_make_sense(project, monkeypatch):
    monkeypatch.setenv("SUREFOOT_PROCESSES", "4")
    assert "SUREFOOT_PROCESSES: 4 processes can't share the 3 shards" in project.stage("evaluate").refused()


def test_what_is_quick_is_done_by_one(project, monkeypatch):
    monkeypatch.setattr(shared_evaluation, "SECONDS", 1e6)
    monkeypatch.setattr(shared_evaluation, "_others", None)
    done = project.stage("evaluate")
    assert (done.code, SAYS in done.out) == (0, False)


def test_a_network_that_fails_is_told_as_by_one(project, monkeypatch):
    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(shared_evaluation, "outputs_of", fail)
    assert "train.model: the network fails on the test rows: " in project.stage("evaluate").refused()


def test_where_no_process_can_be_started_the_stage_does_all(project, monkeypatch):
    alone = measured()
    monkeypatch.setattr(sys, "executable", str(project / "nothing"))
    done = project.stage("evaluate")
    assert (done.err, SAYS in done.out) == ("", True)
    assert measured() == alone
