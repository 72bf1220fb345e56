"""What a user may do wrong, seen as they see it: an exit code, one or two lines, and nothing half-written."""

import csv
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from surefoot.base import paths, terminal, writing
from surefoot.commands import retrain
from surefoot.reproduction import dvc_lock, provenance
from tests.helpers import PARAMS, PROJECT, mlflow_client

NETWORKS = "tests.unit.training.networks_for_tests"


def nothing_new(here, before):
    assert here.files() == before, "something half-written"


@pytest.fixture
def prepared(here):
    here.csv()
    assert here.stage("prepare").code == 0
    return here


@pytest.fixture
def batched(tracked):
    tracked.csv()
    assert tracked.stage("prepare").code == 0
    assert tracked.stage("batch").code == 0
    return tracked


# --- prepare


def test_a_source_that_is_not_there(here):
    before = here.files()
    assert (
        here.stage("prepare").refused()
        == "error: raw.csv: there is no such file or directory; prepare.source must name a file, a directory,"
        " sklearn:NAME or module:function\n"
    )
    nothing_new(here, before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "raw.csv: is empty; a header row with the column names must come first"),
        (
            "1,2,3\n4,5,6\n",
            (
                "raw.csv: row 1 holds numbers only, and none is 'kind' (prepare.target); a header row with the column"
                " names must come first, or name the columns in prepare.csv.header"
            ),
        ),
        ("a,kind\n", "raw.csv: has a header but no rows"),
        ("a,kind\n1,x\n2\n", "raw.csv: row 3: has 1 value; the header has 2"),
        (
            "a,kind\n1,x\nnan,x\n",
            (
                "raw.csv: row 3, column 'a': 'nan' stands for a missing value (prepare.missing.values); a number is"
                " needed in every row (or another policy, prepare.missing.numeric)"
            ),
        ),
        (
            "a,kind\n1,x\n2,\n",
            "raw.csv: row 3, column 'kind': empty; a target is needed in every row (or prepare.missing.target: drop)",
        ),
        (
            "a,kind\n" + "1,x\n" * 30,
            "column 'kind' (prepare.target) holds one class only, 'x'; at least two are needed",
        ),
    ],
)
def test_a_source_that_is_wrong(here, text, message):
    (here / "raw.csv").write_text(text)
    before = here.files()
    assert here.stage("prepare").refused() == f"error: {message}\n"
    nothing_new(here, before)


def test_a_source_that_is_a_directory(here):
    (here / "raw.csv").mkdir()
    assert "raw.csv: is an empty directory" in here.stage("prepare").refused()


def test_a_source_that_cannot_be_read(here):
    (here / "raw.csv").symlink_to("raw.csv")
    assert "raw.csv: can't be read: " in here.stage("prepare").refused()


def test_a_class_with_too_few_rows(here):
    here.csv()
    with (here / "raw.csv").open("a") as file:
        file.write("1,2,rare\n")
    before = here.files()
    assert "class 'rare' of column 'kind' has 1 row, too few to split" in here.stage("prepare").refused()
    nothing_new(here, before)


@pytest.mark.parametrize("stage", ["prepare", "batch", "train", "evaluate"])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  lr: 0.1", "  lr: .nan", "params.yaml:10: train.lr: input should be a finite number, got nan"),
        ("  lr: 0.1", "  lr_: 0.1", "params.yaml:10: train.lr_: unknown key; did you mean `lr`?"),
        (
            "  target: kind",
            "  target: kind\n  validation: 0.5\n  test: 0.5",
            "params.yaml:1: prepare: validation 0.5 and test 0.5 leave nothing to train on",
        ),
    ],
)
def test_every_stage_checks_the_params_first(here, stage, before, after, message):
    (here / "params.yaml").write_text(PARAMS.replace(before, after))
    there = here.files()
    assert message in here.stage(stage).refused()
    nothing_new(here, there)


def test_a_failed_stage_leaves_the_outputs_of_an_earlier_run(prepared):
    before = {file: (prepared / file).read_bytes() for file in prepared.files()}
    (prepared / "raw.csv").write_text("a,b,kind\n" + "1,2,x\n" * 50 + "1,2\n")
    prepared.stage("prepare").refused()
    del before["raw.csv"]
    assert {file: (prepared / file).read_bytes() for file in before} == before


