"""docs/server.md as it stands: MLflow with a PostgreSQL store, served artifacts and a login, and two trainers that log
at once.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import which

import pytest

from tests.helpers import PROJECT, Workspace, make_workspace

pytestmark = pytest.mark.slow

PAGE = (PROJECT / "docs/server.md").read_text()
SECONDS = 120
EPOCHS = 4


def block(language, containing):
    (found,) = [
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        if containing in text
    ]
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for(ready, process, log):
    end = time.monotonic() + SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{process.args[0]} doesn't start:\n{log.read_text()}")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def postgres():
    """The port of a PostgreSQL server, with the role and the databases that the page makes."""
    binaries = (
        [Path(which("postgres")).resolve().parent]
        if which("postgres")
        else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    )
    if not binaries:
        pytest.skip("no PostgreSQL: postgres isn't installed; on Debian: apt-get install postgresql")
    psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed: make setup-dev")
    # PostgreSQL refuses to run as root. Its user must reach the directory, which pytest's are closed to.
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    here = Path(tempfile.mkdtemp(prefix="surefoot-postgres-"))
    log = here / "log"
    try:
        (here / "password").write_text("root-password")
        if user:
            shutil.chown(here, "postgres", "postgres")
            shutil.chown(here / "password", "postgres")
        initdb = [
            binaries[-1] / "initdb",
            "--pgdata",
            here / "data",
            "--username",
            "postgres",
            "--auth",
            "scram-sha-256",
            "--pwfile",
            here / "password",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, cwd=here, **user)
        port = free_port()
        command = [binaries[-1] / "postgres", "-D", here / "data", "-h", "127.0.0.1", "-p", str(port), "-k", here, "-F"]
        with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=here, **user) as server:

            def connect():  # `autocommit`, as no database is made in a transaction
                return psycopg.connect(
                    host="127.0.0.1",
                    port=port,
                    user="postgres",
                    password="root-password",
                    dbname="postgres",
                    autocommit=True,
                )

            def ready():
                try:
                    connect().close()
                except psycopg.OperationalError:
                    return False
                return True

            try:
                wait_for(ready, server, log)
                connection = connect()
                with connection.cursor() as cursor:
                    cursor.execute(re.search(r'psql -c "(.*)"', block("sh", "createdb"))[1])
                    for name in re.findall(r"createdb --owner mlflow (\w+)", block("sh", "createdb")):
                        cursor.execute(f"CREATE DATABASE {name} OWNER mlflow")
                connection.close()
                yield port
            finally:
                server.terminate()
    finally:
        shutil.rmtree(here, ignore_errors=True)


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """The address of the tracking server, and the logins of two people."""
    pytest.importorskip("flask_wtf", reason="flask-wtf, which MLflow's login needs, isn't installed: make setup-dev")
    here = tmp_path_factory.mktemp("server")
    port = free_port()

    def filled(text):
        return (
            text.replace(":5432/", f":{postgres}/")
            .replace("--port 5000", f"--port {port}")
            .replace("SECRET-KEY", "0123456789abcdef" * 4)
        )

    (here / "users.ini").write_text(filled(block("ini", "admin_username")))
    lines = filled(block("sh", "mlflow server --app-name")).splitlines()
    environment = (
        os.environ
        | dict(line.removeprefix("export ").split("=", 1) for line in lines[:-1])
        | {"PYTHONWARNINGS": "ignore"}
    )
    command = [sys.executable, "-m", *shlex.split(lines[-1])]
    log, address = here / "log", f"http://127.0.0.1:{port}"

    def ready():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    with (
        log.open("w") as file,
        subprocess.Popen(
            command, cwd=here, env=environment, stdout=file, stderr=file, start_new_session=True
        ) as process,
    ):
        try:
            wait_for(ready, process, log)
            with pytest.MonkeyPatch.context() as patch:
                for name, value in login("admin", "ADMIN-PASSWORD").items():
                    patch.setenv(name, value)
                source = block("python", "create_user").replace("http://127.0.0.1:5000", address)
                exec(source, {})  # makes anna
                exec(source.replace("anna", "bela"), {})
            yield address
        finally:
            process.terminate()


def login(name, password="A-LONG-PASSWORD"):
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    """The workspaces of two trainers who ran at once against the server, and what they said."""
    here = tmp_path_factory.mktemp("trainers")
    first = make_workspace(here / "0.01")
    first.edit("train.epochs", str(EPOCHS))
    for stage in ("prepare", "batch"):
        first.stage(stage)
    shutil.copytree(first.path, here / "0.05", symlinks=True)
    second = Workspace(here / "0.05")
    second.edit("train.lr", "0.05")
    processes = []
    for workspace, name in ((first, "anna"), (second, "bela")):
        environment = {
            "MLFLOW_TRACKING_URI": server,
            **login(name),
            "PYTHONPATH": "src",
            "DVC_ROOT": str(workspace.path),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        }
        command = [*workspace.stage_command("train"), "&&", *workspace.stage_command("evaluate")]
        processes.append(
            subprocess.Popen(
                " ".join(command),
                shell=True,
                cwd=workspace.path,
                env=os.environ | environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return {"0.01": first, "0.05": second}, said


@pytest.fixture
def client(server, monkeypatch):
    for name, value in login("anna").items():
        monkeypatch.setenv(name, value)
    from mlflow import MlflowClient

    return MlflowClient(server)


def runs_of(client):
    experiment = client.get_experiment_by_name("surefoot")
    return {run.data.params["train.lr"]: run for run in client.search_runs([experiment.experiment_id])}, experiment


def test_two_trainers_at_once_leave_two_whole_runs(trained, client):
    workspaces, said = trained
    assert not any("warning: MLflow" in text for text in said), said
    runs, experiment = runs_of(client)
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert runs.keys() == workspaces.keys()
    for lr, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags["surefoot.complete"] == "true"
        rows = [line.split(",") for line in (workspaces[lr] / "reports/history.csv").read_text().splitlines()]
        for column, name in enumerate(rows[0]):
            if name in ("train/loss", "validation/loss", "validation/accuracy", "lr"):
                logged = client.get_metric_history(run.info.run_id, name)
                assert sorted((metric.step, metric.value) for metric in logged) == [
                    (int(row[0]), float(row[column])) for row in rows[1:]
                ], name
        assert "test/accuracy" in run.data.metrics
        assert f"surefoot verify {run.info.run_id}" in run.data.tags["mlflow.note.content"]


def test_artifacts_go_through_the_server(trained, client, server, monkeypatch, tmp_path):
    workspaces, _ = trained
    runs, _ = runs_of(client)
    for lr, run in runs.items():
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        (dataset,) = run.inputs.dataset_inputs
        model = client.get_logged_model(run.data.tags["surefoot.model_id"])
        of_model = {metric.key: metric for metric in model.metrics}
        assert of_model["test/accuracy"].value == run.data.metrics["test/accuracy"]
        assert of_model["test/accuracy"].dataset_digest == dataset.dataset.digest
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        import mlflow

        mlflow.set_tracking_uri(server)
        try:
            there = mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(tmp_path / lr))
        finally:
            mlflow.set_tracking_uri(None)
        (weights,) = Path(there).rglob("model.safetensors")
        assert weights.read_bytes() == (workspaces[lr] / "models/model.safetensors").read_bytes()


def test_nobody_reads_without_a_login(trained, server):
    import requests

    for auth in (None, ("anna", "wrong"), ("admin", "password1234")):
        assert (
            requests.get(
                f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=surefoot", auth=auth, timeout=60
            ).status_code
            == 401
        )


def test_the_commands_work_there(trained, server):
    workspaces, _ = trained
    at = {"MLFLOW_TRACKING_URI": server, **login("bela"), "PYTHONPATH": "src"}
    done = workspaces["0.05"].run(".venv/bin/python", "-m", "surefoot", "ui", "--no-browser", **at)
    assert done.out.startswith(f"the runs are on the server: {server}/#/experiments/")
    assert "viewStateShareKey=surefoot-" in done.out
    assert "PASSWORD" not in done.out + done.err
    lines = [
        next(
            line
            for line in workspace.run(".venv/bin/python", "-m", "surefoot", "store", **at).out.splitlines()
            if " mlp " in line
        )
        for workspace in workspaces.values()
    ]
    done = workspaces["0.05"].run(
        ".venv/bin/python",
        "-m",
        "surefoot",
        "compare",
        *(line.split()[0] for line in lines),
        **at,
    )
    assert re.search(r"^train.lr +0.01 +0.05$", done.out, re.MULTILINE)
    assert (workspaces["0.05"] / ".surefoot/compare.png").is_file()
