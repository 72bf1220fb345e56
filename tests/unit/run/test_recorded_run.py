"""Which run is meant."""

import pytest

from surefoot.base import paths
from surefoot.base.errors import UserError
from surefoot.run.recorded_run import find_recorded
from surefoot.serving import mlflow_model


@pytest.fixture
def trained(tracked, monkeypatch):
    """A run with lr 0.1, and the last one with lr 0.2; the model of each."""
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    tracked.csv()
    models = {}
    for stage, lr in (("prepare", None), ("batch", None), ("train", "0.1"), ("train", "0.2")):
        if lr:
            tracked.edit("train.lr", lr)
        done = tracked.stage(stage)
        assert done.code == 0, done
        if lr:
            models[lr] = paths.MODEL.read_bytes()
    return tracked, models


def meant():
    return find_recorded(None).run.data.params["train.lr"]


def test_without_a_name_the_run_is_meant_whose_model_lies_here(trained):
    here, models = trained
    assert meant() == "0.2"
    # As DVC does from its run cache, which no stage sees.
    here.edit("train.lr", "0.1")
    paths.MODEL.write_bytes(models["0.1"])
    assert meant() == "0.1"
    paths.MODEL.unlink()
    assert meant() == "0.2"


def test_a_damaged_store_is_told_of(here):
    (here / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"MLflow at sqlite:.* can't be read: "):
        find_recorded("some run")
