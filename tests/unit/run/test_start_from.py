"""`train.start_from` and `train.rows`, stage by stage: data that keeps coming, as part files in a directory."""

import hashlib
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from surefoot.base import digests, paths
from surefoot.base.errors import Stopped, UserError
from surefoot.base.paths import trajectory_store
from surefoot.commands import lr_find
from surefoot.data.batch_store import open_store
from surefoot.data.part_files import rows_of_parts
from surefoot.params.params_yaml import load_params
from surefoot.run import start_from
from surefoot.run.plan.planning import plan_run
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from surefoot.stages import train
from surefoot.training import range_test
from tests.helpers import Workspace, make_workspace, run_queue

PARAMS = """\
prepare:
  source: raw
  target: kind
  normalize: none
  split: {by: class, column: null}
batch: {size: 8, drop_last: false}
train:
  model:
    factory: networks.mlp:mlp
    arguments: {hidden: [5]}
  start_from: null
  rows: all
  epochs: 2
  lr: 0.01
  momentum: 0.9
seed: 0
"""
OLD, NEW = 100, 60


def part(here, name, rows=NEW, first=0, classes="xyz"):
    """A part file: `a` is the number of the row."""
    path = here / "raw" / name
    path.parent.mkdir(exist_ok=True)
    lines = [f"{(first + row) / 64},{row * row % 11},{classes[row % len(classes)]}\n" for row in range(rows)]
    path.write_text("".join(["a,b,kind\n", *lines]))


def ran(here, *stages):
    done = None
    for stage in stages or ("start_from", "prepare", "batch", "train", "evaluate"):
        done = here.stage(stage)
        assert done.code == 0, done
    return done


def test_that_training_starts_from_nothing_is_said(tracked):
    (tracked / "params.yaml").write_text(PARAMS)
    part(tracked, "1.csv", OLD)
    assert ran(tracked, "start_from").out == "train.start_from: no model, so training starts from fresh weights\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where that lies which many of these tests begin with."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def coming(tracked, kept, monkeypatch, no_plots, request):
    """A run on one part file; no model is logged, which takes seconds, but in slow tests."""
    slow = "slow" in request.keywords
    if not slow:
        monkeypatch.setattr(mlflow_model, "log_model", lambda *_: "m-0")

    def make():
        (tracked / "params.yaml").write_text(PARAMS)
        part(tracked, "1.csv", OLD)
        ran(tracked)

    tracked.once(kept / f"coming{slow}", make)
    return tracked


@pytest.fixture
def come(coming, kept, request):
    """After that run a second part file came, and `previous` is to be gone on from."""

    def make():
        part(coming, "2.csv", NEW, OLD)
        coming.edit("train.start_from", "previous")
        ran(coming, "start_from", "prepare", "batch")

    coming.once(kept / f"come{'slow' in request.keywords}", make)
    return coming


def weights():
    return paths.MODEL.read_bytes()


def mark():
    """The run of the store that was marked last."""
    paths = (trajectory_store() / "runs").glob("*.json")
    return TrajectoryStore(trajectory_store()).runs()[max(paths, key=lambda path: path.stat().st_mtime_ns).stem]


def test_a_new_part_moves_no_old_row_to_another_split(coming):
    before = {
        split: pq.read_table(f"data/prepared/{split}.parquet").to_pylist() for split in ("train", "validation", "test")
    }
    part(coming, "2.csv", NEW, OLD)
    ran(coming, "start_from", "prepare", "batch")
    for split, rows in before.items():
        assert pq.read_table(f"data/prepared/{split}.parquet").to_pylist()[: len(rows)] == rows
    store = open_store(paths.BATCHES)
    one, two = store.index.parts
    assert (one.path, two.path) == ("raw/1.csv", "raw/2.csv")
    assert one.rows == {split: len(rows) for split, rows in before.items()}
    assert {split: one.rows[split] + two.rows[split] for split in before} == {
        split: store.index.splits[split].rows for split in before
    }
    ((first, stop),) = rows_of_parts(store.index.parts, "test", lambda part: part is two)
    assert (store.test.inputs[first:stop, 0] >= OLD / 64).all()
    assert (store.test.inputs[:first, 0] < OLD / 64).all()