# --- batch


MEASURED = {
    "reports/metrics.json",
    "reports/intervals.json",
    "reports/predictions.csv",
    "reports/classes.csv",
    "reports/plots/training.png",
}


def test_what_was_measured_stands_beside_no_other_data(batched, no_plots):
    """A stage may fail before other figures are there: those of the run before are gone by then."""
    for name in ("train", "evaluate"):
        assert batched.stage(name).code == 0
    assert batched.files() >= MEASURED
    batched.csv(classes=1)
    assert batched.stage("prepare").code == 2
    assert batched.files() >= MEASURED, "there are no other data yet"
    batched.csv(rows=80)
    assert batched.stage("prepare").code == 0
    assert not batched.files() & MEASURED


def test_what_was_measured_stands_beside_no_other_model(batched, no_plots):
    for name in ("train", "evaluate"):
        assert batched.stage(name).code == 0
    batched.edit("train.lr", "1.0e+30")
    assert batched.stage("train").code == 2
    assert not batched.files() & MEASURED


def test_the_last_commits_figures_are_told_of_the_same_test_rows_alone(batched, no_plots, monkeypatch):
    for name in ("train", "evaluate"):
        assert batched.stage(name).code == 0
    committed = {str(path): path.read_bytes() for path in (paths.METRICS, paths.PREDICTIONS)}
    monkeypatch.setattr(dvc_lock, "committed_output", lambda stage, path, now: ("abc1234", committed[str(path)]))
    assert "change since abc1234" in batched.stage("evaluate").out
    batched.csv(rows=120)
    for name in ("prepare", "batch", "train"):
        assert batched.stage(name).code == 0
    assert "change since" not in batched.stage("evaluate").out
    for damaged in (b"", b"\xff", b"actual\n"):
        committed[str(paths.PREDICTIONS)] = damaged
        assert "change since" not in batched.stage("evaluate").out


def test_a_shape_that_does_not_fit(prepared):
    (prepared / "params.yaml").write_text(PARAMS.replace("{size: 4}", "{size: 4, shape: [1, 3]}"))
    before = prepared.files()
    assert (
        prepared.stage("batch").refused()
        == "error: params.yaml: batch.shape: [1, 3] holds 3 values, but a row has 2 inputs; give auto, or another"
        " shape\n"
    )
    nothing_new(prepared, before)


def test_a_shape_that_cannot_fit_is_told_before_prepare_works(here):
    import numpy as np

    here.csv()
    for shape, known in (("[1, 3]", True), ("[1]", True), ("[2]", False), ("auto", False)):
        (here / "params.yaml").write_text(PARAMS.replace("{size: 4}", f"{{size: 4, shape: {shape}}}"))
        done = here.stage("prepare")
        assert done.code == (2 if known else 0), (shape, done)
        if known:
            assert "batch.shape: " in done.err
            assert "but a row has 2 inputs; give auto, or another shape\n" in done.err
            nothing_new(here, {"params.yaml", "raw.csv"})
    np.savez(here / "raw.npz", x=np.zeros((60, 3, 4), np.uint8), y=np.arange(60) % 3)
    text = PARAMS.replace("raw.csv", "raw.npz")
    (here / "params.yaml").write_text(text.replace("{size: 4}", "{size: 4, shape: [1, 8, 8]}"))
    assert (
        "[1, 8, 8] holds 64 values, but a row has 12 inputs, of shape [3, 4]; give auto, or another shape"
        in here.stage("prepare").refused()
    )
    (here / "params.yaml").write_text(text.replace("{size: 4}", "{size: 4, shape: auto}"))
    for stage in ("prepare", "batch"):
        done = here.stage(stage)
        assert done.code == 0, done
    assert "of shape [3, 4] by 4" in done.out


def test_a_batch_that_drop_last_leaves_out(prepared):
    (prepared / "params.yaml").write_text(PARAMS.replace("{size: 4}", "{size: 1000, drop_last: true}"))
    message = prepared.stage("batch").refused()
    assert message.startswith("error: params.yaml: batch.size: 1000 is more than the ")
    assert message.endswith(" training rows, and batch.drop_last leaves none\n")


