"""`surefoot schedule` and `surefoot lr-find`, within this process, and once as a user would."""

import csv
import re
import shutil
import sys

import pytest

from surefoot import cli
from surefoot.base import paths
from tests.helpers import PROJECT

PNG = b"\x89PNG\r\n\x1a\n"
COSINE = "{name: CosineAnnealingLR, per: step}"
PLATEAU = "{name: ReduceLROnPlateau, arguments: {patience: 0, factor: 0.5, threshold: 1.0e+9, threshold_mode: abs}}"


@pytest.fixture
def prepared(tracked, monkeypatch, capfd):
    """60 rows in minibatches of 4, ready to train on: 11 steps an epoch."""
    lines = [f"{number % 3 + number % 7 / 20},{number * number % 11},{'xyz'[number % 3]}\n" for number in range(60)]
    (tracked / "raw.csv").write_text("".join(["a,b,kind\n", *lines]))
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["surefoot", *arguments])
        capfd.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, *capfd.readouterr()
        return 0, *capfd.readouterr()

    tracked.run = run
    return tracked


def refused(here, *arguments):
    code, out, err = here.run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2
    assert not (here / ".surefoot/lr-find").exists()
    assert not (here / ".surefoot/schedule.png").exists()
    return err


def set_train(here, text):
    with (here / "params.yaml").open("a") as file:
        file.write(f"  {text}\n")


# --- schedule


def test_a_constant_schedule(prepared):
    code, out, err = prepared.run("schedule")
    assert (code, err) == (0, "")
    path = prepared / ".surefoot/schedule.png"
    assert out == "lr: first 0.1, highest 0.1 (step 1), last 0.1\n22 steps in 2 epochs of 11: .surefoot/schedule.png\n"
    assert path.read_bytes().startswith(PNG)


def test_a_schedule_that_falls_goes_where_it_is_told_to(prepared):
    set_train(prepared, f"schedule: {COSINE}")
    before = prepared.files()
    code, out, _ = prepared.run("schedule", "--out", "some/where.png")
    assert code == 0
    assert re.match(r"lr: first 0.1, highest 0.1 \(step 1\), last 0.0005\d+\n", out)
    assert prepared.files() - before == {"some/where.png"}


def test_momentum_and_groups_have_lines_of_their_own(prepared):
    set_train(prepared, "schedule: {name: OneCycleLR, per: step}")
    set_train(prepared, 'optimizer: {name: Adam, groups: [{parameters: "*.bias", arguments: {lr: 0.2}}]}')
    code, out, _ = prepared.run("schedule")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()[:-1]] == [
        "lr of *.bias",
        "lr of all others",
        "momentum of *.bias",
        "momentum of all others",
    ]
    assert "highest 0.1997 " in out.splitlines()[0]  # OneCycleLR's own peak lies between two steps


def test_a_schedule_that_follows_a_metric_is_known_when_it_is_over(prepared):
    set_train(prepared, f"schedule: {PLATEAU}")
    code, out, _ = prepared.run("schedule")
    assert code == 0
    assert "11 steps in 1 epochs" in out
    assert "isn't known before: it depends on validation/loss" in out
    first = (prepared / ".surefoot/schedule.png").read_bytes()
    for stage in ("train", "evaluate"):
        assert prepared.stage(stage).code == 0
    code, out, _ = prepared.run("schedule")
    assert code == 0
    assert out.startswith("lr: first 0.1, highest 0.1 (step 1), last ")
    assert "22 steps in 2 epochs" in out
    assert "isn't known" not in out
    assert (prepared / ".surefoot/schedule.png").read_bytes() != first
    with (prepared / "reports/history.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]["lr"]
    assert f"last {float(last):.4g}\n" in out
    (run,) = prepared.runs()
    shown = prepared / "mlartifacts" / run.info.run_id / "artifacts/plots/schedule.png"
    assert shown.read_bytes() == (prepared / ".surefoot/schedule.png").read_bytes()


def test_a_run_that_ended_early_shows_what_it_had(prepared):
    prepared.edit("train.epochs", "5")
    set_train(prepared, "max_steps: 13")
    for stage in ("train", "evaluate"):
        assert prepared.stage(stage).code == 0
    (run,) = prepared.runs()
    assert (prepared / "mlartifacts" / run.info.run_id / "artifacts/plots/schedule.png").read_bytes().startswith(PNG)
    assert "13 steps in 2 epochs" in prepared.run("schedule")[1]


@pytest.mark.parametrize("command", ["schedule", "lr-find"])
def test_without_batches_it_says_how_to_make_them(prepared, command):
    (prepared / paths.BATCHES).rename(prepared / "elsewhere")
    assert refused(prepared, command) == "error: data/batches/index.json isn't there; `dvc repro batch` makes it\n"


@pytest.mark.parametrize("command", ["schedule", "lr-find"])
def test_batches_of_other_params(prepared, command):
    prepared.edit("batch.size", "8")
    assert (
        refused(prepared, command)
        == "error: data/batches was made with batch.size: 4, now it is 8: run `dvc repro batch` first\n"
    )


@pytest.mark.parametrize("command", ["schedule", "lr-find"])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("optimizer: {name: Adamm}", "train.optimizer.name: torch.optim has no optimizer 'Adamm'"),
        ("schedule: {name: Cosine}", "train.schedule.name: "),
    ],
)
def test_what_params_name_must_be_there(prepared, command, text, wanted):
    set_train(prepared, text)
    assert wanted in refused(prepared, command)


