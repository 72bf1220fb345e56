"""models/run.json: what train tells evaluate, so that evaluate plans nothing."""

import functools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import networks.mlp
from surefoot.base import digests, paths
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from surefoot.run.plan.planning import plan_run
from surefoot.run.run_file import read_run_file
from surefoot.stages import evaluate
from surefoot.training.network import network_of, to_bytes


@pytest.fixture
def batched(tracked):
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    return tracked


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where that lies which many of these tests begin with."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(batched, kept, no_plots):
    def make():
        assert batched.stage("train").code == 0

    batched.once(kept / "trained", make)
    return batched


@pytest.fixture
def built(monkeypatch):
    """The networks that the factory of params.yaml has made so far."""
    made, factory = [], networks.mlp.mlp

    @functools.wraps(factory)
    def counted(*given, **named):
        made.append(factory(*given, **named))
        return made[-1]

    monkeypatch.setattr(networks.mlp, "mlp", counted)
    return made


def test_a_network_is_built_as_often_as_needed(batched, built):
    """Once to train it, once to see that its factory repeats itself; once to evaluate it."""
    assert batched.stage("train").code == 0
    assert len(built) == 2, "MLflow isn't to load the model that it is given"
    assert batched.stage("train").code == 0
    assert len(built) == 4
    assert batched.stage("evaluate").code == 0
    assert len(built) == 5


def test_a_trainer_that_is_wanted_again_is_in_the_first_state(batched, built):
    """The one that was built already is given once: it is trained meanwhile."""
    plan = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
    assert len(built) == 2
    network = plan.first_network()
    trainer = plan.trainer()
    assert len(built) == 2
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 1
    trainer.optimizer.param_groups[0]["lr"] = 7.0
    again = plan.trainer()
    assert len(built) == 3
    first = to_bytes(again.state())
    assert digests.sha256(first) == plan.origin["first_state"]
    assert network_of(first) == network
    assert plan.make_schedule().next_epoch(None).max() == 0.1, "whatever the optimizer went through"


def test_it_is_the_same_bytes_on_every_run(trained):
    first = paths.RUN.read_bytes()
    paths.RUN.unlink()
    trained.edit("train.epochs", "2\n  checkpoint_every: 2\n  keep_states: 1")
    done = trained.stage("train")
    assert "epochs 1-2 restored, nothing to train" in done.out
    assert paths.RUN.read_bytes() == first
    shutil.rmtree(".surefoot")
    Path("mlflow.db").unlink()
    os.environ["SUREFOOT_TRIAL"] = os.environ["DVC_EXP_NAME"] = "another-1"
    assert trained.stage("train").code == 0
    assert paths.RUN.read_bytes() == first
    assert all(str(word) not in first.decode() for word in (trained.path, os.getpid(), os.uname().nodename))


def test_it_says_what_evaluate_needs(trained):
    said = read_run_file()
    history = paths.HISTORY.read_text().splitlines()[1:]
    assert len(said.epoch_keys) == len(history) == 2
    assert said.chosen_epoch in (1, 2)
    assert said.schedule.columns == [(0, "lr")]
    assert said.schedule.steps[-1] == 2 * said.schedule.steps_per_epoch
    assert {value for (value,) in said.schedule.values} == {0.1}
    assert said.start is None


def test_a_schedule_is_drawn_as_it_was(batched, monkeypatch):
    """One that follows a metric isn't known before; the run ends before its last epoch."""
    from surefoot.evaluation.plots import learning_rate

    drawn = []
    monkeypatch.setattr(learning_rate, "schedule_plot", lambda *given: drawn.append(given) or b"")
    batched.edit("train.epochs", "30")
    batched.edit(
        "train.lr",
        "3.0\n  schedule: {name: ReduceLROnPlateau, arguments: {patience: 0, factor: 0.5}}"
        "\n  early_stopping: {patience: 3}",
    )
    for stage in ("train", "evaluate"):
        assert batched.stage(stage).code == 0
    history = [line.rsplit(",", 1)[1] for line in paths.HISTORY.read_text().splitlines()[1:]]
    (points, columns, groups, per_epoch, epochs, title) = drawn[0]
    assert 1 < len(history) < 30 and epochs == len(history)
    by_step = dict(zip(points.steps.tolist(), points.values[:, 0].tolist(), strict=True))
    assert [by_step[per_epoch * epoch] for epoch in range(1, epochs + 1)] == [float(lr) for lr in history]
    assert len(set(by_step.values())) > 1
    assert (columns, groups, title) == ([(0, "lr")], ["all others"], "ReduceLROnPlateau")