def test_rows_come_out_as_they_went_in(prepared):
    """From raw.csv through prepare and batch: every row once, normalized, in its class."""
    assert prepared.stage("batch").code == 0
    import numpy as np

    from surefoot.data.batch_store import open_store

    store = open_store(prepared / "data/batches")
    divide, subtract = (
        np.array([feature[name][0] for feature in store.index.features]) for name in ("divide", "subtract")
    )
    found = []
    for split in (store.train, store.validation, store.test):
        raw = split.inputs * divide + subtract
        found += [(*row, store.classes[target]) for row, target in zip(raw.tolist(), split.targets, strict=True)]
    with (prepared / "raw.csv").open(newline="") as file:
        wanted = [(float(row["a"]), float(row["b"]), row["kind"]) for row in csv.DictReader(file)]
    assert len(found) == len(wanted)
    for ours, theirs in zip(sorted(found), sorted(wanted), strict=True):
        assert ours[:2] == pytest.approx(theirs[:2], abs=1e-5)
        assert ours[2] == theirs[2]


def test_the_scale_of_channels_goes_with_the_shape():
    from surefoot.stages.batch import _scale

    scale = {"subtract": [1.0, 2.0], "divide": [3.0, 4.0]}
    assert _scale(None, (2, 1, 3), (6,)) is None
    assert _scale(scale, (2, 1, 3), (2, 3)) == scale
    assert _scale({"subtract": [1.0], "divide": [2.0]}, (2, 1, 3), (6,)) == {"subtract": [1.0], "divide": [2.0]}
    assert _scale(scale, (2, 1, 3), (6,)) == {"subtract": [1.0] * 3 + [2.0] * 3, "divide": [3.0] * 3 + [4.0] * 3}


def test_no_space_left_to_batch(prepared):
    assert prepared.stage("batch").code == 0
    before = {file: (prepared / file).read_bytes() for file in prepared.files()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1]))
    try:
        message = prepared.stage("batch").refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    limit = "the limit on the size of a file is reached: `ulimit -f` is 0; raise it"
    assert message == f"error: data/batches can't be written: {limit}\nwhat was stored before is whole\n"
    assert {file: (prepared / file).read_bytes() for file in prepared.files()} == before


def test_batch_shows_a_bar_on_a_terminal_alone(prepared, monkeypatch, capfd):
    from surefoot.stages import batch

    assert prepared.stage("batch").err == ""
    monkeypatch.setattr(terminal._unwrapped(sys.stderr), "isatty", lambda: True)
    batch.main()
    assert "batch train" in capfd.readouterr().err


def test_blocks_give_the_same_model_however_the_epochs_are_cut(prepared, no_plots):
    digests = []
    for batch, train in (
        ("", ""),
        (", shuffle: blocks, block: 5, window: 2", ""),
        (", shuffle: blocks, block: 5, window: 2", "  checkpoint_every: 3\n"),
    ):
        shutil.rmtree(prepared / ".surefoot", ignore_errors=True)
        (prepared / "params.yaml").write_text(PARAMS.replace("{size: 4}", f"{{size: 4{batch}}}") + train)
        for stage in ("batch", "train", "evaluate"):
            assert prepared.stage(stage).code == 0
        digests.append((prepared / "models/model.safetensors").read_bytes())
    assert digests[1] == digests[2] != digests[0]


# --- train and evaluate


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "networks.none:mlp",
            "train.model.factory: networks.none:mlp: can't import networks.none: ModuleNotFoundError",
        ),
        (f"{NETWORKS}:nothing", f"module {NETWORKS} has no 'nothing'"),
        (f"{NETWORKS}:not_a_function", "is a int; a function is needed"),
        (f"{NETWORKS}:returns_a_list", "returned a list; an nn.Module is needed"),
        (f"{NETWORKS}:gives_the_same", "gives the same network at each call; make a new one in it"),
        (f"{NETWORKS}:draws_by_chance", "gives other weights at each call, so no run could be made again"),
        (f"{NETWORKS}:fails", "failed: ValueError: no such width"),
        (
            f"{NETWORKS}:one_output_too_many",
            "the network gives shape (4, 4) and type torch.float32; it must give shape (4, 3)",
        ),
        (
            f"{NETWORKS}:fails_in_forward",
            "the network fails on a batch of shape (4, 2): RuntimeError: mat1 and mat2 do not fit",
        ),
        (
            f"{NETWORKS}:fails_in_the_third_step",
            "the network fails in training, at step 3 of the epoch: IndexError: no third step (",
        ),
        (f"{NETWORKS}:is_not_deterministic", "torch: put_ does not have a deterministic implementation ("),
    ],
)
def test_a_model_that_is_wrong(batched, factory, message):
    (batched / "params.yaml").write_text(PARAMS.replace("networks.mlp:mlp", factory).replace("{hidden: [5]}", "{}"))
    before = batched.files()
    assert message in batched.stage("train").refused()
    nothing_new(batched, before)
    assert all(run.info.status == "FAILED" for run in batched.runs())


