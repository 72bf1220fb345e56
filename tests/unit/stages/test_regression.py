"""Numbers of any size to predict: they are scaled in training, and nowhere else."""

import csv
import json
import math
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from surefoot import cli
from surefoot.base import digests, paths, writing
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from tests.docs.test_data import ran
from tests.helpers import PROJECT

STAGES = ("prepare", "batch", "train", "evaluate")
RAW = "data/raw/numbers.csv"


@pytest.fixture
def project(tracked, monkeypatch):
    """The project's own params.yaml, with numbers to predict and all else as it is; `run` runs stages, `train` sets a
    key of its section.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")
    (tracked / "data/raw").mkdir(parents=True)

    def change(section, **values):
        params = YAML(typ="safe").load((tracked / "params.yaml").read_text())
        params[section] |= values
        with (tracked / "params.yaml").open("w") as file:
            YAML().dump(params, file)

    def run(*stages):
        for stage in stages or STAGES:
            ran(tracked, stage)

    (tracked / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    change("prepare", source=RAW, target="y", task="regression")
    change("batch", shape=None)
    tracked.change, tracked.run = change, run
    return tracked


def write(here, number, rows=300):
    """Rows of three inputs, and what `number` makes of a number near 0 that follows from them."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = [number(value) for value in frame.a - 2 * frame.b + random.normal(size=rows) / 10]
    frame.to_csv(here / RAW, index=False)
    return pd.read_csv(here / RAW)


def predictions():
    with paths.PREDICTIONS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row["actual"]), float(row["predicted"])] for row in rows]).T


def metrics():
    return json.loads(paths.METRICS.read_text())["test"]


SIZES = {
    "prices": lambda value: round(400_000 + 90_000 * value, 2),
    "huge": lambda value: 1e30 * (value - 3),
    "tiny": lambda value: 1e-30 * (1 + value),
    "whole": lambda value: round(50_000 * value),
    "seconds since 1970": lambda value: 1.6e9 + value,
    "near the largest": lambda value: 1e37 * value,
}


