"""`surefoot verify` as a user meets it: with Git, DVC and MLflow, on a small copy of the project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from surefoot import cli
from surefoot.base import digests
from surefoot.run import record
from surefoot.run.record import read_mark
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import Done, Workspace, copy_project

DATA, MODEL = "data/raw/digits.csv", "src/networks/mlp.py"


@dataclass
class Project:
    workspace: Workspace
    temporary: Path  # where temporary files go
    run_id: str
    dirty: str = ""  # what `git diff` said when the run was made
    capfd: pytest.CaptureFixture[str] | None = None

    def verify(self, *arguments, trusted=True, **environment):
        """`surefoot verify` in the workspace, in this process, of a run with a patch; it must leave no trace."""
        before = self.traces()
        self.capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.workspace.path)
            patch.setattr(sys, "argv", ["surefoot", "verify", *arguments, *["--trust-recorded-code"] * trusted])
            patch.setattr(tempfile, "tempdir", str(self.temporary))
            for name, value in {
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.workspace.path}/mlflow.db",
                **environment,
            }.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as stop:
                cli.main()
        assert self.traces() == before
        done = Done(stop.value.code, *self.capfd.readouterr())
        assert "Traceback" not in done.out + done.err, done
        return done

    def traces(self):
        """All files in the workspace but MLflow's, Git's, DVC's and the store's among them; and what lies in TMPDIR."""
        root = self.workspace.path
        here = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
        found = {
            name: path.read_bytes() if path.is_file() else b""
            for name, path in here.items()
            if not name.startswith(("mlflow.db", "mlartifacts/"))
        }
        # MLflow's own lock, which any use of it leaves.
        return found, [path.name for path in self.temporary.iterdir() if not path.name.startswith("db_init_lock-")]

    def tags(self):
        tags = self.workspace.client().get_run(self.run_id).data.tags
        return tuple(tags.get(name) for name in ("surefoot.verify", "surefoot.verify.scope", "surefoot.verify.reason"))

    def tag(self, name, value):
        self.workspace.client().set_tag(self.run_id, name, value)

    def artifact(self, path):
        return self.workspace.artifact(self.workspace.client().get_run(self.run_id), path)


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """A run that was made with a param edited and not committed; later commits changed the network's code and more."""
    workspace = Workspace(tmp_path_factory.mktemp("verify") / "project")
    copy_project(finished, workspace.path)
    (run,) = workspace.runs()
    workspace.git("reset", "--quiet", "--mixed", "HEAD~1")
    dirty = workspace.git("diff")
    workspace.git("checkout", "--quiet", "params.yaml")
    source = (workspace / MODEL).read_text()
    change(workspace, MODEL, source.replace("nn.ReLU", "nn.Tanh"))
    return Project(workspace, tmp_path_factory.mktemp("temporary"), run.info.run_id, dirty)


@pytest.fixture
def project(made, capfd):
    made.capfd = capfd
    return made


def change(workspace, name, text):
    """Commit another text of a file; returns the commit."""
    assert (workspace / name).read_text() != text
    (workspace / name).write_text(text)
    workspace.git("commit", "--quiet", "--message=a change", name)
    return workspace.git("rev-parse", "HEAD").strip()


def edit_as_recorded(workspace):
    """What wasn't committed when the run was made."""
    workspace.edit("train.lr", "0.02")
    workspace.edit("train.save_every", "2")


@pytest.fixture
def tampered(project):
    """Makes the record of the run say that it was made at another commit, where a file is another; puts
    it right again.
    """
    workspace = project.workspace
    head = workspace.git("rev-parse", "HEAD").strip()
    tags = {
        name: value
        for name, value in workspace.client().get_run(project.run_id).data.tags.items()
        if name.startswith(("surefoot.git", "mlflow.source"))
    }

    def tamper(name, old, new):
        # On top of the commit that the run was made at.
        workspace.git("checkout", "--quiet", tags["mlflow.source.git.commit"])
        edit_as_recorded(workspace)
        workspace.git("commit", "--quiet", "--all", "--message=lr")
        text = (workspace / name).read_text()
        assert old in text
        commit = change(workspace, name, text.replace(old, new, 1))
        workspace.git("checkout", "--quiet", "main")
        project.tag("mlflow.source.git.commit", commit)
        project.tag("surefoot.git.dirty", "false")

    yield tamper
    workspace.git("reset", "--quiet", "--hard", head)
    for name, value in tags.items():
        project.tag(name, value)