def test_a_run_without_git_says_so(batched, monkeypatch):
    assert provenance.code_state(()).trouble == ""
    shutil.rmtree(batched / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(batched.path.parent))
    assert (
        "warning: this run is recorded without its commit and changes, so `surefoot verify` can't make it again: not a"
        " git repository" in batched.stage("train").err
    )


def test_a_model_that_fails_on_the_validation_rows(batched, monkeypatch):
    """Only the first rows are tried before the training."""
    from surefoot.training import loop

    def fail(*_):
        raise IndexError("too many rows")

    monkeypatch.setattr(loop, "outputs_of", fail)
    assert (
        "train.model: the network fails on the validation rows: IndexError: too many rows"
        in batched.stage("train").refused()
    )


def test_an_operation_without_a_deterministic_kernel(batched, monkeypatch):
    """The refusal names the setting that allows it, and the setting does."""
    batched.edit("train.model.factory", f"{NETWORKS}:is_not_deterministic")
    batched.edit("train.model.arguments", "{}")
    assert "or allow it by deterministic: false in params.yaml" in batched.stage("train").refused()
    text = (batched / "params.yaml").read_text()
    (batched / "params.yaml").write_text(text + "deterministic: false\n")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        assert batched.stage("train").code == 0
        # As `surefoot verify --epochs` makes them again.
        monkeypatch.setattr(sys, "argv", ["retrain", "1-1", str(batched / "again")])
        retrain.main()


def test_a_network_that_changes_what_decides_bits(batched):
    import torch

    batched.edit("train.model.factory", f"{NETWORKS}:changes_the_threads")
    batched.edit("train.model.arguments", "{}")
    try:
        message = batched.stage("train").refused()
    finally:
        torch.set_num_threads(1)
    assert "changes torch.get_num_threads() from 1 to 2, for the whole process; params.yaml decides that" in message


def test_arguments_that_the_factory_does_not_take(batched):
    batched.edit("train.model.arguments", "{depth: 3}")
    assert "TypeError: mlp() got an unexpected keyword argument 'depth'" in batched.stage("train").refused()


def test_a_loss_that_is_not_finite_on_the_test_rows_alone(batched):
    import numpy as np

    assert batched.stage("train").code == 0
    inputs = np.load(batched / "data/batches/test/inputs.npy")
    inputs[0] = np.inf
    np.save(batched / "data/batches/test/inputs.npy", inputs)
    assert "error: the loss on the test rows is " in batched.stage("evaluate").refused()


def test_a_loss_that_explodes_after_an_epoch(batched):
    """The first epoch is finished and kept; the second one stops at the step that went wrong."""
    steps = json.loads((batched / "data/batches/index.json").read_text())["batches_per_epoch"]
    batched.edit("train.model.factory", f"{NETWORKS}:explodes")
    batched.edit("train.model.arguments", f"{{steps: {steps + 2}}}")
    before = batched.files()
    message = batched.stage("train").refused()
    assert "the loss became nan" in message
    assert "in epoch 2" in message
    assert "at step 3, with lr 0.1" in message
    assert "epoch 1 is kept" in message
    nothing_new(batched, before)
    (run,) = batched.runs()
    assert run.info.status == "FAILED"
    assert run.info.run_id in message
    assert (batched / "mlartifacts" / run.info.run_id / "artifacts/checkpoints/last.safetensors").stat().st_size > 0
    assert [metric.step for metric in batched.client().get_metric_history(run.info.run_id, "train/loss")] == [1]


