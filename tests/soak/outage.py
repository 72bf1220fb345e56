"""Lose the tracking server: training ends right, and what MLflow lacks is written later, once."""

import contextlib
import http.server
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.soak.workspace import OUTPUTS, Reference, Workspace, Wrong, kill_group, until

EPOCHS = 20


def run(path: Path, count: Callable[..., None]) -> None:
    """A server that is killed and started again, one that is absent, one that hangs, one that answers 500."""
    workspace = Workspace.make(path, epochs=EPOCHS)
    reference = workspace.reference(epochs=EPOCHS)

    def play(what: str, scene: Callable[["Server"], None]) -> None:
        workspace.reset()
        workspace.log.unlink(missing_ok=True)
        server = Server(workspace, path.with_name(what.split()[0]))
        wrong = None
        try:
            scene(server)
            workspace.check(reference, database=server.database)
        except Exception as error:
            wrong = error
        finally:
            server.kill()
        count("outage", what, wrong=wrong, workspace=workspace)

    play("killed in the middle of training, and started again", lambda server: _killed(workspace, server))
    for what, broken, catch_up in (
        ("absent in training and evaluation", _absent, "sync"),
        ("hanging in training and evaluation", _hanging, "sync"),
        ("refusing with 500 while training", _refusing, "evaluate"),
    ):
        play(
            f"{what}; {catch_up} catches up",
            lambda server, broken=broken, up=catch_up: _broken(workspace, server, broken, up, reference),
        )


def _killed(workspace: Workspace, server: "Server") -> None:
    server.start()
    process = workspace.start([*workspace.dvc, "repro"], environ=server.environ)
    until(
        "no epoch was trained",
        120,
        lambda: workspace.chain.is_dir() and len(list(workspace.chain.glob("*.json"))) >= EPOCHS // 3,
    )
    server.kill()
    time.sleep(0.5)
    server.start()
    if code := workspace.ended(process):
        raise Wrong(f"dvc repro ended with {code}")
    # Evaluate may have been there before the server was.
    workspace.run([workspace.python, "-m", "surefoot", "sync"], **workspace.alone, **server.environ)


def _broken(
    workspace: Workspace,
    server: "Server",
    broken: Callable[[int], AbstractContextManager[None]],
    catch_up: str,
    reference: Reference,
) -> None:
    train = [*workspace.dvc, "repro", "train"]
    with broken(server.port):
        said = workspace.run(train if catch_up == "evaluate" else [*workspace.dvc, "repro"], **server.environ)
    if "warning: MLflow at" not in said:
        raise Wrong(f"no warning says that MLflow is out of reach:\n{said}")
    workspace.check_outputs(reference, OUTPUTS[:3])
    server.start()
    if catch_up == "sync":
        workspace.run([workspace.python, "-m", "surefoot", "sync"], **workspace.alone, **server.environ)
    else:
        workspace.repro(**server.environ)


class Server:
    """An MLflow server on 127.0.0.1, with an SQLite store."""

    def __init__(self, workspace: Workspace, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.database = directory / "mlflow.db"
        self.port = _free_port()
        self.environ = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}"}
        self._artifacts = directory / "artifacts"
        self._workspace = workspace
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ["--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", str(self._artifacts)]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self._process = self._workspace.start(
            [self._workspace.python, "-m", "mlflow", "server", *where, *address],
            environ={"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        until("the MLflow server doesn't answer", 120, self._answers)

    def kill(self) -> None:
        """Kill -9 it, and whatever it started."""
        if self._process:
            kill_group(self._process.pid)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer,
        ):
            return bool(answer.status == 200)
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _absent(_port: int) -> Iterator[None]:
    yield


@contextmanager
def _hanging(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port), backlog=100):
        yield


@contextmanager
def _refusing(port: int) -> Iterator[None]:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_PUT = do_PATCH = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
