"""What the tests share: pinned numerics, a clean environment, and a small copy of the project to run."""

import os
import shutil
import signal
import subprocess

import pytest
from hypothesis import settings

from surefoot.run import start_tracking
from surefoot.training.numerics import PROFILES
from tests import packaged
from tests.helpers import Here, TrackingThread, made_once, make_workspace, mlflow_client

# Torch reads these once, when it is imported; tests/unit/training/conftest.py checks that nobody was faster.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE"}
for _name in [
    name
    for name in os.environ
    if name.startswith(("SUREFOOT_", "MLFLOW_", "DVC_", "GIT_", "PYTHON", "MKL_", "OMP_", "ONEDNN_", "DNNL_"))
]:
    del os.environ[_name]  # what the person or hook that runs the tests has set
os.environ |= THREADS | {name: value for name, value in PROFILES["portable"].items() if value is not None}
os.environ |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
os.environ |= {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Tester"), ("EMAIL", "tester@example.org"))
}
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
}

signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` hands down that it is ignored
settings.register_profile("surefoot", deadline=None, derandomize=True, database=None)
settings.load_profile("surefoot")


@pytest.fixture(scope="session", autouse=True)
def _dvc_directories(tmp_path_factory):
    """DVC's machine-wide places, under tmp: a test neither sees nor changes the user's."""
    here = tmp_path_factory.mktemp("dvc")
    for kind in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG"):
        os.environ[f"DVC_{kind}_DIR"] = str(here / kind.lower())


@pytest.fixture
def workspace(tmp_path):
    """A small copy of the project, committed, to run stages and DVC in."""
    return make_workspace(tmp_path / "project")


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory):
    """Where that lies which is made once, whatever the number of processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "of_all_workers"


@pytest.fixture(scope="session")
def empty_store(of_all_workers):
    """An SQLite store that holds nothing but its schema, which takes MLflow seconds to build."""

    def make(path):
        path.mkdir()
        mlflow_client(path).search_experiments()

    return made_once(of_all_workers, "empty_store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def finished(of_all_workers):
    """A project in which the pipeline was run, of params that weren't committed; only to be copied.

    They were committed with dvc.lock, later. What DVC printed lies beside it.
    """

    def make(path):
        workspace = make_workspace(path)
        workspace.edit("train.lr", "0.02")
        workspace.edit("train.save_every", "2")
        done = workspace.dvc("repro")
        for name, text in (("out", done.out), ("err", done.err)):
            path.with_name(f"finished.{name}").write_text(text)
        workspace.git("add", "params.yaml", "dvc.lock")
        workspace.git("commit", "--quiet", "--message=run")

    return made_once(of_all_workers, "finished", make)


@pytest.fixture(scope="session")
def dist(of_all_workers):
    """The directory of the wheel and the source distribution."""
    return made_once(of_all_workers, "dist", packaged.build) / "dist"


@pytest.fixture(scope="session")
def wheel_python(dist, of_all_workers):
    """The Python of an environment that has Surefoot as a package."""
    made_once(of_all_workers, "installed", lambda path: packaged.installed(*dist.glob("*.whl"), path))
    return of_all_workers / "installed/bin/python"


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with an empty bucket, which this process and its children talk to."""
    from tests.s3_server import s3_server

    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def no_plots(monkeypatch):
    """evaluate draws nothing, which takes it half of its time."""
    monkeypatch.setattr("surefoot.evaluation.reports.draw_plots", lambda *_: {"training.png": b"drawn elsewhere"})


@pytest.fixture(autouse=True)
def keep_process():
    """Leave signal handlers and environment as they were, whatever a stage does to its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    environment = dict(os.environ)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def here(tmp_path, monkeypatch, capfd, keep_process):
    """An empty directory with a params.yaml, to run stages in within this process.

    A thread writes to MLflow, as the process that does otherwise would import it anew each time, for seconds.
    """
    monkeypatch.setattr(start_tracking, "start_process", TrackingThread)
    monkeypatch.chdir(tmp_path)
    return Here(tmp_path, capfd)


@pytest.fixture
def tracked(here, empty_store):
    """The same with an MLflow store and a commit, for train and evaluate.

    Git ignores all files, so none is recorded as uncommitted.
    """
    shutil.copy(empty_store, here / "mlflow.db")
    subprocess.run(["git", "init", "--quiet"], check=True)
    (here / ".git" / "info" / "exclude").write_text("*\n")
    subprocess.run(["git", "commit", "--quiet", "--allow-empty", "--message", "empty"], check=True)
    return here