def test_a_loss_that_explodes_in_the_first_epoch(batched):
    batched.edit("train.lr", "1e30")
    before = batched.files()
    message = batched.stage("train").refused()
    assert "in epoch 1" in message
    assert "the loss became " in message
    assert " at step " in message
    assert (
        "with lr 1e+30; it began in layer '3' (Linear): the first output that isn't finite, with weights up to"
        in message
    )
    assert "no epoch was finished" in message
    nothing_new(batched, before)
    assert [run.info.status for run in batched.runs()] == ["FAILED"]


def test_every_kind_of_training_runs_through(batched):
    """The knobs that the default run leaves alone."""
    text = PARAMS + "  momentum: 0.9\n  nesterov: true\n  weight_decay: 0.01\n  select: last\n  save_every: 1\n"
    (batched / "params.yaml").write_text(
        text.replace("{size: 4}", "{size: 4, drop_last: true}") + "numerics: portable\n"
    )
    for stage in ("batch", "train", "evaluate"):
        done = batched.stage(stage)
        assert (done.code, done.err) == (0, ""), done
    with (batched / "reports/history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    metrics = json.loads((batched / "reports/metrics.json").read_text())
    assert metrics.keys() == {"test"}
    assert metrics["test"].keys() == {"loss", "accuracy", "precision_macro", "recall_macro", "f1_macro", "ece"}


@pytest.mark.parametrize(
    ("loss", "known"),
    [
        ("{name: CrossEntropyLoss, class_weights: [1.0, 2.0, 5.0]}", True),
        ("{name: 'own:loss'}", False),
        ("{name: MultiMarginLoss}", True),
    ],
)
def test_the_interval_of_a_loss(batched, no_plots, monkeypatch, loss, known):
    """It can be told where the loss is a mean over rows, weighted or not."""
    (batched / "own.py").write_text(
        "from torch.nn.functional import cross_entropy\n\n\ndef loss():\n    return lambda given, wanted:"
        " cross_entropy(given, wanted) ** 2\n"
    )
    monkeypatch.syspath_prepend(batched.path)
    (batched / "params.yaml").write_text(PARAMS + f"  loss: {loss}\n")
    for stage in ("train", "evaluate"):
        done = batched.stage(stage)
        assert (done.code, done.err) == (0, ""), done
    value = json.loads((batched / "reports/metrics.json").read_text())["test"]["loss"]
    interval = json.loads((batched / "reports/intervals.json").read_text())["test"].get("loss")
    assert interval["low"] < value < interval["high"] if known else interval is None


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_model_that_is_kept(batched, select):
    """With a learning rate this high the last epoch is not the best."""
    (batched / "params.yaml").write_text(
        PARAMS.replace("epochs: 2", "epochs: 8").replace("lr: 0.1", "lr: 3.0")
        + f"  select: {select}\n  save_every: 1\n"
    )
    assert batched.stage("train").code == 0
    with (batched / "reports/history.csv").open(newline="") as file:
        losses = [float(row["validation/loss"]) for row in csv.DictReader(file)]
    best = losses.index(min(losses)) + 1
    assert best != 8, "choose another learning rate for this test"
    (run,) = batched.runs()
    checkpoints = batched / "mlartifacts" / run.info.run_id / "artifacts/checkpoints"
    wanted = {"best": best, "last": 8}
    assert (batched / "models/model.safetensors").read_bytes() == (
        checkpoints / f"epoch-{wanted[select]:04}.safetensors"
    ).read_bytes()
    for name, epoch in wanted.items():
        assert (checkpoints / f"{name}.safetensors").read_bytes() == (
            checkpoints / f"epoch-{epoch:04}.safetensors"
        ).read_bytes()


# --- what isn't there, is damaged, or can't be written


MADE = {
    "batch": ("data/prepared/schema.json", "data/prepared/train.parquet"),
    "train": ("data/batches/index.json", "data/batches/train/inputs.npy"),
    "evaluate": ("data/batches/index.json", "models/model.safetensors", "models/run.json", "reports/history.csv"),
}


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, names in MADE.items() for name in names])
def test_what_an_earlier_stage_has_made_is_gone_or_damaged(batched, stage, name):
    if stage == "evaluate":
        assert batched.stage("train").code == 0
    path = batched / name
    path.write_bytes(b"odd")
    assert f"error: {name}: is damaged" in batched.stage(stage).refused()
    path.unlink()
    by = {"data/prepared": "prepare", "data/batches": "batch"}.get("/".join(name.split("/")[:2]), "train")
    assert batched.stage(stage).refused() == f"error: {name} isn't there; `dvc repro {by}` makes it\n"
    path.symlink_to("/dev/zero")
    assert batched.stage(stage).refused() == f"error: {name}: can't be read: it is a device, not a file\n"