def test_goes_on_from_the_previous_run(come):
    first = weights()
    done = ran(come, "train")
    assert "training starts from the run raw mlp " in done.out
    assert "; new: raw/2.csv\n" in done.out
    ran(come, "evaluate")
    run, before = come.runs()
    origin = mark().origin.plain()
    assert origin["start"] == {"weights": digests.sha256(first)}
    assert run.data.tags["surefoot.start"] == before.info.run_id
    assert (
        f"Started from [{before.info.run_name}](#/experiments/{before.info.experiment_id}/runs/{before.info.run_id})."
        in run.data.tags["mlflow.note.content"]
    )
    assert (
        Path(run.info.artifact_uri.removeprefix("file://")) / start_from.ARTIFACTS / start_from.WEIGHTS
    ).read_bytes() == first
    metrics = json.loads(paths.METRICS.read_text())["test"]
    rows = {part.path: part.rows["test"] for part in open_store(paths.BATCHES).index.parts}
    mean = (metrics["old/accuracy"] * rows["raw/1.csv"] + metrics["new/accuracy"] * rows["raw/2.csv"]) / sum(
        rows.values()
    )
    assert mean == pytest.approx(metrics["accuracy"])
    assert {name: run.data.metrics[f"test/{name}"] for name in ("old/accuracy", "new/accuracy")} == {
        name: metrics[name] for name in ("old/accuracy", "new/accuracy")
    }


