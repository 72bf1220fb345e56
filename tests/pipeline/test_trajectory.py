"""Trajectories as a user meets them: stages, signals, MLflow, DVC and its experiments."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot import cli
from surefoot.base import paths
from surefoot.run import follow
from surefoot.run.plan.planning import plan_run
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from surefoot.tracking import tag_names
from tests.helpers import PROJECT, Workspace, copy_project, mlflow_client, run_queue

HISTORY = (
    "train/loss",
    "validation/loss",
    "validation/accuracy",
    "lr",
    "gradient_norm",
    "epoch_seconds",
    "rows_per_second",
    "steps_per_second",
    "peak_memory_mb",
)


def points(root, run):
    """The steps of each metric of the history, as they lie in MLflow."""
    client = mlflow_client(root)
    return {
        name: [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        for name in HISTORY
        if name in run.data.metrics
    }


def check_history(root, run, epochs):
    assert points(root, run) == {name: list(range(1, epochs + 1)) for name in HISTORY}


def values(root, run):
    """The history in MLflow with its times, but for what was observed rather than determined."""
    client = mlflow_client(root)
    return {
        name: [
            (metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(run.info.run_id, name)
        ]
        for name in HISTORY
    }


# --- Stages within this process ------------------------------------------------------------------


@pytest.fixture
def project(tracked, monkeypatch):
    """Prepared and batched, small enough that an epoch takes no time."""
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    # Exporting an MLflow model takes seconds; test_an_mlflow_store_that_was_deleted_comes_back does.
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    return tracked


def model():
    return paths.MODEL.read_bytes(), paths.HISTORY.read_bytes()


def set_train(here, **settings):
    text = (here / "params.yaml").read_text().rstrip().splitlines()
    kept = [line for line in text if line.strip().partition(":")[0] not in settings]
    (here / "params.yaml").write_text(
        "\n".join([*kept, *(f"  {name}: {value}" for name, value in settings.items())]) + "\n"
    )


def ok(done):
    assert done.code == 0, done
    return done


def test_longer_shorter_and_elsewhere(project, monkeypatch, tmp_path_factory):
    ok(project.stage("train"))
    two = model()
    set_train(project, epochs=4, select="last")
    done = ok(project.stage("train"))
    four = model()
    assert done.out.splitlines()[1] == "epochs 1-2 restored, training 3-4"
    assert done.out.count("epoch ") == 2
    longer, shorter = project.runs()
    check_history(project.path, longer, 4)
    check_history(project.path, shorter, 2)
    assert longer.data.tags["surefoot.continues"] == shorter.info.run_id
    assert shorter.info.run_id in longer.data.tags["mlflow.note.content"]
    assert {name: some[:2] for name, some in values(project.path, longer).items()} == values(project.path, shorter)

    set_train(project, epochs=3)
    done = ok(project.stage("train"))
    assert done.out.splitlines()[1:] == ["epochs 1-3 restored, nothing to train"]
    latest = project.runs()[0]
    assert latest.info.status == "FINISHED"
    check_history(project.path, latest, 3)

    monkeypatch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("empty") / "store"))
    set_train(project, epochs=4)
    done = ok(project.stage("train"))
    assert done.out.count("epoch ") == 4
    assert model() == four
    set_train(project, epochs=2, select="best")
    ok(project.stage("train"))
    assert model() == two
    assert len(project.runs()) == 3
    for run in project.runs():
        assert run.info.status == "FINISHED"
    check_history(project.path, next(run for run in project.runs() if run.info.run_id == longer.info.run_id), 4)


def test_checkpoints_are_logged_though_states_are_dropped_on_the_way(project):
    set_train(project, epochs=5, save_every=2, keep_states=1, lr="1.0e-9")
    ok(project.stage("train"))
    (run,) = project.runs()
    directory = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoints"
    assert sorted(path.name for path in directory.iterdir()) == [
        "best.safetensors",
        "epoch-0002.safetensors",
        "epoch-0004.safetensors",
        "last.safetensors",
    ]
    two = (directory / "epoch-0002.safetensors").read_bytes()
    set_train(project, epochs=2, select="last")
    ok(project.stage("train"))
    assert paths.MODEL.read_bytes() == two


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_killed_run_that_the_next_one_finishes(project, monkeypatch, number, code):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=project.path, check=True, capture_output=True)

    git("add", "--force", "params.yaml")
    git("commit", "--quiet", "--message=one")
    set_train(project, epochs=5)
    report = follow._print_epoch
    with monkeypatch.context() as patch:
        patch.setattr(
            follow,
            "_print_epoch",
            lambda record, epochs: os.kill(os.getpid(), number) if record.epoch == 3 else None,
        )
        done = project.stage("train")
    assert follow._print_epoch is report
    assert done.code == code, done
    assert done.err == f"stopped by {signal.Signals(number).name}\n"
    (killed,) = project.runs()
    assert killed.info.status == "KILLED"
    git("add", "--force", "params.yaml")
    git("commit", "--quiet", "--message=two")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project.path, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert killed.data.tags["mlflow.source.git.commit"] != commit

    done = ok(project.stage("train"))
    assert done.out.splitlines()[1].startswith(
        ("epochs 1-3 restored, training 4-5", "epochs 1-4 restored, training 5-5")
    )
    (finished,) = project.runs()
    assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")
    assert finished.data.tags["mlflow.source.git.commit"] == commit
    check_history(project.path, finished, 5)


def test_a_signal_while_the_run_is_brought_to_mlflow(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_model, "log_model", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert project.stage("train").code == 143
    (run,) = project.runs()
    assert run.info.status == "FINISHED", "its outputs and its mark are whole"
    assert ok(project.stage("train")).out.endswith("\nepochs 1-2 restored, nothing to train\n")
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    check_history(project.path, run, 2)


def test_a_finished_run_that_is_killed_when_it_is_looked_at_again_is_put_right(project, monkeypatch):
    """The run is marked as complete, but its status says KILLED: whoever comes next ends it as FINISHED."""
    ok(project.stage("train"))
    project.client().set_terminated(project.runs()[0].info.run_id, "KILLED")
    sync(monkeypatch)
    assert project.runs()[0].info.status == "FINISHED"


def sync(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["surefoot", "sync"])
    cli.main()


def test_a_divergence_keeps_the_epochs_before_it(project, monkeypatch):
    # No bias in the layers makes it safe: one good epoch, then a learning rate's worth of harm by a network that breaks
    # itself.
    (project / "breaks.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Breaks(nn.Module):\n    def __init__(self):\n       "
        " super().__init__()\n        self.register_buffer('steps', torch.zeros(()))\n\n    def forward(self,"
        " inputs):\n        self.steps += self.training\n        return inputs * float('nan') if self.steps > 15 else"
        " inputs\n\ndef build(input_shape, classes):\n    return nn.Sequential(nn.Linear(2, classes), Breaks())\n"
    )
    monkeypatch.syspath_prepend(project.path)
    set_train(project, epochs=5)
    project.edit("train.model.factory", "breaks:build")
    project.edit("train.model.arguments", "{}")
    steps = steps_per_epoch()
    epoch, step = divmod(15, steps)
    for _ in range(2):
        done = project.stage("train")
        error = done.refused()
        assert (
            f"training diverged in epoch {epoch + 1}: the loss became nan at step {step + 1}, with lr 0.1; it began in"
            " layer '1' (Breaks): " in error
        )
        assert f"the state of epoch {epoch} is kept, and as checkpoints/last.safetensors in the MLflow run" in error
        (run,) = project.runs()
        assert run.info.status == "FAILED"
        check_history(project.path, run, epoch)
        assert not paths.MODEL.exists()
    sys.modules.pop("breaks")


def steps_per_epoch():
    from surefoot.data.batch_store import open_store
    from surefoot.params.params_yaml import load_params

    return plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES)).inputs.steps_per_epoch


def test_an_mlflow_that_is_away_is_caught_up(project, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = ok(project.stage("train"))
    assert done.err.count("warning: MLflow at http://127.0.0.1:9 can't be written, going on without it: ") >= 1
    ok(project.stage("evaluate"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for _ in range(2):
        sync(monkeypatch)
    (run,) = project.runs()
    check_history(project.path, run, 2)
    assert "test/loss" in run.data.metrics
    plots = Path(run.info.artifact_uri.removeprefix("file://")) / "plots"
    assert sorted(path.name for path in plots.iterdir()) == [
        "calibration.png",
        "classes.png",
        "confusion.png",
        "precision_recall.png",
        "roc.png",
        "schedule.png",
        "training.png",
    ]
    assert run.info.status == "FINISHED"


def test_an_mlflow_store_that_was_deleted_comes_back(tracked, empty_store, monkeypatch, capfd):
    tracked.csv()
    for stage in ("prepare", "batch"):
        ok(tracked.stage(stage))
    set_train(tracked, save_every=1)
    ok(tracked.stage("train"))
    set_train(tracked, epochs=4)
    ok(tracked.stage("train"))

    def look():
        found = {}
        for run in tracked.runs():
            root = Path(run.info.artifact_uri.removeprefix("file://"))
            artifacts = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.safetensors")}
            dataset = run.inputs.dataset_inputs[0].dataset
            tags = {
                name: value
                for name, value in run.data.tags.items()
                if name not in ("surefoot.model_id", "surefoot.continues", "mlflow.note.content")
            }
            found[run.info.run_name] = (
                values(tracked.path, run),
                run.data.params,
                tags,
                artifacts,
                dataset.digest,
                dataset.profile,
                run.info.status,
            )
            assert run.outputs.model_outputs[0].model_id == run.data.tags["surefoot.model_id"]
        return found

    def links():
        long, short = sorted(tracked.runs(), key=lambda run: -int(run.data.params["train.epochs"]))
        return long.data.tags.get("surefoot.continues") == short.info.run_id

    before = look()
    assert links()
    shutil.rmtree(tracked / "mlartifacts")
    shutil.copy(empty_store, tracked / "mlflow.db")
    sync(monkeypatch)
    assert capfd.readouterr().out.count("up to date: ") == 2
    assert look() == before
    assert len(before) == 2
    assert [sorted(some[3]) for some in before.values()] != []
    assert links()
    sync(monkeypatch)
    assert look() == before


def test_a_model_that_came_from_elsewhere_is_evaluated_and_has_a_run(project):
    """By `dvc pull`, say: the trajectory store knows nothing of it."""
    ok(project.stage("train"))
    shutil.rmtree(project / ".surefoot")
    ok(project.stage("evaluate"))
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert "test/accuracy" in run.data.metrics
    check_history(project.path, run, 2)


def test_an_unfinished_run_is_left_as_it_is_by_sync(project, monkeypatch, capfd):
    set_train(project, epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(follow, "_print_epoch", lambda record, epochs: os.kill(os.getpid(), signal.SIGTERM))
        assert project.stage("train").code == 143
    sync(monkeypatch)
    assert capfd.readouterr().out.startswith("unfinished, left as it is: raw mlp ")
    assert project.runs()[0].info.status == "KILLED"


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "surefoot.stages.train"])
print(child.pid, flush=True)
child.wait()
"""