def test_a_disk_that_fails(batched, monkeypatch):
    import pyarrow.parquet as pq

    def fail(*_, **__):
        raise OSError(errno.EIO, "Error reading bytes from file. Detail: [errno 5] Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fail)
    assert (
        batched.stage("batch").refused()
        == "error: data/prepared/train.parquet: can't be read: Input/output error: the disk fails\n"
    )


@pytest.mark.parametrize(
    ("stage", "name"),
    [("batch", "data/batches"), ("train", "reports/history.csv"), ("evaluate", "reports/metrics.json")],
)
def test_a_directory_that_cannot_be_written(batched, monkeypatch, stage, name):
    if stage == "evaluate":
        assert batched.stage("train").code == 0
    replace, rename = Path.replace, Path.rename

    def refuse(path, target):
        if str(target) == name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return (replace if path.is_file() else rename)(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    assert (
        f"error: {name} can't be written: Read-only file system\nwhat was stored before is whole\n"
        in batched.stage(stage).refused()
    )


def test_a_lock_that_is_a_directory(batched):
    (batched / ".surefoot/lock").mkdir(parents=True)
    message = batched.stage("train").refused()
    assert "/.surefoot/lock can't be written, which has the locks: Is a directory; move it away\n" in message


@pytest.mark.parametrize("damage", [b"no database" * 1000, None, "directory"])
def test_a_damaged_mlflow_db(batched, damage):
    """Training goes on; and once it is deleted, sync brings its runs back."""
    assert batched.stage("train").code == 0
    (run,) = batched.runs()
    database = batched / "mlflow.db"
    if damage == "directory":
        database.unlink()
        database.mkdir()
    else:
        database.write_bytes(damage or database.read_bytes()[:40_000])
    done = batched.stage("train")
    assert done.code == 0
    assert "mlflow.db can't be written, going on without it: " in done.err
    if damage == "directory":
        assert "it is a directory, not a file" in done.err
        return
    assert (
        "mlflow.db is damaged: delete it (or move it away), then `surefoot sync` brings the runs of the trajectory"
        " store back" in done.err
    )
    if damage is None:
        return
    database.unlink()
    # In a copy, and a process of its own: this one holds the run's lock, and has the deleted file open.
    shutil.copytree(batched.path, batched / "copy")
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT / "src"),
        "DVC_ROOT": str(batched / "copy"),
        "MLFLOW_TRACKING_URI": "",
    }
    subprocess.run(
        [sys.executable, "-m", "surefoot", "sync"],
        cwd=batched / "copy",
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    client = mlflow_client(batched / "copy")
    (again,) = client.search_runs([client.get_experiment_by_name("surefoot").experiment_id])
    assert again.data.tags["surefoot.identity"] == run.data.tags["surefoot.identity"]


def test_plots_that_cannot_be_deleted_stand_beside_no_new_data_and_no_new_metrics(tracked, monkeypatch):
    tracked.csv()
    for stage in ("prepare", "batch", "train", "evaluate"):
        assert tracked.stage(stage).code == 0
    before = (tracked / "data/prepared/schema.json").read_bytes()
    tracked.csv(rows=90)
    remove = writing._remove

    def read_only(path):
        if path == paths.PLOTS:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(path)

    monkeypatch.setattr(writing, "_remove", read_only)
    for stage in ("prepare", "evaluate"):
        assert (
            tracked.stage(stage).refused()
            == "error: reports/plots, which is of the run before, can't be deleted: Permission denied\n"
        )
        assert not (tracked / "reports/metrics.json").exists()
    assert (tracked / "data/prepared/schema.json").read_bytes() == before
    assert (tracked / "reports/plots/confusion.png").exists()