# --- lr-find


def test_the_range_test(prepared):
    before = prepared.files()
    code, out, err = prepared.run("lr-find")
    assert (code, err) == (0, "")
    assert prepared.files() == before
    data = (prepared / ".surefoot/lr-find/lr-find.csv").read_bytes()
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert list(rows[0]) == ["step", "lr", "loss", "smoothed_loss"]
    assert [row["step"] for row in rows] == [str(step) for step in range(1, len(rows) + 1)]
    assert rows[0]["lr"] == "1e-06"
    suggested = re.search(r"^between them +train.lr (\S+)$", out, re.MULTILINE)[1]
    assert 1e-3 < float(suggested) < 10
    assert f"`lr: {suggested}` under `train` in params.yaml, or  dvc exp run -S train.lr={suggested}\n" in out

    (run,) = prepared.runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("raw ") and run.info.run_name.endswith(" lr-find")
    assert run.data.tags["surefoot.kind"] == "lr-find"
    assert "DVC_EXP_NAME" not in run.data.tags
    assert (run.data.params["lr_find.min"], run.data.params["lr_find.steps"], run.data.params["train.epochs"]) == (
        "1e-06",
        "100",
        "2",
    )
    found = run.data.metrics
    assert found.keys() == {"lr_find/steepest", "lr_find/tenth_of_diverging", "lr_find/suggested"}
    assert f"{found['lr_find/suggested']:.2g}" == suggested
    assert f"{found['lr_find/steepest']:.2g}" in out
    artifacts = prepared / "mlartifacts" / run.info.run_id / "artifacts"
    assert (artifacts / "lr-find.csv").read_bytes() == data
    assert (artifacts / "lr-find.png").read_bytes().startswith(PNG)

    assert prepared.run("sync") == (0, "", "")  # the store knows of no run
    assert "error: no run was made here yet" in prepared.run("verify")[2]
    code, out, _ = prepared.run("verify", run.info.run_id)
    assert code == 3
    assert "it is no training but a run of `surefoot lr-find`" in out
    assert prepared.run("lr-find", "--out", "mine")[0] == 0
    assert (prepared / "mine/lr-find.csv").read_bytes() == data
    assert (prepared / "mine/lr-find.png").read_bytes() == (prepared / ".surefoot/lr-find/lr-find.png").read_bytes()
    assert len(prepared.runs()) == 1  # the same test is the same run


def test_it_changes_nothing_of_a_training(prepared):
    assert prepared.stage("train").code == 0
    model = (prepared / paths.MODEL).read_bytes()
    records = sorted((prepared / ".surefoot/records").rglob("*"))
    code, _, _ = prepared.run("lr-find", "--steps", "80", "--min", "1e-5")
    assert code == 0
    assert (prepared / paths.MODEL).read_bytes() == model
    assert sorted((prepared / ".surefoot/records").rglob("*")) == records
    assert prepared.stage("evaluate").code == 0
    assert sorted(run.data.tags.get("surefoot.kind", "") for run in prepared.runs()) == ["", "lr-find"]