def test_a_run_of_a_dirty_tree_is_identical_though_the_code_was_changed_later(project):
    assert "lr: 0.02" in project.dirty
    with (project.workspace / MODEL).open("a") as file:
        file.write("this isn't Python\n")  # what isn't committed now counts as little
    done = project.verify()
    project.workspace.git("checkout", "--quiet", MODEL)
    assert done.code == 0, done
    table = [line.split() for line in done.out.splitlines() if line.endswith(" same")]
    assert [line[0] for line in table] == [
        "params",
        "data",
        "epochs",
        "curves",
        "model",
        "model",
        *(f"test/{name}" for name in ("accuracy", "ece", "f1_macro", "loss", "precision_macro", "recall_macro")),
        "test",
    ]
    last = done.out.splitlines()[-1]
    assert (
        last
        == "identical: params, data, epochs 1-3, curves in MLflow, model, model in MLflow, test/accuracy, test/ece,"
        " test/f1_macro, test/loss, test/precision_macro, test/recall_macro, test intervals; every bit of them"
    )
    assert project.tags() == ("identical", "run", last.removeprefix("identical: "))
    assert done.err == ""
    # Nothing of the places that are gone when it has ended.
    assert not any(line.startswith(("plots ", "model   models", "MLflow ")) for line in done.out.splitlines())


def test_code_of_elsewhere_is_run_only_where_it_is_trusted(project):
    asked = (
        "cannot say: to make it again, code would run that this repository's history doesn't hold, and it could do all"
        " that you can:"
    )
    done = project.verify(trusted=False)
    assert (done.code, asked in done.out, "Running stage" in done.out) == (3, True, False), done
    assert (
        "its uncommitted changes, source/uncommitted.patch in MLflow, to params.yaml\n--trust-recorded-code runs it"
        in done.out
    )
    # A commit that is in the repository, but of no branch.
    workspace = project.workspace
    tags = dict(workspace.client().get_run(project.run_id).data.tags)
    loose = workspace.git("commit-tree", "-m", "loose", "-p", "HEAD", "HEAD^{tree}").strip()
    for commit, said in (
        (loose, f"its commit {loose}, which no branch or tag here holds"),
        ("HEAD", "is no commit's name: HEAD"),
        ("--all", "no commit's name: --all"),
    ):
        project.tag("mlflow.source.git.commit", commit)
        done = project.verify(trusted=False)
        project.tag("mlflow.source.git.commit", tags["mlflow.source.git.commit"])
        assert (done.code, said in done.out) == (3, True), done


def test_requirements_with_options_are_named_and_refused(project):
    recorded = project.artifact("environment/requirements.txt")
    before = recorded.read_text()
    recorded.write_text(before + "-e git+https://127.0.0.1:9/evil#egg=evil==1\n")
    try:
        done = project.verify("--environment")
        assert done.code == 3, done
        assert (
            "lines that aren't name==version, which are never handed to pip: -e"
            " git+https://127.0.0.1:9/evil#egg=evil==1" in done.out
        )
        done = project.verify()
        assert (done.code, "has lines that aren't name==version: -e git+https" in done.out) == (3, True), done
        recorded.write_text(before.replace("tqdm==", "tqdm==1.") + "evil==1\n")
        done = project.verify("--environment", "--epochs", "1", trusted=False)
        assert done.code == 3, done
    finally:
        recorded.write_text(before)


def test_some_epochs(project):
    done = project.verify(project.run_id, "--epochs", "2-3")
    assert (done.code, done.out.count("trained again")) == (0, 2), done
    assert done.out.endswith("identical: params, epochs 2-3; every bit of them\n")
    assert project.tags()[:2] == ("identical", "epochs 2-3")


@pytest.mark.slow
def test_a_sample(project):
    done = project.verify(project.run_id, "--sample", "2")
    assert (done.code, done.out.count("trained again")) == (0, 2), done
    assert project.tags()[1].startswith("epochs ")


