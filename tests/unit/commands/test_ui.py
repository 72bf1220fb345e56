"""`surefoot ui`: the port, the server and its end."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import PackageNotFoundError

import psutil
import pytest

from surefoot.base.errors import UserError
from surefoot.commands import sync, ui
from surefoot.tracking import mlflow_client, mlflow_store
from tests.helpers import PROJECT


def test_without_a_run_there_is_nothing_to_compare(here, tracked, capfd):
    assert ui.latest_page(mlflow_store.configure()).startswith("/#/experiments?")
    (here / "mlflow.db").unlink()
    assert ui.latest_page(mlflow_store.configure()).startswith("/#/experiments?")
    assert capfd.readouterr().err.startswith("note: there is no run yet")


def test_a_store_that_cannot_be_read(here):
    (here / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="can't be read"):  # no server could, either
        ui.latest_page(mlflow_store.configure())


def test_a_port_that_is_taken(tracked):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError,
            match=(
                rf"port {port} is taken by another program; \d+ is free: surefoot ui --port \d+, or make ui PORT=\d+$"
            ),
        ) as refused:
            ui.serve(port, browser=False)
    free = int(re.search(r"--port (\d+)", str(refused.value))[1])
    assert free != port
    socket.create_server(("127.0.0.1", free)).close()


def test_without_mlflows_pages_it_says_what_to_install(tracked, monkeypatch):
    def lacking(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(ui, "version", lacking)
    with pytest.raises(UserError, match=r"MLflow's pages aren't installed: .* -e '\.\[ui\]'$"):
        ui.serve(ui.free_port(), browser=False)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_no_port(tracked, port):
    with pytest.raises(UserError, match=f"--port {port}: must be from 1 to 65535"):
        ui.serve(port, browser=False)


def test_a_server_that_ends_by_itself(tracked, monkeypatch, capfd):
    monkeypatch.setattr(ui, "SERVER", [sys.executable, "-c", "import sys; print('why'); sys.exit(3)"])
    with pytest.raises(UserError, match="MLflow's server ended by itself, exit code 3; what it said is above"):
        ui.serve(ui.free_port(), browser=False)
    assert capfd.readouterr().out.endswith("\nwhy\n")


@pytest.fixture
def served(tracked):
    """`surefoot ui` in a process of its own, when its server answers; the port, the process, and the processes that are
    its.
    """
    port = ui.free_port()
    command = [sys.executable, "-m", "surefoot", "ui", "--no-browser", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    with subprocess.Popen(
        command, cwd=tracked.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield process, psutil.Process(process.pid).children(recursive=True)
        process.kill()


def test_ctrl_c_ends_it_quietly_and_wholly(served):
    process, children = served
    lines = [" ".join(child.cmdline()) for child in children]
    assert len(lines) == 3, lines  # MLflow's command, its server, and the guard that ends them when we are killed
    assert not any("jobs" in line or "huey" in line for line in lines), lines
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("MLflow UI: http://127.0.0.1:")
    assert "Traceback" not in out + err
    assert "stopped" not in out + err
    assert not psutil.wait_procs(children, timeout=30)[1]


def test_killed_it_leaves_no_server(served):
    process, children = served
    process.kill()
    process.communicate(timeout=60)
    assert not psutil.wait_procs(children, timeout=30)[1]


def test_no_browser_is_opened_without_a_terminal(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was started"))
    ui.open_later("http://127.0.0.1:5000/")


def test_runs_that_mlflow_lacks_are_brought_first(here, tracked, no_plots, empty_store, capfd, monkeypatch):
    here.csv()
    for stage in ("prepare", "batch", "train", "evaluate"):
        assert here.stage(stage).code == 0
    shutil.copy(empty_store, here / "another.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'another.db'}")
    monkeypatch.setattr(ui, "SERVER", [sys.executable, "-c", "import sys; sys.exit(3)"])
    capfd.readouterr()
    for told in (("MLflow lacks 1 run, or parts of it: these first", "up to date: "), ()):
        with pytest.raises(UserError, match="ended by itself"):
            ui.serve(ui.free_port(), browser=False)
        lines = capfd.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith(("MLflow lacks", "up to date"))] == [
            line for line in lines if line.startswith(told or "?")
        ]
        assert len(lines) == len(told) + 1, lines
        assert "/runs/" in lines[-1]
    client = mlflow_client.connect()
    (run,) = client.search_runs([client.get_experiment_by_name("surefoot").experiment_id])
    client.delete_run(run.info.run_id)
    assert sync.lacking_runs() == set(), "somebody deleted it"


def test_what_hinders_that_hinders_no_page(here, capfd, monkeypatch):
    monkeypatch.setattr(sync, "lacking_runs", lambda: {"x"})
    monkeypatch.setattr(ui, "SERVER", [sys.executable, "-c", "import sys; sys.exit(3)"])
    (here / "params.yaml").write_text("seed: [")
    with pytest.raises(UserError, match="ended by itself"):
        ui.serve(ui.free_port(), browser=False)
    assert "note: params.yaml:" in capfd.readouterr().err
