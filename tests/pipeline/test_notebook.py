"""`surefoot.run`, as a notebook calls it: the same run as `dvc repro`'s."""

import csv
import io
import os
import random
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch

import surefoot
from tests.helpers import PROJECT, Workspace, copy_project, wait_for

EPOCHS = 300
ASK = f"import surefoot; surefoot.run({{'train.epochs': {EPOCHS}}})"


@pytest.fixture
def project(finished, tmp_path):
    copy_project(finished, tmp_path / "project")
    return Workspace(tmp_path / "project")


def files(project):
    """What git and a person see of it."""
    return project.git("status", "--porcelain"), (project / "params.yaml").read_bytes(), results(project.path)


def results(path):
    names = ("models/model.safetensors", "reports/history.csv", "reports/metrics.json", "reports/plots/training.png")
    return [(path / name).read_bytes() for name in names]


def records(project):
    return {path.name for path in (project / ".surefoot/chain").glob("*.json")}


def test_it_is_the_run_of_dvc_repro(project, monkeypatch, capfd):
    """Whichever comes first: the other trains nothing, and MLflow has one run."""
    before, known = files(project), records(project)
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    random_before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    result = surefoot.run({"train": {"epochs": np.int64(4)}})
    out, err = capfd.readouterr()
    assert "epochs 1-3 restored, training 4-4" in out
    assert err == ""
    assert "dvc.lock" not in out
    assert files(project) == before
    (trained,) = records(project) - known
    assert [path.name for path in (project / ".surefoot/run").iterdir()] == []

    weights = result.model.state_dict()
    assert random_before == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.random.get_rng_state().tolist(),
    )
    project.edit("train.epochs", "4")
    project.dvc("repro")
    assert records(project) == known | {trained}
    model, history, metrics, picture = results(project.path)
    expected = safetensors.torch.load(model)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not result.model.training
    rows = [dict(row) for row in csv.DictReader(io.StringIO(history.decode()))]
    table = result.history.reset_index().to_dict("records")
    assert table == [{name: float(value) for name, value in row.items()} for row in rows]
    assert f'"accuracy": {result.metrics["test/accuracy"]}' in metrics.decode()
    assert result.plots["training.png"] == picture
    of_four, _ = project.trainings()
    assert (result.run_id, result.name) == (of_four.info.run_id, of_four.info.run_name)
    assert result.params["train.epochs"] == 4

    capfd.readouterr()
    again = surefoot.run(project=project.path)  # params.yaml as it is now
    assert "Stage 'train' is cached" in capfd.readouterr().out
    assert (again.run_id, again.metrics) == (result.run_id, result.metrics)
    assert records(project) == known | {trained}


def test_the_model_is_of_the_code_that_trained_it(project, monkeypatch):
    """Also when the file was edited since, and whatever the notebook imported."""
    monkeypatch.syspath_prepend(str(project / "src"))
    file = project / "src/networks/mine.py"
    file.write_text(
        "from torch import nn\ndef build(shape, outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs), nn.Tanh())\n"
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "networks"]:
        monkeypatch.delitem(sys.modules, name)
    imported = __import__("networks.mine").mine
    result = surefoot.run({"train.model": {"factory": "networks.mine:build", "arguments": {}}}, project.path)
    file.write_text(file.read_text().replace("nn.Tanh()", "nn.Sigmoid()"))
    assert type(result.model[-1]) is torch.nn.Tanh
    assert sys.modules["networks.mine"] is imported
    kept = result._directory
    assert kept.is_dir()
    del result
    assert not kept.exists()


@pytest.fixture(scope="module")
def in_one_go(finished, tmp_path_factory):
    """The results of so many epochs, by DVC alone."""
    whole = Workspace(tmp_path_factory.mktemp("whole") / "project")
    copy_project(finished, whole.path)
    whole.edit("train.epochs", str(EPOCHS))
    whole.dvc("repro")
    return results(whole.path)


@pytest.mark.parametrize("how", ["Ctrl-C", pytest.param("kill -9", marks=pytest.mark.slow)])
def test_interrupted_and_run_again_it_has_the_same_bytes(project, in_one_go, how, capfd):
    known = len(records(project))
    environment = project.environment(PYTHONPATH=str(PROJECT / "src"))
    with subprocess.Popen(
        [sys.executable, "-c", ASK], cwd=project.path, env=environment, stderr=subprocess.PIPE, text=True
    ) as asking:
        wait_for(lambda: len(records(project)) > known + 3, pause=0.02)
        started = psutil.Process(asking.pid).children(recursive=True)
        asking.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
        err = asking.communicate(timeout=60)[1]
        assert asking.returncode == -(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    wait_for(lambda: not [process for process in started if is_there(process)], 60)
    wait_for(lambda: not list((project / ".surefoot/run").iterdir()), 60)
    out = capfd.readouterr().out
    if how == "Ctrl-C":
        assert err.splitlines()[-1] == "KeyboardInterrupt"
        assert out.splitlines()[-1] == "stopped by SIGINT"
    assert project.trainings()[0].info.status == "KILLED"

    result = surefoot.run({"train.epochs": EPOCHS}, project.path)
    assert " restored, training " in capfd.readouterr().out
    model, history, *_ = in_one_go
    assert (result._directory / "model.safetensors").read_bytes() == model
    assert (result._directory / "history.csv").read_bytes() == history
    assert [run.info.status for run in project.trainings()] == ["FINISHED", "FINISHED"]


def is_there(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"train.lrr": 0.1}, "train.lrr: unknown key; did you mean `lr`?"),
        ({"train": {"lr": -1}}, "train.lr: input should be greater than 0, got -1"),
        ({"train.lr.x": 1}, "train.lr.x: lr in params.yaml isn't a section with names"),
        ({"train.lr": "$(touch here)"}, "train.lr: input should be a valid number, got '$(touch here)'"),
        ({"train.optimizer.name": "Adm"}, "train.optimizer.name: "),
        ({"train.lr": 1e9}, "training diverged in epoch 1: "),
    ],
)
def test_a_mistake_is_an_exception_of_a_line_or_two(project, monkeypatch, params, error):
    monkeypatch.chdir(project.path)
    with pytest.raises(surefoot.UserError) as refused:
        surefoot.run(params)
    assert error in str(refused.value).splitlines()[0]
    assert len(str(refused.value).splitlines()) <= 2
    assert refused.value._render_traceback_()[0].startswith("error: ")
    assert not (project / "here").exists()


def test_without_a_project_or_git(project, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(
        surefoot.UserError, match=r"^there is no params\.yaml in .*empty, nor in a directory above it; "
    ):
        surefoot.run()
    with pytest.raises(surefoot.UserError, match=r"^project: nowhere: there is no params\.yaml in it$"):
        surefoot.run(project="nowhere")
    (project / ".git").rename(tmp_path / "git")
    with pytest.raises(surefoot.UserError, match=r"^surefoot\.run needs the project in Git, with a commit: "):
        surefoot.run(project=project.path)


def test_importing_it_is_light_and_it_stays_a_function():
    """A room of Surefoot's own has the name `surefoot.run`, too."""
    heavy = {"torch", "mlflow", "numpy", "pandas", "pydantic", "yaml", "dvc"}
    program = (
        f"import sys, surefoot; print(sorted({heavy} & sys.modules.keys()));"
        "from surefoot.run import naming; import surefoot.run.record; print(surefoot.run)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("[]\n<function run at ")
