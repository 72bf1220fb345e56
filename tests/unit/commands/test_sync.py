"""`surefoot sync`: all that MLflow lacks is brought, or said; a refusal of one thing stops nothing else."""

import sys

import pytest

from surefoot import cli
from surefoot.base import paths
from surefoot.base.errors import UserError
from surefoot.commands.sync import sync_runs
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from surefoot.tracking.mlflow_client import OutOfReach
from tests.helpers import write_mark

NETWORK = """
from torch import nn

def network(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(2, outputs){more})
"""


@pytest.fixture
def trained(tracked, monkeypatch):
    """Trains with a learning rate, while MLflow is there or not; a model is logged in name only."""
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0

    def train(lr, **environment):
        tracked.edit("train.lr", lr)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            done = tracked.stage("train")
        assert done.code == 0, done

    tracked.train = train
    return tracked


AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def said(capfd):
    capfd.readouterr()
    try:
        sync_runs()
        error = ""
    except UserError as raised:
        error = str(raised)
    return capfd.readouterr().out.splitlines(), error


def by_lr(here):
    return {run.data.params["train.lr"]: run for run in here.runs()}


def test_an_edited_network_is_told_and_put_back_its_model_comes(trained, capfd, monkeypatch):
    monkeypatch.syspath_prepend(trained.path)
    network = trained / "my_network.py"
    network.write_text(NETWORK.format(more=""))
    trained.edit("train.model.factory", "my_network:network")
    trained.edit("train.model.arguments", "{}")
    trained.train("0.1", **AWAY)
    network.write_text(NETWORK.format(more=", nn.Tanh()"))
    for _ in range(2):
        lines, error = said(capfd)
        (line,) = lines
        assert line.startswith("lacks its model: ")
        assert "my_network isn't the code that it was trained with" in line
        assert error == "1 of 1 runs lacks something in MLflow, as told above"
        (run,) = trained.runs()
        assert (run.info.status, run.data.tags["surefoot.complete"]) == ("FINISHED", "false")
    network.unlink()
    assert said(capfd)[0][0].startswith("lacks its model: ")
    network.write_text(NETWORK.format(more=""))
    lines, error = said(capfd)
    assert (error, lines[0].startswith("up to date: ")) == ("", True)
    (run,) = trained.runs()
    assert (run.data.tags["surefoot.complete"], run.data.tags["surefoot.model_id"]) == (
        "true",
        f"model of {run.info.run_id}",
    )
    sys.modules.pop("my_network", None)


def test_a_run_that_was_called_complete_without_a_model_gets_it(trained, capfd):
    trained.train("0.1")
    (run,) = trained.runs()
    for tag in ("surefoot.model_id", "surefoot.model_weights"):
        trained.client().delete_tag(run.info.run_id, tag)
    assert said(capfd)[1] == ""
    assert trained.runs()[0].data.tags["surefoot.model_id"] == f"model of {run.info.run_id}"


def test_a_refused_model_ends_its_run_and_stops_no_other(trained, capfd, monkeypatch):
    for lr in ("0.1", "0.2", "0.3"):
        trained.train(lr, **AWAY)
    assert trained.runs() == []
    refused = []

    def refuse_first(run_id, *_):
        refused.append(run_id)
        if run_id == refused[0]:
            raise ValueError("a bad request")
        return f"model of {run_id}"

    monkeypatch.setattr(mlflow_model, "log_model", refuse_first)
    lines, error = said(capfd)
    assert sorted(line.partition(":")[0] for line in lines) == ["lacks its model", "up to date", "up to date"]
    assert any("a bad request" in line for line in lines)
    assert error == "1 of 3 runs lacks something in MLflow, as told above"
    assert {run.info.status for run in trained.runs()} == {"FINISHED"}
    assert sorted(run.data.tags["surefoot.complete"] for run in trained.runs()) == ["false", "true", "true"]


def test_training_goes_on_where_a_model_is_refused(trained, capfd, monkeypatch):
    def refuse(*_):
        raise ValueError("a bad request")

    monkeypatch.setattr(mlflow_model, "log_model", refuse)
    trained.edit("train.lr", "0.2")
    done = trained.stage("train")
    assert (done.code, done.err.count("warning: MLflow at ")) == (0, 1), done
    (run,) = trained.runs()
    assert f"doesn't take its model of the run {run.info.run_id}: ValueError: a bad request" in done.err
    assert run.info.status == "FINISHED"


def test_an_outage_stops_at_once(trained, capfd, monkeypatch):
    trained.train("0.1", **AWAY)
    trained.train("0.2", **AWAY)

    def gone(*_):
        raise OutOfReach("gone")

    monkeypatch.setattr(mlflow_model, "log_model", gone)
    lines, error = said(capfd)
    assert (lines, error) == ([], "MLflow can't be reached; nothing is lost: run `surefoot sync` again once it is back")