def test_a_trainer_whose_dvc_died_stops_at_the_next_segment(project):
    set_train(project, epochs=5000)
    environment = {**os.environ, "DVC_STAGE": "train", "PYTHONPATH": str(PROJECT / "src")}
    with (
        (project / "err").open("w") as err,
        subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=project.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        ) as parent,
    ):
        try:
            pid = int(parent.stdout.readline())
            assert parent.stdout.readline().startswith("training ")
            assert parent.stdout.readline().startswith("epoch ")
            parent.kill()
            parent.stdout.read()  # ends when the trainer, which has it too, ends
        finally:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    assert (project / "err").read_text() == "the dvc process that started this training is gone\nstopped by SIGHUP\n"
    assert project.runs()[0].info.status == "KILLED"


# --- With DVC ------------------------------------------------------------------------------------


def outputs(workspace):
    return (workspace / paths.MODEL).read_bytes(), (workspace / paths.HISTORY).read_bytes()


@pytest.fixture
def workspace(finished, tmp_path):
    """A project with a run of 3 epochs."""
    copy_project(finished, tmp_path / "project")
    return Workspace(tmp_path / "project")


def test_a_comment_in_what_only_looks_at_runs_trains_nothing(workspace):
    before = outputs(workspace)
    (run,) = workspace.runs()
    for name in ("tracking/find_runs", "evaluation/plots/classes"):
        text = (workspace / f"src/surefoot/{name}.py").read_text()
        (workspace / f"src/surefoot/{name}.py").write_text(f"{text}# a comment\n")
    done = workspace.dvc("repro")
    assert "epochs 1-3 restored, nothing to train" in done.out
    assert "Running stage 'evaluate'" in done.out
    assert outputs(workspace) == before
    (again,) = workspace.runs()
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    check_history(workspace.path, again, 3)
    assert [metric.step for metric in workspace.client().get_metric_history(again.info.run_id, "test/accuracy")] == [0]


