"""The real thing: `dvc repro` in a copy of the project, and what a person does next."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from surefoot.base import paths
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from tests.helpers import Done, Workspace, copy_project
from tests.served import check, mlflow_serves, network_says

OUTS = [
    paths.PREPARED,
    paths.BATCHES,
    paths.MODEL,
    paths.RUN,
    paths.HISTORY,
    paths.METRICS,
    paths.INTERVALS,
    paths.PREDICTIONS,
    paths.CLASSES,
    paths.PLOTS,
]
EPOCHS = 3


def outputs(workspace: Workspace) -> dict[str, bytes]:
    """The bytes of all that DVC tracks."""
    found = {}
    for out in OUTS:
        path = workspace.path / out
        for file in filter(Path.is_file, sorted(path.rglob("*"))) if path.is_dir() else [path]:
            found[str(file.relative_to(workspace.path))] = file.read_bytes()
    return found


def stages_run(out: str) -> list[str]:
    return [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage '")]


@pytest.fixture(scope="module")
def reproduced(finished, tmp_path_factory):
    """A workspace in which the pipeline was run, and params.yaml and dvc.lock committed."""
    workspace = Workspace(tmp_path_factory.mktemp("pipeline") / "project")
    copy_project(finished, workspace.path)
    workspace.done = Done(0, *(finished.with_name(f"finished.{name}").read_text() for name in ("out", "err")))
    return workspace


@pytest.fixture
def again(reproduced, empty_store, tmp_path):
    """A copy of it, to go on from; its stores are empty."""
    path = tmp_path / "copy"
    shutil.copytree(
        reproduced.path,
        path,
        symlinks=True,
        ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts", ".surefoot", "tmp", "__pycache__"),
    )
    shutil.copy(empty_store, path / "mlflow.db")
    return Workspace(path)


# --- one run


def test_all_stages_run_and_say_what_they_did(reproduced):
    assert stages_run(reproduced.done.out) == ["start_from", "prepare", "batch", "train", "evaluate"]
    lines = reproduced.done.out.splitlines()
    assert "prepared data/raw/digits.csv: 64 inputs, 10 classes; rows: 1259 train, 269 validation, 269 test" in lines
    assert len([line for line in lines if line.startswith("epoch ")]) == EPOCHS
    assert "warning" not in reproduced.done.err


def test_the_end_is_a_summary(reproduced):
    lines = reproduced.done.out.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("269 test rows")))
    figures = json.loads((reproduced / "reports/metrics.json").read_text())["test"]
    intervals = json.loads((reproduced / "reports/intervals.json").read_text())["test"]
    assert lines[start].split() == [
        "269",
        "test",
        "rows",
        "95",
        "%",
        "interval",
    ]  # nothing is committed yet to compare with
    for line, (name, value) in zip(lines[start + 1 :], figures.items(), strict=False):
        ends = [f"{intervals[name]['low']:.4f}", "to", f"{intervals[name]['high']:.4f}"] if name in intervals else ["-"]
        assert line.split() == [name, f"{value:.4f}", *ends]
    (run,) = reproduced.runs()
    place = lines.index(f"MLflow  run {run.info.run_id}: make ui")
    assert lines[place + 1].strip() == f"http://127.0.0.1:5000/#/runs/{run.info.run_id}"
    assert "plots   reports/plots" in lines
    model = lines.index("model   models/model.safetensors")
    chosen = json.loads((reproduced / "models/run.json").read_text())["chosen_epoch"]
    assert lines[model + 1].strip() == f"of epoch {chosen} of {EPOCHS}: least validation/loss"
    assert json.loads(reproduced.artifact(run, "intervals.json").read_text())["test"] == intervals
    assert not any("interval" in name for name in run.data.metrics), "each would be a chart of one bar"
    plots = {path.name: path.read_bytes() for path in (reproduced / "reports/plots").iterdir()}
    assert {"training.png", "confusion.png", "mistakes.png"} <= plots.keys()
    logged = {path.name: path.read_bytes() for path in reproduced.artifact(run, "plots").iterdir()}
    assert logged.pop("schedule.png").startswith(b"\x89PNG")
    assert logged == plots
    assert "\033[" not in reproduced.done.out + reproduced.done.err


def test_the_outputs_are_there(reproduced):
    made = outputs(reproduced)
    assert {
        "data/prepared/schema.json",
        "data/batches/index.json",
        "models/model.safetensors",
        "reports/history.csv",
        "reports/metrics.json",
    } <= made.keys()
    with (reproduced / "reports/history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["train/loss"]) < float(history[0]["train/loss"])
    assert json.loads(made["reports/metrics.json"])["test"]["accuracy"] > 0.8
    with (reproduced / "reports/predictions.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    right = sum(pair["actual"] == pair["predicted"] for pair in pairs)
    assert right / len(pairs) == pytest.approx(json.loads(made["reports/metrics.json"])["test"]["accuracy"])


def test_git_sees_nothing_but_the_lock_file(reproduced):
    assert reproduced.git("status", "--porcelain") == ""
    assert set(reproduced.git("show", "--name-only", "--format=").split()) == {"dvc.lock", "params.yaml"}


def test_a_second_time_nothing_runs(reproduced):
    before = outputs(reproduced)
    done = reproduced.dvc("repro")
    assert stages_run(done.out) == []
    assert outputs(reproduced) == before
    assert len(reproduced.runs()) == 1
    assert reproduced.git("status", "--porcelain") == ""


def test_nothing_in_the_outputs_tells_of_time_or_place(reproduced, finished):
    (run,) = reproduced.runs()
    for secret in (run.info.run_id, str(finished), os.uname().nodename):
        for name, data in outputs(reproduced).items():
            if name.endswith(".png"):
                data = repr(Image.open(io.BytesIO(data)).info).encode()
            elif len(secret) < 8 and not name.endswith((".json", ".csv")):
                continue  # of two letters there are some in any binary file by chance
            assert secret.encode() not in data, name


def test_the_mlflow_run_has_all_of_it(reproduced):
    (run,) = reproduced.runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.02"
    assert run.data.params["train.epochs"] == str(EPOCHS)
    # The training was in the first commit; the second has its dvc.lock.
    assert run.data.tags["mlflow.source.git.commit"] == reproduced.git("rev-parse", "HEAD~1").strip()
    index = json.loads((reproduced / "data/batches/index.json").read_text())
    (dataset,) = run.inputs.dataset_inputs
    profile = json.loads(dataset.dataset.profile)
    assert profile["batches"] == index["digest"]
    assert profile["digest"] == run.data.tags["surefoot.data.digest"]
    assert all(run.data.tags.values()), "no tag is empty"
    assert max(len(value) for name, value in run.data.tags.items() if name != "mlflow.note.content") <= 250
    assert reproduced.client().get_logged_model(run.data.tags["surefoot.model_id"]).name == run.info.run_name.replace(
        ".", ","
    )
    assert profile["dvc_path"] == "data/batches"
    assert dataset.dataset.name == "data/raw/digits.csv"
    requirements = reproduced.artifact(run, "environment/requirements.txt").read_text().splitlines()
    assert "torch==2.13.0" in [line.partition("+")[0] for line in requirements]
    fingerprint = reproduced.run(".venv/bin/python", "-m", "surefoot", "fingerprint", PYTHONPATH="src").out.strip()
    assert run.data.tags["surefoot.fingerprint"] == fingerprint


def test_the_metrics_of_evaluate_are_on_the_same_run(reproduced):
    (run,) = reproduced.runs()
    metrics = json.loads((reproduced / "reports/metrics.json").read_text())["test"]
    assert {name: run.data.metrics[f"test/{name}"] for name in metrics} == metrics
    for plot in ("training", "schedule", "confusion"):
        assert reproduced.artifact(run, f"plots/{plot}.png").read_bytes().startswith(b"\x89PNG")


def test_the_checkpoints_are_on_the_run(reproduced):
    (run,) = reproduced.runs()
    directory = reproduced.artifact(run, "checkpoints")
    assert {file.name for file in directory.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "epoch-0002.safetensors",
    }
    assert (directory / "best.safetensors").read_bytes() == (reproduced / "models/model.safetensors").read_bytes()


LOAD = """
import json, sys
import mlflow.pyfunc
import pyarrow.parquet as pq
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pq.read_table(sys.argv[2]).to_pandas()
target = sys.argv[3]
answer = model.predict(rows.drop(columns=[target]))
import surefoot
probabilities = answer.drop(columns=["prediction"]).sum(axis=1)
print(json.dumps({
    "predicted": answer["prediction"].tolist(), "actual": rows[target].tolist(),
    "least": probabilities.min(), "most": probabilities.max(), "signature": bool(model.metadata.signature),
    "example": bool(model.metadata.saved_input_example_info), "code": surefoot.__file__,
}))
"""


def test_the_model_can_be_loaded_without_pickle_and_says_what_evaluate_said(reproduced, tmp_path):
    (run,) = reproduced.runs()
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LOAD,
            f"models:/{run.data.tags['surefoot.model_id']}",
            str(reproduced / "data/prepared/test.parquet"),
            "digit",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{reproduced / 'mlflow.db'}",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    with (reproduced / "reports/predictions.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert answer["predicted"] == [pair["predicted"] for pair in pairs]
    assert answer["actual"] == [pair["actual"] for pair in pairs]
    assert answer["least"] == pytest.approx(1)
    assert answer["most"] == pytest.approx(1)
    assert answer["signature"]
    assert answer["example"]
    assert not Path(answer["code"]).is_relative_to(reproduced.path / "src"), "the model brings its own code"


def test_served_over_http_it_says_what_evaluate_computed(reproduced, tmp_path):
    """Every test row, one by one and all at once; nothing is unpickled."""
    (run,) = reproduced.runs()
    store = open_store(reproduced / "data/batches")
    said = network_says(
        store,
        load_params(reproduced / "params.yaml").train.model,
        (reproduced / "models/model.safetensors").read_bytes(),
    )
    test = pq.read_table(reproduced / "data/prepared/test.parquet").drop_columns(["digit"])
    rows = test.to_pylist()
    settings = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{reproduced / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    with mlflow_serves(
        f"models:/{run.data.tags['surefoot.model_id']}", tmp_path, tmp_path / "server.log", **settings
    ) as server:
        together = server.predictions(
            {"dataframe_split": {"columns": test.column_names, "data": [list(row.values()) for row in rows]}}
        )
        one_by_one = [server.predictions({"dataframe_records": [row]})[0] for row in rows]
        wrong = [
            server.post({"dataframe_records": [row]})
            for row in ({**rows[0], "pixel_0_0": "dark"}, {**rows[0], "pixel_0_0": None}, {"pixel_0_0": 1})
        ]
    for given in (together, one_by_one):
        check(given, store, said)
        with (reproduced / "reports/predictions.csv").open(newline="") as file:
            assert [row["prediction"] for row in given] == [pair["predicted"] for pair in csv.DictReader(file)]
    assert [status for status, _ in wrong] == [400] * 3
    for (_, answer), why in zip(
        wrong,
        ("'pixel_0_0': 'dark' is not a number", "'pixel_0_0': empty; a number is needed", "pixel_0_1"),
        strict=True,
    ):
        assert why in answer["message"]
        assert "Traceback" not in str(answer)


@pytest.mark.slow
def test_mlflow_predicts_without_pickle(reproduced, tmp_path):
    (run,) = reproduced.runs()
    rows = pq.read_table(reproduced / "data/prepared/test.parquet").drop_columns(["digit"]).to_pylist()
    (tmp_path / "rows.json").write_text(json.dumps({"dataframe_records": rows}))
    command = [
        "mlflow",
        "models",
        "predict",
        "-m",
        f"models:/{run.data.tags['surefoot.model_id']}",
        "-i",
        "rows.json",
        "-o",
        "out.json",
        "-t",
        "json",
    ]
    settings = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{reproduced / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    subprocess.run(
        [sys.executable, "-m", *command, "--env-manager", "local"],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        check=True,
    )
    with (reproduced / "reports/predictions.csv").open(newline="") as file:
        predicted = [pair["predicted"] for pair in csv.DictReader(file)]
    assert [row["prediction"] for row in json.loads((tmp_path / "out.json").read_text())["predictions"]] == predicted


# --- what a person does next


def test_elsewhere_the_same_bytes_come_out(reproduced, tmp_path):
    """From the commit alone, in another directory and environment, with MLflow out of reach."""
    path = tmp_path / "some where" / "else"
    subprocess.run(["git", "clone", "--quiet", str(reproduced.path), str(path)], check=True)
    (path / ".venv").symlink_to(sys.prefix)
    clone = Workspace(path)
    server = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = clone.dvc("repro", PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C", OMP_NUM_THREADS="2", **server)
    assert stages_run(done.out) == ["start_from", "prepare", "batch", "train", "evaluate"]
    assert outputs(clone) == outputs(reproduced)
    assert clone.git("status", "--porcelain") == "", "dvc.lock is what it was"


def test_another_learning_rate_runs_train_and_evaluate(again):
    again.edit("train.lr", "4e-2")
    done = again.dvc("repro")
    assert stages_run(done.out) == ["train", "evaluate"]
    head = again.git("rev-parse", "--short", "HEAD").strip()
    assert f"change since {head}" in done.out
    assert not re.search(r"(?m)^(loss|accuracy) .* new$", done.out)

    (run,) = again.runs()
    assert run.data.params["train.lr"] == "0.04"
    assert run.data.tags["mlflow.source.git.commit"] == again.git("rev-parse", "HEAD").strip()
    assert run.data.tags["surefoot.git.dirty"] == "true"
    assert "+  lr: 4e-2\n" in again.artifact(run, "source/uncommitted.patch").read_text()

    (changed,) = json.loads(again.dvc("params", "diff", "--json").out).values()
    assert changed == {"train.lr": {"old": 0.02, "new": 0.04, "diff": 0.02}}
    (changed,) = json.loads(again.dvc("metrics", "diff", "--json").out).values()
    assert changed["test.loss"]["new"] == json.loads((again / "reports/metrics.json").read_text())["test"]["loss"]
    assert changed["test.loss"]["new"] != changed["test.loss"]["old"]
    again.dvc("plots", "show")
    page = (again / "dvc_plots/index.html").read_text()
    for title in ("Loss", "Learning rate", "reports/plots/confusion.png"):
        assert title in page
    assert set(again.git("status", "--porcelain").split()) == {"M", "params.yaml", "dvc.lock"}


@pytest.mark.slow
def test_another_batch_size_in_an_experiment_runs_batch_too(again):
    done = again.dvc("exp", "run", "-S", "batch.size=256", "-S", "train.epochs=1")
    assert stages_run(done.out) == ["batch", "train", "evaluate"]
    (name,) = again.dvc("exp", "list", "--name-only").out.split()
    (run,) = (run for run in again.runs() if run.data.tags.get("DVC_EXP_NAME") == name)
    assert run.info.run_name == f"digits lr=0.02 batch=256 epochs=1 {name}"
    assert run.data.params["batch.size"] == "256"
    assert "test/accuracy" in run.data.metrics


@pytest.mark.slow
def test_an_experiment_in_a_temporary_copy_is_seen_in_the_same_store(again):
    again.dvc("exp", "run", "--temp", "-S", "train.lr=0.1", "-S", "train.epochs=1")
    (name,) = again.dvc("exp", "list", "--name-only").out.split()
    (run,) = (run for run in again.runs() if run.data.tags.get("DVC_EXP_NAME") == name)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.1"
    assert "test/accuracy" in run.data.metrics
    assert again.artifact(run, "checkpoints/last.safetensors").is_file()
    assert again.git("status", "--porcelain") == ""


def test_a_training_that_diverges_loses_nothing(again):
    before = outputs(again)
    again.edit("train.lr", "1e3")
    done = again.dvc("repro", check=False)
    assert done.code != 0
    assert "exited with 2" in done.err
    told = done.err[done.err.index("error: ") :].splitlines()[:2]
    for part in (
        "the loss became ",
        "in epoch ",
        "with lr 1000; it began in layer '3' (Linear): the first output that isn't finite",
    ):
        assert part in told[0]
    assert "kept" in told[1]
    assert "Traceback" not in done.out + done.err
    (run,) = again.runs()
    assert run.info.status == "FAILED"
    assert not (again / "models/model.safetensors").exists()

    again.dvc("checkout")
    assert outputs(again) == before


def test_a_training_that_is_stopped_is_killed(again):
    again.edit("train.epochs", "3000")
    again.git("commit", "--quiet", "--all", "--message=long")
    with subprocess.Popen(
        again.stage_command("train"),
        cwd=again.path,
        env=again.environment(PYTHONPATH="src", DVC_ROOT=str(again.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stdout.readline() == "training networks.mlp:mlp\n"
        epochs = (line.split()[1] for line in training.stdout if line.startswith("epoch "))
        assert list(islice(epochs, 3)) == ["1/3000", "2/3000", "3/3000"]
        training.send_signal(signal.SIGTERM)
        _, err = training.communicate()
    assert training.returncode == 143
    assert err == "stopped by SIGTERM\n"
    (run,) = again.runs()
    assert run.info.status == "KILLED"
    assert again.client().get_metric_history(run.info.run_id, "train/loss")[0].step == 1
    assert again.artifact(run, "checkpoints/last.safetensors").is_file()
    assert run.data.tags["surefoot.git.dirty"] == "false"
    assert not again.artifact(run, "source").exists()
