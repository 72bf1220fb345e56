"""`train.register`: a finished run's model in MLflow's registry, once."""

import sys

import pandas as pd
import pytest

from surefoot import cli
from tests.docs.test_data import ran
from tests.pipeline.test_trajectory import set_train


@pytest.fixture
def project(tracked):
    tracked.csv()
    for stage in ("prepare", "batch"):
        ran(tracked, stage)
    return tracked


def versions(here, name):
    client = here.client()
    return {
        version.version: client.get_run(version.run_id) for version in client.search_model_versions(f"name = '{name}'")
    }


def surefoot(monkeypatch, capfd, *arguments):
    monkeypatch.setattr(sys, "argv", ["surefoot", *map(str, arguments)])
    cli.main()
    return capfd.readouterr().out


def test_a_run_is_registered_once_whatever_stops_it(project, monkeypatch, capfd):
    from mlflow import MlflowClient

    set_train(project, register="kinds@champion")
    # What writes to MLflow ends before each step of it.
    for step in ("create_model_version", "set_registered_model_alias"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MlflowClient, step, lambda *_, **__: sys.exit())
            assert "`surefoot sync` brings it\n" in ran(project, "train").err
    # And failing once, as a server would.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", lambda *_: 1 / 0)
        assert "ZeroDivisionError: division by zero" in ran(project, "train").err
    surefoot(monkeypatch, capfd, "sync")
    ran(project, "train")
    ran(project, "evaluate")
    surefoot(monkeypatch, capfd, "sync")
    client = project.client()
    (first,) = project.runs()
    assert {number: run.info.run_id for number, run in versions(project, "kinds").items()} == {1: first.info.run_id}
    assert str(client.get_model_version_by_alias("kinds", "champion").version) == "1"
    assert first.data.tags["surefoot.registered"] == f"kinds@champion {first.data.tags['surefoot.model_id']}"

    # The alias goes to the next run, and stays there when the first is looked at again.
    set_train(project, lr=0.05)
    ran(project, "train")
    set_train(project, lr=0.1)
    ran(project, "train")
    surefoot(monkeypatch, capfd, "sync")
    assert len(versions(project, "kinds")) == 2
    assert str(client.get_model_version_by_alias("kinds", "champion").version) == "2"

    # By its alias, and by its run, the model predicts; the one in the workspace is the first run's.
    here, by_run = (
        surefoot(monkeypatch, capfd, "predict", "raw.csv", *more) for more in ([], ["--run", first.info.run_id])
    )
    by_alias = surefoot(monkeypatch, capfd, "predict", "raw.csv", "--model", "models:/kinds@champion")
    assert here == by_run
    assert by_alias != here
    assert by_alias.splitlines()[0] == "a,b,kind,prediction,probability_x,probability_y,probability_z"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    import mlflow.pyfunc

    said = mlflow.pyfunc.load_model("models:/kinds@champion").predict(pd.read_csv("raw.csv"))
    assert said["prediction"].tolist() == [line.split(",")[3] for line in by_alias.splitlines()[1:]]


def test_where_nothing_is_asked_for_nothing_is_registered(project):
    ran(project, "train")
    assert not project.client().search_registered_models()
    # A later wish is no other run: nothing is trained, the same run is registered.
    set_train(project, register="kinds")
    assert "nothing to train" in ran(project, "train").out
    (run,) = project.runs()
    assert [found.info.run_id for found in versions(project, "kinds").values()] == [run.info.run_id]


NAMES = {
    "a/b": "a name in MLflow's registry is a text without",
    "a:b": "a name in MLflow's registry",
    '"a\'b"': "a name in MLflow's registry",
    '" a"': "a name in MLflow's registry",
    '""': "a name in MLflow's registry",
    '"@champion"': "a name in MLflow's registry",
    "..": "a name in MLflow's registry",
    "a@latest": "`latest` and `v1`, `v2`, ... are MLflow's own",
    "a@V2": "are MLflow's own",
    "a@": "an alias (after the @)",
    "a@b@c": "an alias (after the @)",
    "[a]": "input should be a valid string",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_mlflow_refuses_is_refused_before_anything(here, name):
    set_train(here, register=name)
    said = here.stage("train").refused()
    assert "params.yaml:" in said
    assert "train.register: " in said
    assert NAMES[name] in said


@pytest.mark.parametrize("name", ["digits", "a name of words.1", "Ziffern_ä", "x" * 200])
def test_a_name_that_is_allowed_mlflow_allows(name):
    from mlflow.utils.validation import _validate_model_name

    from surefoot.params.train_section import registered_as

    assert registered_as(name) == (name, "newest")
    _validate_model_name(name)
