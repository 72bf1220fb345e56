"""`surefoot search` as a user meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest

from tests.helpers import Workspace, call_surefoot, make_workspace

NEEDED = "Optuna isn't installed: pip install -e '.[search]'"
SPACE = ("-S", "train.lr=log(1e-3,1)", "-S", "batch.size=choice(32,64)")


@pytest.fixture
def surefoot(here, monkeypatch, capfd):
    """`surefoot search` within this process, in a directory that is no repository: exit code, output, errors."""

    return partial(call_surefoot, monkeypatch, capfd, "search")


@pytest.fixture
def optuna():
    pytest.importorskip("optuna", reason=NEEDED)


def test_without_optuna_it_says_what_to_install(surefoot, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = (
        "error: surefoot search needs Optuna, which isn't installed: .venv/bin/python -m pip install --constraint"
        " requirements.txt -e '.[search]'\n"
    )
    assert surefoot(*SPACE) == (2, "", told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-S", "train.lr=normal(0,1)"], "-S train.lr=normal(0,1): must be KEY=... with log(low,high), "),
        ([], "-S: give at least one key to vary"),
        (["-S", "train.lrr=log(1e-3,1)"], "-S train.lrr: unknown key; did you mean `lr`?"),
        (["-S", "lr=log(1e-3,1)"], "-S lr: unknown key; did you mean `train.lr`?"),
        (["-S", "batch.size=log(1,64)"], "-S batch.size: input should be a valid integer, got 1.0"),
        (["-S", "batch.size=int(0,64)"], "-S batch.size: input should be greater than 0, got 0"),
        (["-S", "train.lr.x=choice(1,2)"], "-S train.lr.x: lr in params.yaml isn't a section with names"),
        ([*SPACE, "--trials", "0"], "--trials 0: must be at least 1"),
        ([*SPACE, "--name", "../x"], "--name ../x: must be letters, digits, - and _, beginning with a letter"),
        (SPACE, "surefoot search needs the project in Git, with a commit"),
    ],
)
def test_a_mistake_costs_a_line(surefoot, here, optuna, arguments, told):
    code, out, err = surefoot(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {told}")
    assert err.count("\n") == 1
    assert not (here / ".surefoot/search").exists()


def test_a_pair_of_keys_may_be_right_only_together(surefoot, optuna):
    """Nesterov's momentum needs momentum, which params.yaml doesn't have: that isn't a fault of the key by itself."""
    _, _, err = surefoot("-S", "train.nesterov=choice(true,false)", "-S", "train.momentum=uniform(0.1,0.9)")
    assert "needs the project in Git" in err