@pytest.mark.parametrize(
    ("name", "old", "new", "cause"),
    [
        (MODEL, "nn.ReLU", "nn.Tanh", "the model's code, networks.mlp (recorded "),
        pytest.param(
            "params.yaml", "lr: 0.02", "lr: 0.03", "train.lr (recorded 0.02, now 0.03)", marks=pytest.mark.slow
        ),
        pytest.param("params.yaml", "threads: 1", "threads: 2", "threads (recorded 1, now 2)", marks=pytest.mark.slow),
        pytest.param(
            "src/surefoot/training/loop.py",
            "import math",
            "import math, cmath",
            "Surefoot's own code, loop (recorded ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_commit_is_told_by_what_differs_there(project, tampered, name, old, new, cause):
    tampered(name, old, new)
    done = project.verify(project.run_id, "--epochs", "2")
    assert done.code == 1, done
    said = done.out[done.out.index("\ndiffers: ") + 1 :].splitlines()
    assert said[0].startswith(f"differs: {cause}")
    assert len(said) == 1, done
    assert project.tags()[0] == "differs"
    assert project.tags()[2].startswith(cause)


@pytest.mark.slow
def test_a_byte_of_the_data(project, tampered, tmp_path):
    """The batches are made again, as this workspace's are not the recorded ones either."""
    row = (project.workspace / DATA).read_text().splitlines()[1]
    tampered(DATA, row, row.replace("5.0,", "6.0,", 1) if "5.0," in row else row.replace("5,", "6,", 1))
    batches = project.workspace / "data/batches"
    batches.rename(tmp_path / "batches")
    try:
        done = project.verify(project.run_id, "--epochs", "2")
    finally:
        (tmp_path / "batches").rename(batches)
    assert done.code == 3, done
    assert "cannot say: the batches that come of its data are others than were recorded" in done.out


@pytest.mark.slow
def test_a_byte_of_the_data_in_the_whole_run(project, tampered):
    row = (project.workspace / DATA).read_text().splitlines()[1]
    tampered(DATA, row, row.replace("5.0,", "6.0,", 1) if "5.0," in row else row.replace("5,", "6,", 1))
    done = project.verify(project.run_id)
    assert done.code == 1, done
    said = done.out[done.out.index("\ndiffers: ") + 1 :].splitlines()
    assert said[0].startswith(f"differs: the raw data, {DATA} (recorded MD5 ")
    assert any(
        line.startswith("epoch 1 is the first that differs: model.0.weight differs in ") or ": model." in line
        for line in said
    ), done


def test_other_packages_are_named(project):
    recorded = project.artifact("environment/requirements.txt")
    before = recorded.read_text()
    recorded.write_text(before.replace("\ntqdm==", "\ntqdm==1."))
    try:
        done = project.verify(project.run_id)
        assert done.code == 3, done
        assert "cannot say: another version of tqdm (recorded 1." in done.out
        assert "--anyway" in done.out
        done = project.verify(project.run_id, "--anyway", "--epochs", "3")
        assert done.code == 0, done
    finally:
        recorded.write_text(before)


def test_what_cannot_be_said_and_why(project):
    tags = project.workspace.client().get_run(project.run_id).data.tags
    commit = "mlflow.source.git.commit"
    for name, value, reason in [
        (commit, "0" * 40, f"cannot say: its commit {'0' * 40} isn't in this repository; `git fetch` it"),
        (commit, "", "cannot say: it was made outside of Git, so its code isn't recorded"),
        (
            "surefoot.git.patch",
            "0" * 64,
            "cannot say: its uncommitted changes, source/uncommitted.patch in MLflow, aren't those of its commit",
        ),
    ]:
        project.tag(name, value)
        done = project.verify(project.run_id)
        project.tag(name, tags[name])
        assert done.code == 3, done
        assert reason in done.out, done
        assert project.tags()[0] == "cannot say"
    account = project.artifact("trajectory.json")
    account.rename(account.with_name("away"))
    done = project.verify(project.run_id)
    assert (done.code, "cannot say: it has no trajectory.json" in done.out) == (3, True), done
    account.write_text("{")
    done = project.verify(project.run_id)
    account.with_name("away").rename(account)
    assert (done.code, "cannot say: its trajectory.json in MLflow is damaged: " in done.out) == (3, True), done


def test_the_account_of_an_older_surefoot(project):
    """Which knew no budgets, no schedule that follows a metric, no start."""
    path = project.artifact("trajectory.json")
    written = path.read_bytes()
    account = json.loads(written)
    for name in ("incomplete", "chosen", "start"):
        del account[name]
    path.write_bytes(digests.canonical_json(account))
    done = project.verify(project.run_id, "--epochs", "2")
    path.write_bytes(written)
    assert (done.code, "identical" in done.out) == (0, True), done
    (run,) = TrajectoryStore(project.workspace / ".surefoot").runs().values()
    kept = {*account, "description", "weights", "epoch_keys", "last", "best"}
    older = read_mark(run.identity, digests.canonical_json({n: v for n, v in run.plain().items() if n in kept}))
    made = record.make_account(older, TrajectoryStore(project.workspace / ".surefoot"))
    assert ([epoch.plain() for epoch in made.epochs], made.incomplete) == (account["epochs"], None)


def test_files_that_were_left_out(project):
    project.tag("surefoot.git.left_out", "data/raw/big.csv")
    done = project.verify(project.run_id)
    project.tag("surefoot.git.left_out", "")
    assert (done.code, "weren't in Git were too large to be recorded: data/raw/big.csv\n" in done.out) == (
        3,
        True,
    ), done


def test_a_state_that_is_gone(project):
    store = project.workspace / ".surefoot"
    store.rename(store.with_name("elsewhere"))
    try:
        done = project.verify(project.run_id, "--epochs", "3")
        assert done.code == 3, done
        assert "cannot say: the state before epoch 3 isn't stored here" in done.out
        assert "no run was made here yet" in project.verify().refused()
    finally:
        store.with_name("elsewhere").rename(store)


def test_which_run(project):
    client, run = project.workspace.client(), project.workspace.client().get_run(project.run_id)
    assert "there is no run 'other' in MLflow" in project.verify("other").refused()
    assert "there is no run '" + "0" * 32 in project.verify("0" * 32).refused()
    assert "no run" in project.verify('it\'s "quoted"').refused()
    assert (
        "--epochs 3-2: must be A-B, or A, from 1 to 3" in project.verify(run.info.run_name, "--epochs", "3-2").refused()
    )
    assert "--sample 0: must be at least 1" in project.verify("--sample", "0").refused()
    assert "give one of them" in project.verify("--sample", "1", "--epochs", "1").refused()
    twin = client.create_run(run.info.experiment_id, run_name=run.info.run_name, tags={"DVC_EXP_NAME": "an-experiment"})
    try:
        error = project.verify(run.info.run_name).refused()
        assert f"2 runs are called {run.info.run_name!r}; give the id of one: " in error
        assert project.run_id in error
        done = project.verify("an-experiment")
        assert (
            done.code,
            "cannot say: it has no trajectory.json, which says what to compare with: it is RUNNING" in done.out,
        ) == (3, True), done
    finally:
        client.delete_run(twin.info.run_id)
    assert (
        "doesn't exist; `make repro` makes one"
        in project.verify(MLFLOW_TRACKING_URI="sqlite:////nowhere/mlflow.db").refused()
    )
    assert (
        "can't be read"
        in project.verify("x", MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0").refused()
    )


def processes(where):
    """Processes that work in a directory or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = (process / "cmdline").read_bytes().decode(errors="replace") + str((process / "cwd").readlink())
        except OSError:
            continue
        if str(where) in about and process.name != str(os.getpid()):
            found.append(about)
    return found


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGKILL, -9),
    ],
)
def test_stopped_half_way(project, number, code):
    before, tags = project.traces(), project.tags()
    command = [".venv/bin/python", "-m", "surefoot", "verify", project.run_id, "--trust-recorded-code"]
    environment = project.workspace.environment(
        PYTHONPATH="src", PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(project.temporary)
    )
    with subprocess.Popen(
        command, cwd=project.workspace.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("training "):  # DVC is at work, and a stage that has just begun
                break
        assert len(processes(project.temporary)) > 2
        process.send_signal(number)
        assert process.wait() == code
        assert process.stderr.read() == (f"stopped by {signal.Signals(number).name}\n" if code > 0 else "")
    until = time.monotonic() + 10
    while processes(project.temporary) or project.traces() != before:
        assert time.monotonic() < until, processes(project.temporary)
        time.sleep(0.1)
    assert project.tags() == tags


@pytest.mark.slow
def test_a_second_clone_with_its_raw_data_in_a_dvc_remote(project, tmp_path):
    """The batches are made again there; the workspace of the clone has neither data nor states nor
    DVC's directories.
    """
    workspace = project.workspace
    workspace.git(
        "checkout",
        "--quiet",
        "-b",
        "data-in-dvc",
        workspace.client().get_run(project.run_id).data.tags["mlflow.source.git.commit"],
    )
    edit_as_recorded(workspace)
    workspace.git("rm", "--quiet", "--cached", DATA)
    workspace.dvc("add", DATA)
    workspace.dvc("remote", "add", "--default", "away", str(Path("..") / "remote"))  # relative, as people do
    workspace.dvc("push", f"{DATA}.dvc")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=data in DVC")
    commit = workspace.git("rev-parse", "HEAD").strip()
    clone = Workspace(workspace.path.with_name("clone"))
    workspace.git("clone", "--quiet", ".", str(clone.path))
    (clone / ".venv").symlink_to((workspace / ".venv").resolve())
    other = Project(clone, project.temporary, project.run_id, capfd=project.capfd)
    assert not (clone / DATA).exists()
    project.tag("mlflow.source.git.commit", commit)
    project.tag("surefoot.git.dirty", "false")
    uri = f"sqlite:///{workspace / 'mlflow.db'}"
    done = other.verify(project.run_id, "--epochs", "1", MLFLOW_TRACKING_URI=uri)
    assert done.code == 0, done
    shutil.rmtree(workspace.path.with_name("remote"))
    done = other.verify(project.run_id, "--epochs", "1", MLFLOW_TRACKING_URI=uri)
    assert done.code == 3, done
    assert f"cannot say: its data is neither in DVC's cache nor in a remote: {DATA}.dvc\n" in done.out