def test_groups_that_params_yaml_has_no_longer_are_numbered(trained, monkeypatch):
    """As where evaluate is run alone after an edit."""
    from surefoot.evaluation.plots import learning_rate

    drawn = []
    monkeypatch.setattr(learning_rate, "schedule_plot", lambda *given: drawn.append(given) or b"")
    said = json.loads(paths.RUN.read_text())
    said["schedule"] |= {"columns": [[0, "lr"], [1, "lr"]], "values": [2 * row for row in said["schedule"]["values"]]}
    paths.RUN.write_text(json.dumps(said))
    assert trained.stage("evaluate").code == 0
    assert drawn[0][2] == ["group 1", "group 2"]
    said["schedule"]["columns"][1][0] = 2
    paths.RUN.write_text(json.dumps(said))
    done = trained.stage("evaluate")
    assert done.code == 2
    assert "models/run.json: is damaged" in done.err


def test_the_figures_are_shown_before_the_plots_are_drawn(trained, monkeypatch, capfd):
    shown = []
    monkeypatch.setattr("surefoot.evaluation.reports.draw_plots", lambda *_: shown.append(capfd.readouterr().out) or {})
    trained.stage("evaluate")
    assert " test rows " in shown[0]
    assert paths.METRICS.is_file()


def test_where_the_run_is(trained, monkeypatch):
    for uri, lines in {
        "http://me:secret@127.0.0.1:9/": [
            "MLflow  run 1a: on the server that MLFLOW_TRACKING_URI names",
            "        http://127.0.0.1:9/#/runs/1a",
        ],
        "postgresql://me:secret@127.0.0.1:9/db": ["MLflow  run 1a: on the server that MLFLOW_TRACKING_URI names"],
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert evaluate._places(SimpleNamespace(run_id="1a", trouble=""), "of epoch 1")[3:] == lines


def test_a_model_from_elsewhere_has_a_run_without_a_history(trained):
    """As after `dvc pull`: neither the store nor MLflow knows the run."""
    shutil.rmtree(".surefoot")
    shutil.rmtree("mlartifacts", ignore_errors=True)
    (before,) = trained.runs()
    trained.client().delete_run(before.info.run_id)
    assert trained.stage("evaluate").code == 0
    (run,) = trained.runs()
    assert run.info.run_id != before.info.run_id
    assert run.data.params == before.data.params
    assert "test/accuracy" in run.data.metrics and "train/loss" not in run.data.metrics
    same = ("surefoot.identity", "surefoot.fingerprint", "surefoot.data.digest")
    assert {name: run.data.tags[name] for name in same} == {name: before.data.tags[name] for name in same}


@pytest.mark.parametrize(
    "change",
    [
        {"chosen_epoch": 3},
        {"epoch_keys": []},
        {"identity": "../../etc"},
        {"version": 2},
        {"schedule": None},
        {"origin": {}},
    ],
)
def test_one_that_is_not_what_train_wrote_is_refused(trained, change):
    said = json.loads(paths.RUN.read_text())
    paths.RUN.write_text(json.dumps(said | change))
    assert (
        trained.stage("evaluate").refused()
        == "error: models/run.json: is damaged; remove it, and `dvc repro train` makes it again\n"
    )


@pytest.mark.parametrize("change", [{"steps": []}, {"values": [[0.1, 0.2]]}, {"columns": []}, {"values": [["a"]]}])
def test_a_schedule_that_is_none_is_refused(trained, change):
    said = json.loads(paths.RUN.read_text())
    said["schedule"] |= change
    paths.RUN.write_text(json.dumps(said))
    assert "models/run.json: is damaged" in trained.stage("evaluate").refused()


def test_a_history_of_another_length_is_refused(trained):
    with paths.HISTORY.open("a") as file:
        file.write(paths.HISTORY.read_text().splitlines()[-1] + "\n")
    assert "reports/history.csv: is damaged" in trained.stage("evaluate").refused()