def test_a_search_that_is_another_one_or_damaged(surefoot, here, optuna):
    subprocess.run(["git", "init", "--quiet"], cwd=here.path, check=True)
    subprocess.run(["git", "add", "--all"], cwd=here.path, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message=start"], cwd=here.path, check=True)
    journal = here / ".surefoot/search/mine.json"
    journal.parent.mkdir(parents=True)
    journal.write_text("{}")
    assert (
        "mine.json can't be read; delete it to start the search anew: what was trained is kept"
        in surefoot(*SPACE, "--name", "mine")[2]
    )
    settings = {"space": {}, "metric": "validation/loss", "prune": "median", "seed": 0, "params": {}}
    journal.write_text(
        json.dumps(
            {"format": 1, "settings": settings, "start": {"commit": None, "patch": "0" * 64}, "base": "", "trials": []}
        )
    )
    assert (
        "a search mine was started with another what -S says; give --name a new name"
        in surefoot(*SPACE, "--name", "mine")[2]
    )


# --- real trials


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    """A workspace of which prepare and batch were run."""
    workspace = make_workspace(tmp_path_factory.mktemp("search") / "project")
    workspace.dvc("repro", "batch")
    workspace.git("add", "dvc.lock")
    workspace.git("commit", "--quiet", "--message=run")
    return workspace


@pytest.fixture
def project(batched, empty_store, tmp_path):
    """A copy of it with empty stores."""
    path = tmp_path / "copy"
    shutil.copytree(
        batched.path,
        path,
        symlinks=True,
        ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts", ".surefoot", "tmp", "__pycache__"),
    )
    shutil.copy(empty_store, path / "mlflow.db")
    return Workspace(path)


def command(*arguments):
    return [".venv/bin/python", "-m", "surefoot", "search", *arguments]


def environment():
    return {"PYTHONPATH": os.pathsep.join(["src", *(path for path in sys.path if path.endswith("-site"))])}


def search(project, *arguments, **options):
    return project.run(*command(*arguments), **environment(), **options)


def trials(project, name):
    return json.loads((project / f".surefoot/search/{name}.json").read_text())["trials"]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_it_had_not_been(project, optuna, tmp_path):
    """The search, then its trial too, by kill -9; in the middle of the second trial."""
    arguments = [*SPACE, "--trials", "3", "--metric", "validation/accuracy", "--name", "mine"]
    killed = Workspace(tmp_path / "killed")
    shutil.copytree(project.path, killed.path, symlinks=True)
    killed.edit("train.epochs", "40")
    project.edit("train.epochs", "40")
    search(project, *arguments)
    with subprocess.Popen(
        command(*arguments), cwd=killed.path, env=killed.environment(**environment()), stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("trial 1/3"):
                break
        log = killed / ".surefoot/search/mine/trial-2.log"
        while not (log.is_file() and "epoch  5/40" in log.read_text()):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert len(trials(killed, "mine")) == 1
    done = search(killed, *arguments)
    assert done.out.startswith("search mine: 1 of 3 trials are there\n")
    assert " restored, training " in (killed / ".surefoot/search/mine/trial-2.log").read_text()
    assert trials(killed, "mine") == trials(project, "mine")
    runs = killed.trainings()
    assert len(runs) == 3
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["surefoot.sweep"] == "mine"
        assert " mine-" in run.info.run_name
        assert "test/accuracy" not in run.data.metrics
    assert killed.git("status", "--porcelain").split() == ["M", "params.yaml"]
    assert not (killed / "models").exists()
    best = max(trials(killed, "mine"), key=lambda trial: trial["value"])["values"]
    said = (
        f"the best one, in the workspace: dvc exp run -S batch.size={best['batch.size']} -S"
        f" train.lr={best['train.lr']}\n"
    )
    assert done.out.endswith(said)
    # The command that it ends with: everything is restored, and the model is that trial's.
    made = killed.dvc(*said.partition("dvc ")[2].split())
    assert "\nepochs 1-40 restored, nothing to train\n" in made.out
    # A finished one is told again, and nothing is run.
    again = search(killed, *arguments)
    assert again.out.startswith(
        "note: mine goes on with the code of its start, commit "
    )  # the experiment changed the workspace
    assert again.out.splitlines()[2:] == done.out.splitlines()[3:]


@pytest.mark.slow
def test_bad_trials_are_pruned_or_told_and_the_search_goes_on(project, optuna):
    done = search(
        project,
        "-S",
        "train.lr=choice(1e-5,1e-4,1e-3,0.01,0.03,0.1,0.3,1e4)",
        "--trials",
        "12",
        "--metric",
        "validation/accuracy",
        "--name",
        "mine",
    )
    found = trials(project, "mine")
    states = {trial["state"] for trial in found}
    assert "complete" in states
    assert states & {"pruned", "failed"}, done
    by_lr = {run.data.params["train.lr"]: run for run in project.trainings()}
    assert len(by_lr) == len(project.trainings()) == len({trial["values"]["train.lr"] for trial in found})
    for trial in found:
        run = by_lr[str(trial["values"]["train.lr"])]
        if trial["state"] == "pruned":
            assert run.info.status == "KILLED"
            assert run.data.tags["surefoot.incomplete"].startswith("pruned after ")
            assert len(trial["epochs"]) < 3
        if trial["state"] == "failed":
            assert run.info.status == "FAILED"
            assert trial["why"].startswith(("training diverged", "as trial "))


@pytest.mark.slow
def test_a_metric_that_is_not_logged_and_trials_that_all_fail(project, optuna):
    refused = search(project, *SPACE, "--metric", "validation/recall", check=False).refused()
    assert refused.startswith("error: --metric validation/recall: no such metric is logged in an epoch; there are ")
    assert "validation/accuracy" in refused
    assert len(project.trainings()) == 1
    done = search(project, "-S", "train.lr=choice(1e5,1e6,1e7,1e8,1e9,1e10)", "--name", "wild", check=False)
    assert "all of 5 trials failed, the last one with: " in done.refused()
    assert [trial["state"] for trial in trials(project, "wild")] == ["failed"] * 5