@pytest.mark.parametrize("size", SIZES)
def test_numbers_of_any_size(project, monkeypatch, capfd, size):
    raw = write(project, SIZES[size])
    project.change("train", epochs=10)
    project.run()
    actual, predicted = predictions()
    assert set(actual) <= set(raw.y)  # to the last digit
    found = metrics()
    errors = predicted - actual
    assert found["r2"] == pytest.approx(1 - (errors**2).mean() / actual.var())
    assert found["r2"] > 0.95
    assert found["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["rmse"] == pytest.approx(math.sqrt((errors**2).mean()))
    # The loss is of the scaled numbers; what is measured beside it of the own ones.
    deviation = open_store(paths.BATCHES).target_unit
    assert found["loss"] == pytest.approx((found["rmse"] / deviation) ** 2, rel=1e-4)
    (run,) = project.runs()
    assert run.data.metrics["validation/mae"] < deviation
    assert run.data.metrics["validation/mae"] / deviation == pytest.approx(
        math.sqrt(run.data.metrics["validation/loss"]), rel=0.5
    )
    intervals = json.loads(paths.INTERVALS.read_text())["test"]
    assert all(intervals[name]["low"] < found[name] < intervals[name]["high"] for name in ("loss", "mae", "rmse", "r2"))
    # The same from a file of raw rows, by the workspace's model and by MLflow's, and from Python.
    rows = raw[raw.y.isin(actual)].drop(columns="y")
    rows.to_csv(project / "new.csv", index=False)
    said = []
    for number, more in enumerate(([], ["--run", run.info.run_id])):
        monkeypatch.setattr(sys, "argv", ["surefoot", "predict", "new.csv", "--out", f"said{number}.csv", *more])
        cli.main()
        said.append(pd.read_csv(f"said{number}.csv").prediction)
    import mlflow.pyfunc

    said.append(mlflow.pyfunc.load_model(f"models:/{run.data.tags['surefoot.model_id']}").predict(rows)["prediction"])
    for given in said:
        assert sorted(given) == sorted(predicted)


def test_diabetes_by_the_default_params_is_as_good_as_by_scikit_learn(project, no_plots):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import r2_score
    from sklearn.neural_network import MLPRegressor

    project.change("prepare", source="sklearn:diabetes", target="progression")
    project.run()
    store = open_store(paths.BATCHES)
    scaled = [
        (split.targets - store.target_scale["subtract"]) / store.target_scale["divide"]
        for split in (store.train, store.test)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = MLPRegressor(random_state=0).fit(store.train.inputs, scaled[0]).predict(store.test.inputs)
    assert metrics()["r2"] > r2_score(scaled[1], theirs) - 0.03


def test_a_key_switches_it_off(project, no_plots):
    raw = write(project, lambda value: 30 + value)
    project.change("prepare", normalize_target="none")
    project.change("train", lr=0.001)
    project.run()
    store = open_store(paths.BATCHES)
    assert store.target_scale is None
    assert store.train.targets.dtype == np.float32
    actual, _ = predictions()
    assert set(actual.astype(np.float32)) <= set(raw.y.astype(np.float32))
    assert metrics()["loss"] == pytest.approx(metrics()["rmse"] ** 2, rel=1e-4)


def test_the_scale_is_part_of_what_determines_a_run(project):
    """The same file of targets, scaled otherwise as other rows are those of training: no state of the
    other is taken.
    """
    write(project, lambda value: 30 + value)
    project.change("train", epochs=2)
    project.run("prepare", "batch", "train")
    index = json.loads((paths.BATCHES / "index.json").read_text())
    index["target_scale"]["divide"] = [2 * index["target_scale"]["divide"][0]]
    del index["digest"]
    index["digest"] = digests.sha256(digests.canonical_json(index))
    writing.write_json(paths.BATCHES / "index.json", index)
    before = paths.MODEL.read_bytes()
    assert "restored" not in ran(project, "train").out
    assert paths.MODEL.read_bytes() != before


def test_a_training_that_goes_on_keeps_the_scale(project, no_plots):
    """New rows have another mean and deviation, by which the weights of before would say something else."""
    parts = project / "data/raw/parts"
    parts.mkdir()
    project.change("prepare", source="data/raw/parts")
    project.change("train", epochs=8)
    write(project, lambda value: 100 + 10 * value).to_csv(parts / "1.csv", index=False)
    project.run("start_from", *STAGES)
    scale = open_store(paths.BATCHES).target_scale
    write(project, lambda value: 400 + 10 * value).to_csv(parts / "2.csv", index=False)
    project.change("train", start_from="previous", epochs=1)
    project.run("start_from", *STAGES)
    store = open_store(paths.BATCHES)
    assert store.target_scale == scale
    assert len(store.train.targets) == 420
    assert store.train.targets.mean() > 2 * scale["subtract"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {},
            [
                "try a smaller train.lr, or train.loss.name: HuberLoss, to which targets far from all others matter"
                " less (inputs and target are scaled already)"
            ],
        ),
        (
            {"normalize_target": "none"},
            ["or prepare.normalize_target: standard, as the target isn't scaled, or train.loss.name: HuberLoss"],
        ),
        (
            {"normalize": "none"},
            ["or prepare.normalize: standard, as the inputs aren't scaled, or train.loss.name: HuberLoss"],
        ),
    ],
)
def test_a_divergence_names_what_may_help(project, change, said):
    write(project, lambda value: 400_000 + 90_000 * value)
    project.change("prepare", **change)
    project.change("train", lr=1e6)
    project.run("prepare", "batch")
    told = project.stage("train").refused()
    assert "training diverged in epoch 1" in told
    for text in said:
        assert text in told


def test_a_divergence_with_a_robust_loss_names_clipping(project):
    write(project, lambda value: value)
    project.change("train", lr=1e38, loss={"name": "HuberLoss"})
    project.run("prepare", "batch")
    told = project.stage("train").refused()
    assert "or train.clip_norm: 1 (inputs" in told
    assert "HuberLoss" not in told


@pytest.mark.parametrize("source", ["sklearn:diabetes", RAW])
def test_lr_find_finds_one(project, monkeypatch, capfd, source):
    write(project, SIZES["prices"])
    project.change("prepare", source=source)
    project.run("prepare", "batch")
    monkeypatch.setattr(sys, "argv", ["surefoot", "lr-find"])
    cli.main()
    assert "to train with it: `lr: " in capfd.readouterr().out


def test_lr_find_says_what_may_help_where_the_loss_is_never_finite(project, monkeypatch, capfd):
    write(project, lambda value: 1e25 * value)
    project.change("prepare", normalize_target="none")
    project.run("prepare", "batch")
    monkeypatch.setattr(sys, "argv", ["surefoot", "lr-find"])
    with pytest.raises(SystemExit):
        cli.main()
    told = capfd.readouterr().err
    assert "before any step is taken" in told
    assert "; try prepare.normalize_target: standard, as the target isn't scaled, or train.loss.name: HuberLoss" in told


def test_a_loss_for_counts_says_which_key_it_needs(project):
    write(project, lambda value: round(abs(5 * value)))
    project.change("train", loss={"name": "PoissonNLLLoss"}, lr=1e-5)
    project.run("prepare", "batch")
    assert "PoissonNLLLoss isn't for a scaled target" in project.stage("train").refused()
    project.change("prepare", normalize_target="none")
    project.run("prepare", "batch", "train")
    assert load_params(paths.PARAMS).prepare.normalize_target == "none"