def test_linear_scaling_is_taken_into_account(prepared):
    plain = prepared.run("lr-find")[1]
    set_train(prepared, "lr_reference_batch: 8")
    scaled = prepared.run("lr-find")[1]
    found = [float(re.search(r"steepest descent +train.lr (\S+)", out)[1]) for out in (plain, scaled)]
    assert found[1] == pytest.approx(2 * found[0], rel=0.05)
    assert "(each is multiplied by 0.5 for 8 rows: train.lr_reference_batch;" in scaled


def test_groups_are_spoken_of(prepared):
    set_train(prepared, 'optimizer: {name: SGD, groups: [{parameters: "*.bias", arguments: {lr: 0.2}}]}')
    assert "groups with an lr of their own kept its ratio to train.lr, 0.1" in prepared.run("lr-find")[1]


def test_where_nothing_explodes(prepared):
    code, out, _ = prepared.run("lr-find", "--min", "1e-4", "--max", "0.5")
    assert code == 0
    assert "the loss didn't explode up to lr 0.5; a larger --max shows where" in out
    assert "a tenth" not in out
    assert "lr_find/tenth_of_diverging" not in prepared.runs()[0].data.metrics


def test_without_mlflow_it_goes_on(prepared, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code, out, err = prepared.run("lr-find")
    assert code == 0
    assert "to train with it" in out
    assert err.startswith("warning: MLflow at http://127.0.0.1:1 can't be written")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--min", "-1"], "--min -1: must be above 0"),
        (["--min", "0"], "--min 0: must be above 0"),
        (["--max", "nan"], "--max nan: must be above 0, and a number"),
        (["--max", "inf"], "--max inf: must be above 0, and a number"),
        (["--min", "1", "--max", "0.1"], "--min 1: must be less than --max, which is 0.1"),
        (["--min", "1", "--max", "1"], "--min 1: must be less than --max, which is 1"),
        (["--steps", "3"], "--steps 3: must be from 20 to 100000"),
        (["--min", "1e4", "--max", "1e9"], "and doesn't fall before; give a --min below 10000"),
        (["--min", "1e-30", "--max", "1e-29"], "from lr 1e-30 to 1e-29 the loss doesn't fall by more than it varies"),
    ],
)
def test_what_cannot_be(prepared, arguments, wanted):
    assert wanted in refused(prepared, "lr-find", *arguments)
    assert prepared.runs() == []


def test_a_loss_that_is_not_finite_from_the_first(prepared):
    prepared.edit("train.model.arguments", "{steps: 0}")
    prepared.edit("train.model.factory", "tests.unit.training.networks_for_tests:explodes")
    assert "before any step is taken, which no learning rate helps" in refused(prepared, "lr-find")


def test_an_option_that_is_no_number(prepared):
    code, _, err = prepared.run("lr-find", "--steps", "many")
    assert code == 2
    assert "usage: surefoot lr-find" in err


def suggestions(out):
    return [
        float(re.search(rf"{name} +train.lr (\S+)", out)[1])
        for name in ("steepest descent", "a tenth of diverging", "between them")
    ]


def test_on_the_digits_it_is_near_to_the_best_of_a_sweep(prepared):
    """That was 0.043: docs/learning-rate.md."""
    for name in ("params.yaml", "data/raw/digits.csv"):
        (prepared / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, prepared / name)
    for stage in ("prepare", "batch"):
        assert prepared.stage(stage).code == 0
    assert all(0.043 / 3 < lr < 0.043 * 3 for lr in suggestions(prepared.run("lr-find")[1]))


@pytest.mark.slow
def test_git_and_dvc_see_nothing_of_it(workspace):
    workspace.dvc("repro", "batch")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=batched")
    before = workspace.dvc("status").out
    for command in ("lr-find", "schedule"):
        workspace.run(".venv/bin/python", "-m", "surefoot", command, PYTHONPATH="src")
    assert workspace.git("status", "--porcelain") == ""
    assert workspace.dvc("status").out == before
