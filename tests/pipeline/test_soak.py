"""The soak, with few rounds; `make soak` runs it in full. And what it found, one by one."""

import os
import re
import resource
import subprocess
import sys
import threading
import time

import pytest

from surefoot.base import locks
from surefoot.commands import sync
from surefoot.tracking import tracker as tracker_module
from surefoot.tracking.tracker import Tracker
from tests.helpers import PROJECT, description

ENVIRON = {
    **os.environ,
    "PYTHONPATH": str(PROJECT / "src"),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


@pytest.mark.parametrize(
    "cases", [["kill"], pytest.param(["corruption", "disk"], marks=pytest.mark.slow)], ids=" ".join
)
def test_a_short_soak_ends_right(cases):
    arguments = [word for case in cases for word in ("--case", case)]
    # Round 0 is one of one process.
    command = [sys.executable, "-m", "tests.soak", "--rounds", "1", "--first", "0", *arguments]
    ended = subprocess.run(command, cwd=PROJECT, env=ENVIRON, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rounds, right = re.search(
        r"^soak: (\d+) rounds, \d+ kills, (\d+) ended right$", ended.stdout.splitlines()[-1]
    ).groups()
    assert rounds == right != "0"


def test_an_output_that_no_space_is_left_for_is_named(tmp_path):
    code = (
        "from surefoot.base import errors, writing; from pathlib import Path; errors.run_process(lambda:"
        " writing.write_bytes(Path('reports/out'), b'-' * 9000))"
    )
    limit = (8192, 8192)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENVIRON,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: reports/out can't be written: ")
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "reports").iterdir())


def test_a_first_start_that_is_killed_while_mlflow_builds_its_tables_leaves_no_broken_store(tmp_path):
    code = "from surefoot.tracking import experiment; import sys; experiment.build_tables(sys.argv[1])"
    build = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    killed = subprocess.Popen(build, env=ENVIRON)
    beside = tmp_path / "mlflow.db.partial"
    while not (beside.exists() and beside.stat().st_size):
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "mlflow.db").exists()
    subprocess.run(build, env=ENVIRON, check=True)
    assert (tmp_path / "mlflow.db").exists()
    assert not beside.exists()


def test_a_second_writer_of_a_run_waits_for_the_first(tmp_path, monkeypatch, capfd):
    # An orphan that says KILLED must say it before the one that goes on says FINISHED.
    code = (
        "import sys, pathlib; from surefoot.base.locks import Locks\nwith Locks(pathlib.Path(sys.argv[1])).held('mlflow"
        " a'): print('held', flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], env=ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"held\n"
    opened = threading.Event()
    monkeypatch.setattr(tracker_module, "configure", lambda: opened.set() or "no-such-scheme://")
    tracker = Tracker("a", description("name"), locks.Locks(tmp_path / "lock"))
    second = threading.Thread(target=tracker.open)
    second.start()
    assert not opened.wait(0.5)
    assert f"waiting: process {first.pid} " in capfd.readouterr().out
    first.communicate(b"\n")
    second.join()
    assert opened.is_set()


@pytest.fixture
def trained(tracked):
    tracked.csv()
    for stage in ("prepare", "batch", "train"):
        assert tracked.stage(stage).code == 0
    return tracked


def test_test_metrics_that_an_outage_kept_from_mlflow_come_with_sync(trained, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "warning: MLflow at http://127.0.0.1:9" in trained.stage("evaluate").err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "test/loss" not in trained.runs()[0].data.metrics
    sync.main()
    (run,) = trained.runs()
    assert {"test/loss", "test/accuracy"} <= set(run.data.metrics)
    assert [
        len(trained.client().get_metric_history(run.info.run_id, f"test/{name}")) for name in ("loss", "accuracy")
    ] == [1, 1]


def test_evaluate_goes_on_where_what_is_remembered_of_the_run_is_damaged(trained):
    (mark,) = (trained / ".surefoot" / "runs").glob("*.json")
    mark.write_bytes(mark.read_bytes()[:-1])
    done = trained.stage("evaluate")
    assert done.code == 0, done
    assert f"warning: {mark} is damaged" in done.err
    assert "test/loss" in trained.runs()[0].data.metrics