def test_what_the_store_lost_is_told(trained, capfd):
    trained.edit("train.epochs", "3")
    trained.train("0.1", **AWAY)
    for path in (paths.trajectory_store() / "chain").glob("*.safetensors"):
        path.unlink()
    lines, error = said(capfd)
    assert [line.partition(":")[0] for line in lines] == [
        "lacks checkpoints/best.safetensors",
        "lacks checkpoints/last.safetensors",
        "lacks its model",
    ]
    assert "1 of 1 runs" in error


def test_a_mark_that_is_not_whole_is_told_and_stops_no_other(trained, capfd):
    trained.train("0.1", **AWAY)
    trained.train("0.2", **AWAY)
    store = TrajectoryStore(paths.trajectory_store())
    run = next(run for run in store.runs().values() if run.description.params["train.lr"] == 0.1)
    identity, whole = run.identity, run.plain() | {"version": 1}
    needed = (
        "best",
        "weights",
        "origin",
        "data",
        "epochs",
        "incomplete",
        "select",
        "save_every",
        "model",
        "examples",
        "continues",
    )
    broken = [{name: value for name, value in whole.items() if name != left_out} for left_out in needed]
    broken += [
        whole | {"best": "c" * 64},
        whole | {"model": {"factory": "networks.mlp:mlp"}},
        whole | {"description": whole["description"] | {"dataset": {}}},
    ]
    for mark in broken:
        write_mark(store, identity, mark)
        lines, error = said(capfd)
        assert (
            [line.partition(" of it isn't whole")[0] for line in lines if line.startswith("left as it is")],
            error,
        ) == (
            [f"left as it is, since what {store.run_path(identity)} says"],
            "",
        )
    assert by_lr(trained).keys() == {"0.2"}
    write_mark(store, identity, whole | {"model": {}})
    lines, error = said(capfd)
    assert (len(lines), error) == (1, ""), "a damaged one counts as none"
    store.mark_run(run)
    assert said(capfd)[1] == ""
    assert by_lr(trained).keys() == {"0.1", "0.2"}


def test_training_and_evaluating_again_mend_a_mark_that_is_not_whole(trained, capfd):
    trained.train("0.1")
    store = TrajectoryStore(paths.trajectory_store())
    (run,) = store.runs().values()
    for broken in (
        {"model": {}},
        {"description": {"name": "x"}},
        {"epoch_keys": 5},
        {"select": "worst"},
        {"continues": [["x", 1]]},
    ):
        write_mark(store, run.identity, run.plain() | broken)
        done = trained.stage("train")
        assert (done.code, done.err.count("is damaged; it isn't used")) == (0, 1), done
        assert store.run(run.identity) == run
    for name in ("data", "origin", "incomplete", "results"):
        lacks = {key: value for key, value in run.plain().items() if key not in ("version", name)}
        for stage in ("train", "evaluate"):
            write_mark(store, run.identity, lacks)
            done = trained.stage(stage)
            assert done.code == 0, done
        assert trained.stage("train").code == 0
        assert store.run(run.identity).lacks() is None
    assert said(capfd)[1] == ""


def test_deleted_runs_stay_deleted(trained, capfd):
    trained.train("0.1")
    trained.train("0.2")
    gone = by_lr(trained)["0.1"].info.run_id
    trained.client().delete_run(gone)
    lines, error = said(capfd)
    assert error == ""
    assert [line for line in lines if line.startswith("was deleted in MLflow, left so: ") and gone in line]
    assert list(by_lr(trained)) == ["0.2"]
    trained.client().restore_run(gone)
    assert all(line.startswith("up to date: ") for line in said(capfd)[0])
    trained.client().delete_run(gone)
    trained.train("0.1")
    assert sorted(by_lr(trained)) == ["0.1", "0.2"], "trained again, it is there again"


def test_a_deleted_experiment_is_told_with_what_brings_it_back(trained, capfd, monkeypatch):
    trained.train("0.1")
    client = trained.client()
    experiment = client.get_experiment_by_name("surefoot").experiment_id
    client.delete_experiment(experiment)
    remedy = f".venv/bin/mlflow experiments restore --experiment-id {experiment}` brings it back with its runs"
    lines, _error = said(capfd)
    assert remedy in lines[0]
    done = trained.stage("train")
    assert (done.code, remedy in done.err) == (0, True), done
    for command in (["compare", "aaaa", "bbbb"], ["verify"], ["predict", "raw.csv", "--run", "some"]):
        monkeypatch.setattr(sys, "argv", ["surefoot", *command])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code, remedy in capfd.readouterr().err) == (2, True), command
    client.restore_experiment(experiment)
    assert said(capfd)[1] == ""