def test_the_first_step_is_taken_from_the_start(come, monkeypatch):
    """With a learning rate of next to nothing the model stays what it was, optimizer and all else fresh."""
    come.edit("train.lr", "1.0e-30")
    before = safetensors.torch.load(weights())
    ran(come, "train")
    after = safetensors.torch.load(weights())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_new_rows_alone(come):
    come.edit("train.rows", "new")
    store = open_store(paths.BATCHES)
    done = ran(come, "train")
    new = store.index.parts[1].rows["train"]
    assert f"; training on {new} new rows of {len(store.train.targets)}\n" in done.out
    params = load_params(paths.PARAMS)
    plan = plan_run(params, store)
    assert plan.inputs.steps_per_epoch == -(-new // 8)
    trained = plan.inputs.batches
    first, second = (trained.order(0, epoch).indices() for epoch in (1, 2))
    assert sorted(store.train.inputs[first, 0]) == sorted(store.train.inputs[store.train.inputs[:, 0] >= OLD / 64, 0])
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()
    assert mark().origin.plain()["data"]["only"] == [[store.index.parts[0].rows["train"], len(store.train.targets)]]


def test_the_range_test_takes_new_rows_alone(come, monkeypatch):
    come.edit("train.rows", "new")
    asked = []

    def curve(trainer, lr, lrs, steps, order, steps_per_epoch):
        asked.extend([sorted(order(1).indices().tolist()), steps_per_epoch])
        raise range_test.NeverFinite("it has been asked")

    monkeypatch.setattr(range_test, "range_test", curve)
    with pytest.raises(UserError, match="it has been asked"):
        lr_find.main(lowest=1e-6, highest=10.0, steps=None, out=None)
    plan = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
    new = plan.inputs.batches.rows_per_epoch
    assert 0 < new < len(plan.inputs.batches.train.targets)
    assert asked == [sorted(plan.order(1).indices().tolist()), -(-new // 8)]
    assert len(asked[0]) == new


def halt_after(monkeypatch, segments):
    """Stop the training after so many segments, as a signal would."""
    calls = 0

    def check():
        nonlocal calls
        calls += 1
        if calls > segments:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(train, "parent_check", lambda: check)


@pytest.mark.parametrize("rows", ["all", "new"])
def test_killed_or_lengthened_it_ends_in_the_same_bits(come, monkeypatch, rows):
    come.edit("train.rows", rows)
    come.edit("train.epochs", "4")
    shutil.copytree(".surefoot", "elsewhere")
    monkeypatch.setenv("SUREFOOT_STORE", str(come / "elsewhere"))
    ran(come, "train")
    wanted = weights(), paths.HISTORY.read_bytes()
    monkeypatch.delenv("SUREFOOT_STORE")
    with monkeypatch.context() as patch:
        halt_after(patch, 2)
        assert come.stage("train").code != 0
    ran(come, "train")
    assert (weights(), paths.HISTORY.read_bytes()) == wanted
    come.edit("train.epochs", "3")
    ran(come, "train", "evaluate")
    come.edit("train.epochs", "4")
    done = ran(come, "train")
    assert "epochs 1-4 restored, nothing to train" in done.out
    assert (weights(), paths.HISTORY.read_bytes()) == wanted


def test_one_that_is_finished_does_not_go_on_from_itself(come):
    first = weights()
    ran(come, "train", "evaluate")
    model, there = weights(), len(come.runs())
    ran(come, "train", "evaluate")
    assert weights() == model
    assert len(come.runs()) == there
    come.edit("train.lr", "0.02")  # another run on the same data starts from the same model
    ran(come, "train", "evaluate")
    assert mark().origin.plain()["start"] == {"weights": digests.sha256(first)}
    part(come, "3.csv", NEW, OLD + NEW)
    last = weights()
    ran(come)
    assert mark().origin.plain()["start"] == {"weights": digests.sha256(last)}
    assert mark().seen.parts[2][0] == "raw/3.csv"


def test_previous_without_a_run_before(tracked, no_plots, monkeypatch):
    monkeypatch.setattr(mlflow_model, "log_model", lambda *_: "m-0")
    (tracked / "params.yaml").write_text(PARAMS)
    part(tracked, "1.csv", OLD)
    ran(tracked)
    fresh = weights()
    shutil.rmtree(".surefoot")
    paths.MODEL.unlink()
    tracked.edit("train.start_from", "previous")
    tracked.edit("train.rows", "new")
    done = ran(tracked, "start_from", "prepare", "batch", "train")
    assert (
        "train.start_from: previous: there is no run before this one, so training starts from fresh weights\n"
        in done.out
    )
    assert weights() == fresh
    done = ran(tracked, "train")
    assert "fresh weights" in done.out
    assert weights() == fresh
    done = ran(tracked, "start_from", "prepare", "batch", "train")  # forced, it doesn't go on from itself
    assert "fresh weights" in done.out
    assert weights() == fresh


@pytest.mark.slow
def test_starts_that_mlflow_and_files_have(come):
    first = weights()
    (run,) = come.runs()
    shutil.copy(paths.MODEL, "kept.safetensors")
    shutil.rmtree(".surefoot")
    client = come.client()
    client.create_registered_model("digits")
    version = client.create_model_version("digits", f"models:/{run.data.tags['surefoot.model_id']}", run.info.run_id)
    client.set_registered_model_alias("digits", "champion", version.version)
    known = [
        run.info.run_id,
        f"'{run.info.run_name}'",
        f"models:/{run.data.tags['surefoot.model_id']}",
        "models:/digits@champion",
    ]
    for wanted in [*known, "kept.safetensors"]:
        come.edit("train.start_from", wanted)
        done = ran(come, "start_from", "train", "evaluate")
        assert mark().origin.plain()["start"] == {"weights": digests.sha256(first)}
        assert ("; new: raw/2.csv" in done.out) is False  # evaluate says nothing of it
        assert ("old/accuracy" in json.loads(paths.METRICS.read_text())["test"]) is (wanted != "kept.safetensors")
    # One run, whatever the start was called.
    assert len(come.runs()) == 2
    assert mark().start.seen is None


# --- what is wrong


def refused(here, start_from=None, rows=None):
    if start_from:
        here.edit("train.start_from", start_from)
    if rows:
        here.edit("train.rows", rows)
    before = digests.sha256_file(paths.MODEL)
    message = next(done for done in map(here.stage, ("start_from", "prepare", "batch", "train")) if done.code).refused()
    assert digests.sha256_file(paths.MODEL) == before
    return message.removeprefix("error: ").removeprefix("train.start_from: ").rstrip("\n")


def test_there_is_no_such_start(come):
    either = "give a run's id or name, or a DVC experiment's, models:/NAME@ALIAS, PATH.safetensors, or previous"
    assert refused(come, "nobody") == f"there is no run 'nobody' in MLflow; {either}"
    assert refused(come, "'" + "0" * 32 + "'").startswith("there is no run '000000")
    assert refused(come, "models:/nobody@champion").startswith("MLflow at sqlite:///")
    assert refused(come, "models:/m-0123456789abcdef0123456789abcdef").startswith("MLflow at sqlite:///")
    assert (
        refused(come, "models/nothing.safetensors")
        == "models/nothing.safetensors can't be read: No such file or directory"
    )
    run = come.client().create_run(come.runs()[0].info.experiment_id, run_name="empty")
    assert (
        refused(come, "empty")
        == f"the run empty ({run.info.run_id}, RUNNING) has no artifact checkpoints/best.safetensors, so no model to"
        " start from"
    )


def test_two_runs_of_a_name(come):
    client, experiment = come.client(), come.runs()[0].info.experiment_id
    ids = {client.create_run(experiment, run_name="twin").info.run_id for _ in range(2)}
    message = refused(come, "twin")
    assert message.startswith("2 runs are called 'twin'; give the id of one: ")
    assert all(run_id in message for run_id in ids)


def test_mlflow_is_out_of_reach(come, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = refused(come, "some")
    assert message.startswith("MLflow at http://127.0.0.1:9 can't be read: ")
    assert "secret" not in message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{come / 'none.db'}")
    assert refused(come, "some") == f"there is no run yet: {come / 'none.db'} doesn't exist; `make repro` makes one"


def test_damaged_weights(come):
    good = weights()
    for name, data in (
        ("cut", good[:-7]),
        ("header", b"\xff" * 8 + good[8:]),
        ("empty", b""),
        ("pickle", b"\x80\x04\x95" + good),
    ):
        (come / f"{name}.safetensors").write_bytes(data)
        assert (
            refused(come, f"{name}.safetensors")
            == f"{name}.safetensors can't be read: it isn't a safetensors file, or is cut short or damaged"
        )
    tensors = safetensors.torch.load(good)
    name = next(iter(tensors))
    tensors[name][0] = float("nan")
    (come / "nan.safetensors").write_bytes(safetensors.torch.save(tensors))
    assert refused(come, "nan.safetensors").startswith(f"nan.safetensors: {name} holds values that aren't finite")


def test_a_damaged_artifact(come):
    (run,) = come.runs()
    path = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoints/best.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "is damaged: its digest is another one than the run has recorded" in refused(come, run.info.run_id)


def test_a_start_that_is_damaged_is_taken_from_the_store(come):
    ran(come, "train")
    model, good = weights(), (paths.START_FROM / start_from.WEIGHTS).read_bytes()
    (paths.START_FROM / start_from.WEIGHTS).write_bytes(b"x" + good[1:])
    ran(come, "train")
    assert weights() == model
    (path,) = Path(".surefoot/starts").glob("*.safetensors")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    damaged = "data/start_from is damaged; `dvc checkout data/start_from` brings it back"
    assert come.stage("train").err.endswith(f"error: train.start_from: {damaged}\n")
    assert refused(come) == f"{damaged}, or delete it, so that it is looked up anew"
    (paths.START_FROM / start_from.WEIGHTS).write_bytes(good)
    for name, bad in (
        (start_from.NOTE, b"[]"),
        (start_from.NOTE, b"{"),
        (start_from.PREPARATION, b'{"task": 1}'),
        (start_from.PREPARATION, b"[" * 10000),
    ):
        whole = (paths.START_FROM / name).read_bytes()
        (paths.START_FROM / name).write_bytes(bad)
        assert "is damaged" in refused(come), (name, bad)
        (paths.START_FROM / name).write_bytes(whole)
    ran(come, "start_from", "prepare", "batch", "train")
    assert weights() == model


def test_what_train_is_told_of_must_have_been_looked_up(come):
    come.edit("train.start_from", "models/model.safetensors")
    assert (
        come.stage("train").refused()
        == "error: train.start_from: what models/model.safetensors is wasn't looked up yet: run `dvc repro batch`"
        " first\n"
    )


def test_a_start_that_does_not_fit(come):
    come.edit("train.model.arguments", "{hidden: [5, 5]}")
    message, why = refused(come).splitlines()
    assert "doesn't fit train.model: 3.weight is float32 [3, 5], the network has float32 [5, 5]" in message
    assert "5.weight is none, the network has float32 [3, 5]; and 1 more" in message
    assert (
        why
        == "a class or category that is new in the data changes outputs or inputs, as does another train.model; then"
        " start from null"
    )


# --- the preparation is kept

KEEP = "of the model that training starts from (train.start_from), which is kept"


def schema():
    return json.loads((paths.PREPARED / "schema.json").read_text())


def test_the_preparation_of_the_start_is_kept(coming):
    coming.edit("prepare.normalize", "standard")
    ran(coming)
    before = schema()
    part(coming, "2.csv", NEW, 10 * OLD)
    coming.edit("train.start_from", "previous")
    done = ran(coming, "start_from", "prepare")
    assert "note: raw: the preparation of the model that training starts from is kept\n" in done.out
    assert schema()["features"] == before["features"]
    assert schema()["rows"] != before["rows"]
    ran(coming, "batch", "train", "evaluate")
    assert mark().start.keeps is True
    coming.edit("prepare", "{source: raw, target: kind, refit: true}")
    done = ran(coming, "prepare", "batch", "train")
    assert "is kept" not in done.out
    assert schema()["features"] != before["features"]
    assert mark().start.keeps is False


TOWNS = "{source: raw, target: kind, categories: %s, missing: {numeric: mean, category: constant}}"


@pytest.fixture
def towns(coming, kept):
    """A run on rows with a category and with missing values."""

    def make():
        lines = [
            f"{'' if row % 9 == 0 else row},{('Bonn', 'Ulm', '')[row % 3]},{'xyz'[row * row % 3]}\n"
            for row in range(OLD)
        ]
        (coming / "raw/1.csv").write_text("".join(["age,town,kind\n", *lines]))
        coming.edit("prepare", TOWNS % "onehot")
        ran(coming)

    coming.once(kept / "towns", make)
    return coming


@pytest.mark.parametrize("encode", ["onehot", "codes"])
def test_new_categories_take_the_unseen_place(towns, encode):
    if encode == "codes":
        towns.edit("prepare.categories", encode)
        towns.edit("train.model", "{factory: 'networks.table:table', arguments: {embedding: 2, hidden: [5]}}")
        ran(towns)
    before = schema()
    lines = [f"{row},{('Köln', 'Ulm', 'Hof')[row % 3]},{'xyz'[row * row % 3]}\n" for row in range(NEW)]
    (towns / "raw/2.csv").write_text("".join(["age,town,kind\n", *lines]))
    towns.edit("train.start_from", "previous")
    done = ran(towns, "start_from", "prepare")
    assert "is kept; it hasn't seen, and takes for others: 'town': 'Hof', 'Köln' (" in done.out
    assert {name: schema()[name] for name in ("features", "classes", "shape", "scale")} == {
        name: before[name] for name in ("features", "classes", "shape", "scale")
    }
    ran(towns, "batch", "train", "evaluate")
    town = before["features"][1]
    rows, inputs = pq.read_table("data/prepared/test.parquet").to_pylist(), open_store(paths.BATCHES).test.inputs
    other = inputs[:, town["first"]] == (1 if encode == "onehot" else 0)
    assert other.tolist() == [row["town"] in ("Köln", "Hof") for row in rows]


def test_the_scale_of_a_number_to_predict_is_kept(coming):
    """The price has risen tenfold: the model's unit stays, and figures are in the price's own."""
    (coming / "raw/1.csv").write_text(
        "".join(["a,price\n", *(f"{row % 7},{100 * (row % 7) + row}\n" for row in range(OLD))])
    )
    coming.edit("prepare", "{source: raw, target: price, task: regression}")
    ran(coming)
    before = schema()["target_scale"]
    (coming / "raw/2.csv").write_text(
        "".join(["a,price\n", *(f"{row % 7},{1000 * (row % 7) + row}\n" for row in range(NEW))])
    )
    coming.edit("train.start_from", "previous")
    ran(coming)
    assert schema()["target_scale"] == before == open_store(paths.BATCHES).target_scale
    coming.edit("prepare", "{source: raw, target: price, task: regression, normalize_target: none}")
    assert refused(coming).startswith(
        f"params.yaml: prepare.normalize_target is none, but standard in the preparation {KEEP}"
    )
    coming.edit("prepare", "{source: raw, target: price, task: regression, refit: true}")
    ran(coming)
    assert schema()["target_scale"]["subtract"][0] > 2 * before["subtract"][0]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_scale_of_arrays_is_kept(coming, dtype):
    def written(seed, shape):
        random = np.random.default_rng(seed)
        np.savez(coming / "data.npz", x=random.integers(0, 200, (60, *shape)).astype(dtype), y=np.arange(60) % 3)

    written(0, (3, 4, 4))
    coming.edit("prepare", "{source: data.npz, target: kind}")
    ran(coming)
    before = {name: schema()[name] for name in ("features", "scale", "shape", "dtype")}
    written(1, (3, 4, 4))
    coming.edit("train.start_from", "previous")
    coming.edit("batch.size", "8, shape: [48]")
    ran(coming)
    assert {name: schema()[name] for name in before} == before
    written(2, (3, 2, 2))
    coming.edit("batch.shape", "null")
    assert refused(coming).startswith(
        f"data.npz: its rows are {dtype} of 12 values, but the model that training starts from (train.start_from) takes"
        f" {dtype} of 48"
    )


def test_a_class_that_is_new_is_named_with_its_row(come):
    part(come, "3.csv", NEW, OLD + NEW, classes="wxyz")
    message, mend = refused(come).splitlines()
    assert (
        message
        == "raw/3.csv: row 2, column 'kind': class 'w' is new: the model that training starts from (train.start_from)"
        " has outputs for x, y, z"
    )
    assert mend == "leave such rows out, or train from fresh weights (train.start_from: null)"
    come.edit("train.start_from", "null")
    ran(come)


def test_a_class_that_is_gone_keeps_its_output(coming):
    (coming / "raw/1.csv").unlink()
    part(coming, "2.csv", NEW, OLD, classes="xz")
    coming.edit("train.start_from", "previous")
    coming.edit(
        "train.model", "{factory: 'networks.mlp:mlp', arguments: {hidden: [5]}}\n  loss: {class_weights: balanced}"
    )
    ran(coming)
    assert schema()["classes"] == ["x", "y", "z"]
    assert mark().weights == digests.sha256(weights())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (TOWNS % "codes", f"params.yaml: prepare.categories is codes, but onehot in the preparation {KEEP}"),
        (
            "{source: raw, target: kind, task: binary}",
            f"params.yaml: prepare.task is binary, but classification in the preparation {KEEP}",
        ),
        (
            "{source: raw, target: kind, normalize: none, missing: {numeric: mean, category: constant}}",
            "params.yaml: prepare.normalize is none, but standard in",
        ),
        (
            "{source: raw, target: kind, kinds: {age: category}}",
            "params.yaml: prepare.kinds: age is category, but numeric in the preparation",
        ),
        (
            "{source: raw, target: kind, ignore: [age], missing: {category: constant}}",
            "raw: 'age': no such input, but the model that training starts from (train.start_from) has it",
        ),
    ],
)
def test_params_that_say_otherwise_than_what_is_kept(towns, prepare, message):
    towns.edit("prepare", prepare)
    said, mend = refused(towns, "previous").splitlines()
    assert said.startswith(message)
    assert mend.endswith(("(prepare.refit: true)", "(train.start_from: null)"))


def test_something_for_missing_values_that_the_model_has_not(coming):
    coming.edit("prepare", "{source: raw, target: kind, normalize: none, missing: {numeric: median}}")
    assert "has nothing for a missing value in column 'a'\nput error or drop, or fit the preparation anew" in refused(
        coming, "previous"
    )


def test_a_new_column(coming):
    (coming / "raw/1.csv").write_text(
        "".join(["a,b,c,kind\n", *(f"{row},{row * row % 11},{row % 7},{'xyz'[row % 3]}\n" for row in range(OLD))])
    )
    assert refused(coming, "previous").startswith(
        "raw: 'c': an input that the model that training starts from (train.start_from) doesn't have\nleave it out"
    )
    coming.edit("prepare.target", "kind\n  ignore: [c]")
    ran(coming)


def test_the_order_of_the_columns_may_change(coming):
    model = weights()
    (coming / "raw/1.csv").write_text(
        "".join(["kind,b,a\n", *(f"{'xyz'[row % 3]},{row * row % 11},{row / 64}\n" for row in range(OLD))])
    )
    before = open_store(paths.BATCHES).train.inputs[:].copy()
    coming.edit("train.start_from", "previous")
    ran(coming)
    assert (open_store(paths.BATCHES).train.inputs == before).all()
    assert weights() != model


# --- which model `previous` is


def test_previous_is_the_model_that_lies_here(coming):
    """Also where another run was finished later, as when DVC's run cache has brought it."""
    first = weights()
    coming.edit("train.lr", "0.02")
    ran(coming, "train", "evaluate")
    paths.MODEL.write_bytes(first)
    part(coming, "2.csv", NEW, OLD)
    coming.edit("train.start_from", "previous")
    ran(coming)
    assert mark().origin.plain()["start"] == {"weights": digests.sha256(first)}
    assert mark().start.seen.parts == [["raw/1.csv", mark().seen.parts[0][1]]]


def test_a_model_that_a_failed_training_took_away_is_the_one_that_dvc_lock_names(coming):
    first = weights()
    digest = hashlib.md5(first).hexdigest()
    Path("dvc.lock").write_text(f"stages: {{train: {{outs: [{{path: models/model.safetensors, md5: {digest}}}]}}}}\n")
    paths.MODEL.unlink()
    coming.edit("train.start_from", "previous")
    message, mend = coming.stage("start_from").refused().splitlines()
    assert (
        message
        == "error: train.start_from: previous: models/model.safetensors, which dvc.lock names, isn't here: `dvc pull`"
        " brings it where a remote has it"
    )
    assert mend == "or train from fresh weights (train.start_from: null), or name another start"
    assert json.loads((paths.START_FROM / start_from.NOTE).read_text())["from"] is None, "nothing was written"
    cached = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(first)
    ran(coming)
    assert mark().origin.plain()["start"] == {"weights": digests.sha256(first)}


def test_a_model_that_only_dvc_knows_of(coming):
    """As in a clone: no run of the store made it, but dvc.lock names it, and the batches that it was trained on."""
    coming.edit("prepare.normalize", "standard")
    ran(coming)
    before = schema()["features"]
    shutil.rmtree(".surefoot")
    digest, batches = hashlib.md5(weights()).hexdigest(), "0" * 32 + ".dir"
    Path("dvc.lock").write_text(
        f"stages: {{batch: {{outs: [{{path: data/batches, md5: {batches}}}]}}, train: {{deps: [{{path: data/batches,"
        f" md5: {batches}}}], outs: [{{path: models/model.safetensors, md5: {digest}}}]}}}}\n"
    )
    part(coming, "2.csv", NEW, 10 * OLD)
    coming.edit("train.start_from", "previous")
    done = ran(coming, "start_from", "prepare", "batch", "train")
    assert "training starts from models/model.safetensors (weights " in done.out
    assert "; new: raw/2.csv\n" in done.out
    assert schema()["features"] == before


def test_a_file_of_a_run_here_is_known(coming):
    shutil.copy(paths.MODEL, "kept.safetensors")
    part(coming, "2.csv", NEW, OLD)
    coming.edit("train.start_from", "kept.safetensors")
    done = ran(coming, "start_from", "prepare", "batch", "train")
    assert "; new: raw/2.csv\n" in done.out
    shutil.rmtree(".surefoot")
    done = ran(coming, "start_from")
    assert "how its inputs were prepared isn't known, so the preparation is fitted anew" in done.out


def test_another_start_in_between_leaves_nothing(come):
    """`previous`, tried in vain; then a training from fresh weights; then `previous` is that one's model."""
    come.edit("train.model.arguments", "{hidden: [5, 5]}")
    assert come.stage("train").code == 2
    come.edit("train.start_from", "null")
    ran(come)
    fresh = weights()
    come.edit("train.start_from", "previous")
    ran(come)
    assert mark().origin.plain()["start"] == {"weights": digests.sha256(fresh)}


def test_rows_new_without_a_start(come):
    come.edit("train.start_from", "null")
    assert refused(come, rows="new") == "params.yaml:7: train: rows: new needs a model to go on from; set start_from"


def test_rows_new_without_a_new_row(coming):
    coming.edit("train.start_from", "previous")
    assert refused(coming, rows="new").endswith("has seen every part file of raw; add one, or set rows: all")
    coming.edit("train.start_from", "models/model.safetensors")
    shutil.rmtree(".surefoot")
    assert (
        refused(coming)
        == "train.rows: new: which rows models/model.safetensors has seen isn't known; start from a run, or set"
        " rows: all"
    )


def test_rows_new_of_a_source_without_part_files(coming):
    coming.edit("prepare.source", "sklearn:iris")
    ran(coming)
    coming.edit("train.start_from", "previous")
    assert "sklearn:iris has no part files, so which rows are new can't be told" in refused(coming, rows="new")


def test_fewer_new_rows_than_a_whole_batch(come):
    come.edit("batch.size", "64")
    come.edit("batch.drop_last", "true")
    ran(come, "batch")
    assert "new training rows, less than batch.size, and batch.drop_last leaves none" in refused(come, rows="new")


def test_a_part_that_sorts_before_those_that_were_seen(coming):
    part(coming, "0.csv", NEW, OLD)
    ran(coming, "start_from", "prepare", "batch")
    message = refused(coming, "previous")
    assert message.startswith("raw/0.csv is new, and its name sorts before raw/1.csv, so rows that the run ")
    assert message.endswith(
        "a row's split depends on the rows before it (prepare.split.by)\nrename it so that it sorts last, or start from"
        " null"
    )
    Path("raw/0.csv").rename("raw/2.csv")
    ran(coming, "start_from", "prepare", "batch", "train")


def test_a_part_that_was_seen_and_is_gone(come):
    ran(come, "train")
    part(come, "1.csv", OLD + 1)
    ran(come, "start_from", "prepare", "batch")
    assert refused(come).startswith("raw/1.csv isn't there as it was, so rows that the run ")


def test_another_split(come):
    come.edit("seed", "1")
    ran(come, "start_from", "prepare", "batch")
    assert refused(come).startswith("seed was 0, so rows that the run ")


@pytest.mark.slow
def test_verify_makes_such_a_run_again(tmp_path):
    workspace = make_workspace(tmp_path / "project")
    lines = (workspace / "data/raw/digits.csv").read_text().splitlines(keepends=True)
    (workspace / "data/raw/digits").mkdir()
    (workspace / "data/raw/digits.csv").unlink()
    for number, rows in enumerate((lines[1:1200], lines[1200:])):
        (workspace / f"data/raw/digits/{number}.csv").write_text("".join([lines[0], *rows]))
        if number:
            workspace.edit("train.start_from", "previous")
            workspace.edit("train.rows", "new")
        workspace.edit("prepare.source", "data/raw/digits")
        workspace.git("add", "--all")
        workspace.git("commit", "--quiet", "--message=part")
        workspace.dvc("repro")
    shutil.rmtree(workspace / ".surefoot")  # nothing of this workspace's is needed but the run itself
    run = workspace.runs()[0]
    done = workspace.run(
        ".venv/bin/surefoot", "verify", run.info.run_id, PYTHONPATH="src", check=False, TMPDIR=str(tmp_path)
    )
    assert done.code == 0, done
    assert "identical: " in done.out
    assert "test/new/accuracy" in done.out
    (files_of := workspace.artifact(run, f"{start_from.ARTIFACTS}/{start_from.WEIGHTS}")).write_bytes(
        b"x" + files_of.read_bytes()[1:]
    )
    done = workspace.run(
        ".venv/bin/surefoot", "verify", run.info.run_id, PYTHONPATH="src", check=False, TMPDIR=str(tmp_path)
    )
    assert done.code == 3, done
    assert "the model that it started from, start/weights.safetensors, is damaged in MLflow" in done.out


# --- by DVC


def weekly(workspace, *weeks):
    """Parts of the digits, a file a week; the source is their directory."""
    lines = (workspace / "data/raw/digits.csv").read_text().splitlines(keepends=True)
    (workspace / "data/raw/weeks").mkdir(exist_ok=True)
    for week in weeks:
        (workspace / f"data/raw/weeks/{week}.csv").write_text(
            "".join([lines[0], *lines[1 + 400 * week : 401 + 400 * week]])
        )
    workspace.edit("prepare.source", "data/raw/weeks")


def starts(workspace):
    return [
        run.origin.plain().get("start") for run in TrajectoryStore(workspace / ".surefoot").runs().values() if run.last
    ]


@pytest.mark.slow
def test_previous_by_dvc(workspace, tmp_path):
    model, reports = workspace / "models/model.safetensors", workspace / "reports"
    weekly(workspace, 0)
    workspace.dvc("repro")
    first = digests.sha256_file(model)
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=week 0")
    # A try that fails leaves no figures of the run before, and nothing that the next try meets.
    weekly(workspace, 0, 1)
    workspace.edit("train.start_from", "previous")
    workspace.edit("train.lr", "1.0e+30")
    assert workspace.dvc("repro", check=False).code != 0
    assert not model.exists()
    assert [path.name for path in reports.rglob("*") if path.is_file()] == []
    weekly(workspace, 0, 1, 2)
    workspace.edit("train.lr", "0.02")
    done = workspace.dvc("repro")
    assert "change since" not in done.out
    assert starts(workspace).count({"weights": first}) == 1
    # Forced, it's the same.
    lock = (workspace / "dvc.lock").read_bytes()
    workspace.dvc("repro", "--force")
    assert (workspace / "dvc.lock").read_bytes() == lock
    # So it is in a clone that has what DVC tracks, and elsewhere it is refused.
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=week 2")
    workspace.git("clone", "--quiet", str(workspace.path), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    (clone / ".venv").symlink_to(Path(sys.prefix))
    refused = clone.dvc("repro", check=False)
    assert "models/model.safetensors, which dvc.lock names, isn't here: `dvc pull` brings it" in refused.err
    clone.dvc("remote", "add", "--default", "--local", "far", str(workspace / ".dvc/cache"))
    clone.git("checkout", "--quiet", ".")
    clone.dvc("pull")
    assert "Data and pipelines are up to date." in clone.dvc("repro").out
    # Two at once, each with a start of its own.
    weekly(workspace, 0, 1, 2, 3)
    last = digests.sha256_file(model)
    workspace.git("add", "--all")
    for lr in ("0.03", "0.04"):
        workspace.dvc("exp", "run", "--queue", "-S", f"train.lr={lr}", "-S", "train.epochs=1")
    assert run_queue(workspace, jobs=2).count("Success") == 2
    assert starts(workspace).count({"weights": last}) == 2
    assert digests.sha256_file(model) == last
