"""`surefoot ui`: the address of MLflow's page that compares the latest runs, with the charts for them, and a browser on
it.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import webbrowser
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from surefoot.base import paths, terminal
from surefoot.base.errors import Stopped, UserError
from surefoot.base.installation import install_command, is_installed
from surefoot.base.wording import without_password
from surefoot.commands import sync
from surefoot.commands.ui_page_state import WORKFLOW, compare_page_query
from surefoot.reproduction.scratch import Scratch
from surefoot.tracking import find_runs, mlflow_store

EXPERIMENTS = f"/#/experiments?{urllib.parse.urlencode(WORKFLOW)}"
SECONDS_TO_START = 60
HOST = "127.0.0.1"
SERVER = [sys.executable, "-m", "mlflow", "server"]


def main(port: int, no_browser: bool) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    serve(port, browser=not no_browser)


def serve(port: int, *, browser: bool = True) -> None:
    """Serve MLflow's pages until Ctrl-C; where the runs are on a server, say its address.

    Args:
        port: on 127.0.0.1.
        browser: open one.

    Raises:
        UserError: the port is taken; the server ends by itself.
    """
    uri = mlflow_store.configure()
    if uri.startswith("databricks"):
        terminal.print_lines(f"the runs are on the server at {uri}: open it in a browser")
        return
    served = uri.startswith(("http:", "https:"))
    if not served:
        _require_pages()
        _check_port(port)
    _bring_lacking()
    address = (without_password(uri).rstrip("/") if served else f"http://{HOST}:{port}") + latest_page(uri)
    terminal.print_lines(
        f"the runs are on the server: {address}"
        if served
        else f"MLflow UI: {address}  (up in a few seconds; Ctrl-C stops it)"
    )
    if browser:
        open_later(address)
    if not served:
        _run_server(uri, port)


def _bring_lacking() -> None:
    """Bring the runs that MLflow lacks, as after an outage. What hinders that is printed, and stops nothing else."""
    try:
        lacking = sync.lacking_runs()
        if lacking:
            terminal.print_lines(
                f"MLflow lacks {len(lacking)} run{'s' if len(lacking) > 1 else ''}, or parts of"
                f" {'them' if len(lacking) > 1 else 'it'}: these first"
            )
            sync.sync_runs(lacking)
    except UserError as error:
        terminal.print_lines(*error.args, kind="note")


def _require_pages() -> None:
    try:
        version("mlflow")
    except PackageNotFoundError:  # the pipeline runs with mlflow-skinny
        raise UserError(f"MLflow's pages aren't installed: {install_command('ui')}") from None


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: must be from 1 to 65535")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
        other = free_port()
        by_make = "" if is_installed() else f", or make ui PORT={other}"
        raise UserError(f"port {port} {why}; {other} is free: surefoot ui --port {other}{by_make}") from None


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses."""
    for port in (*range(5001, 5010), 0):
        with suppress(OSError), socket.create_server((HOST, port)) as server:
            return int(server.getsockname()[1])
    raise UserError(f"there is no free port on {HOST}")


def _run_server(uri: str, port: int) -> None:
    """Serve until we are stopped: by Ctrl-C, which is how it is meant to end, quietly."""
    command = [*SERVER, "--backend-store-uri", uri, "--registry-store-uri", uri]
    places = [
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        (paths.repository_root() / "mlartifacts").as_uri(),
        "--uvicorn-opts",
        "--log-level warning",
    ]
    # The server's jobs are for language models.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    with Scratch("ui") as scratch:
        server = scratch.start([*command, *places], Path.cwd(), settings | os.environ)
        try:
            code = scratch.finish([server])
        except Stopped as stopped:
            if stopped.signum != signal.SIGINT:
                raise
            return
    raise UserError(f"MLflow's server ended by itself, exit code {code}; what it said is above")


def comparison_page() -> str:
    """The part of the address after the server's: the latest comparison, or the run's page where there is but one.

    Raises:
        UserError: there is no store, or it can't be read.
    """
    with find_runs.reading_mlflow() as client:
        experiment = find_runs.experiment_id(client)
        runs, filtered = find_runs.latest_runs(client)
        if not experiment or not runs:
            return EXPERIMENTS
        if len(runs) == 1:
            return f"/#/experiments/{experiment}/runs/{runs[0].info.run_id}?{urllib.parse.urlencode(WORKFLOW)}"
        query = compare_page_query(client, experiment, runs, filtered)
        return f"/#/experiments/{experiment}/runs?{urllib.parse.urlencode(query)}"


def open_later(address: str) -> None:
    """Open a browser on the address once its server listens, from a process of its own; does nothing without a terminal
    and a display.
    """
    display = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if terminal.is_terminal(sys.stdout) and display:
        nothing = subprocess.DEVNULL
        subprocess.Popen(
            [sys.executable, "-m", "surefoot.commands.ui", address],
            start_new_session=True,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
        )


def _open(address: str) -> None:
    server = urllib.parse.urlsplit(address)
    port = server.port or {"http": 80, "https": 443}[server.scheme]
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        try:
            socket.create_connection((server.hostname or "", port), timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(address)
            return


def latest_page(uri: str) -> str:
    """`comparison_page`, or MLflow's list of experiments: where nothing is to compare, or the server is out of reach.

    Raises:
        UserError: the store is here and can't be read.
    """
    try:
        return comparison_page()
    except UserError as error:
        path = mlflow_store.sqlite_file(uri)
        if path and path.exists():
            raise
        terminal.print_lines(*error.args, kind="note")
        return EXPERIMENTS


if __name__ == "__main__":
    _open(sys.argv[1])