def trained(workspace):
    """The runs but for the parents of sweeps."""
    return [run for run in workspace.runs() if tag_names.OF not in run.data.tags]


def test_experiments_share_the_store_of_the_repository_they_came_from(workspace):
    before = outputs(workspace)
    (short,) = workspace.runs()
    for name, setting in (("longer", "train.epochs=5"), ("lr-3", "train.lr=0.03")):
        workspace.dvc("exp", "run", "--queue", "--set-param", setting, "--name", name)
    status = run_queue(workspace, jobs=2)
    assert status.count("Success") == 2, status
    assert "\nepochs 1-3 restored, training 4-5\n" in workspace.dvc("queue", "logs", "longer").out
    assert outputs(workspace) == before
    found = {run.info.run_name: run for run in trained(workspace)}
    longer, lr = "digits lr=0.02 batch=64 epochs=5 longer", "digits lr=0.03 batch=64 lr-3"
    assert found.keys() == {short.info.run_name, longer, lr}
    assert found[longer].data.tags["surefoot.continues"] == short.info.run_id
    for name, epochs in ((longer, 5), (lr, 3)):
        assert found[name].info.status == "FINISHED"
        check_history(workspace.path, found[name], epochs)
        assert "test/accuracy" in found[name].data.metrics
    store = TrajectoryStore(workspace / ".surefoot")
    assert {run.description.name for run in store.runs().values()} == set(found)
