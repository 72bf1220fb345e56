"""`surefoot ui`: the address of MLflow's page that compares the latest runs, with the charts for them, and a browser on
it.
"""

import base64
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import webbrowser
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.base import digests, paths, terminal
from surefoot.base.errors import Stopped, UserError
from surefoot.commands import option, sync
from surefoot.reproduction.scratch import Scratch
from surefoot.run.page import SHOWN, differing_params
from surefoot.tracking import find_runs, mlflow_client, tag_names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# an experiment's tag: charts and filter, as "Saved views" in MLflow's own page writes them
VIEW = "mlflow.sharedViewState."
# By which runs are compared: the first that they have.
MEASURES = ("test/accuracy", "test/r2", "test/rmse", "test/mae", "test/loss", "validation/accuracy", "validation/loss")
CURVES = {
    "validation/loss": "log",
    "train/loss": "log",
    "validation/accuracy": "linear",
    "lr": "linear",
    "gradient_norm": "log",
}  # over epochs, and the axis
WORKFLOW = {"workflowType": "machine_learning"}  # without it MLflow opens its pages for language models
EXPERIMENTS = f"/#/experiments?{urllib.parse.urlencode(WORKFLOW)}"
SECONDS_TO_START = 60
COLUMNS = 12  # params in MLflow's list
HOST = "127.0.0.1"
SERVER = [sys.executable, "-m", "mlflow", "server"]


@option("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)")
@option("--no-browser", action="store_true", help="print the address alone")
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
    uri = mlflow_client.configure()
    if uri.startswith("databricks"):
        terminal.say(f"the runs are on the server at {uri}: open it in a browser")
        return
    served = uri.startswith(("http:", "https:"))
    if not served:
        _check_port(port)
    _bring_lacking()
    address = (mlflow_client.without_password(uri).rstrip("/") if served else f"http://{HOST}:{port}") + latest_page(
        uri
    )
    terminal.say(
        f"the runs are on the server: {address}"
        if served
        else f"MLflow UI: {address}  (up in a few seconds; Ctrl-C stops it)"
    )
    if browser:
        open_later(address)
    if not served:
        _run_server(uri, port)


def _bring_lacking() -> None:
    """Bring the runs that MLflow lacks, as after an outage; what hinders that is told, and hinders nothing else."""
    try:
        lacking = sync.lacking()
        if lacking:
            terminal.say(
                f"MLflow lacks {len(lacking)} run{'s' if len(lacking) > 1 else ''}, or parts of"
                f" {'them' if len(lacking) > 1 else 'it'}: these first"
            )
            sync.sync(lacking)
    except UserError as error:
        terminal.say(*error.args, kind="note")


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: must be from 1 to 65535")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
        other = free_port()
        raise UserError(
            f"port {port} {why}; {other} is free: surefoot ui --port {other}, or make ui PORT={other}"
        ) from None


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
        (paths.root() / "mlartifacts").as_uri(),
        "--uvicorn-opts",
        "--log-level warning",
    ]
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }  # its jobs are for language models
    with Scratch("ui") as scratch:
        server = scratch.start([*command, *places], Path.cwd(), settings | os.environ)
        try:
            code = scratch.finish([server])
        except Stopped as stopped:
            if stopped.signum != signal.SIGINT:
                raise
            return
    raise UserError(f"MLflow's server ended by itself, exit code {code}; what it said is above")


def page() -> str:
    """The part of the address after the server's: the latest comparison, or the run's page where there is but one.

    Raises:
        UserError: there is no store, or it can't be read.
    """
    with find_runs.reading() as client:
        experiment = find_runs.experiment_id(client)
        runs, filtered = find_runs.latest_runs(client)
        if not experiment or not runs:
            return EXPERIMENTS
        if len(runs) == 1:
            return f"/#/experiments/{experiment}/runs/{runs[0].info.run_id}?{urllib.parse.urlencode(WORKFLOW)}"
        return f"/#/experiments/{experiment}/runs?{urllib.parse.urlencode(_view(client, experiment, runs, filtered))}"


def _view(client: "MlflowClient", experiment: str, runs: "list[Run]", filtered: str) -> dict[str, str]:
    """The query that opens the charts of these runs; they are saved as a tag of the experiment."""
    sweep = runs[0].data.tags.get(tag_names.SWEEP)
    state = charts(runs, filtered)
    key = f"surefoot-{digests.sha256((sweep or 'latest').encode())[:16]}"
    text = f"deflate;{base64.b64encode(zlib.compress(digests.canonical_json(state))).decode()}"
    now = time.time_ns() // 1_000_000
    shown = {"compareRunsMode": "CHART", **WORKFLOW}
    try:
        if _saved(client.get_experiment(experiment).tags.get(VIEW + key, "")) != text:
            name = f"Sweep {sweep}" if sweep else "Latest runs"
            client.set_experiment_tag(
                experiment, VIEW + key, json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": text})
            )
    except mlflow_client.Refused:  # a server on which one may read alone: MLflow's own choice of charts
        return shown | {"searchFilter": filtered}
    return shown | {"viewStateShareKey": key}


def _saved(view: str) -> Any:
    """The state in a saved view; None where that is none."""
    try:
        found = json.loads(view)
    except (ValueError, RecursionError):
        return None
    return found.get("state") if isinstance(found, dict) else None


def charts(runs: "list[Run]", filtered: str) -> dict[str, Any]:
    """The state of MLflow's page for these runs: what differs, what came of it, and the curves; the other metrics in
    folded sections.
    """
    metrics = {
        name for run in runs for name in run.data.metrics if not name.startswith("system/")
    }  # those have a section of MLflow's own
    measure = next((name for name in MEASURES if name in metrics), None)
    params = differing_params([run.data.params for run in runs])
    numbers = [name for name in params if all(_is_number(run.data.params.get(name, "")) for run in runs)]
    cards: list[dict[str, Any]] = []

    def card(section: str, kind: str, title: str, **settings: Any) -> None:
        common = {
            "type": kind,
            "uuid": f"{section}-{len(cards)}",
            "metricSectionId": section,
            "displayName": title,
            "deleted": False,
            "isGenerated": False,
        }
        cards.append(common | {"runsCountToCompare": len(runs)} | settings)

    if measure and params:
        card(
            "result",
            "PARALLEL",
            f"{measure} by {', '.join(params)}",
            selectedParams=params,
            selectedMetrics=[measure],
            showAllRuns=True,
        )
        for name in numbers[:3]:
            card(
                "result",
                "SCATTER",
                f"{measure} over {name}",
                xaxis={"key": name, "type": "PARAM"},
                yaxis={"key": measure, "type": "METRIC"},
            )
        if len(numbers) > 1:
            axes = {
                "xaxis": {"key": numbers[0], "type": "PARAM"},
                "yaxis": {"key": numbers[1], "type": "PARAM"},
                "zaxis": {"key": measure, "type": "METRIC"},
            }
            card("result", "CONTOUR", f"{measure} over {numbers[0]} and {numbers[1]}", **axes)
    if measure:
        card("result", "BAR", measure, metricKey=measure)
    for name, axis in CURVES.items():
        if name in metrics:
            card(
                "curves",
                "LINE",
                f"{name} over epochs",
                metricKey=name,
                selectedMetricKeys=[name],
                scaleType=axis,
                xAxisKey="step",
                lineSmoothness=0,
            )
    card(
        "table",
        "DIFFERENCE",
        "What differs",
        compareGroups=["Parameters", "Model metrics"],
        showDifferencesOnly=True,
        showChangeFromBaseline=False,
    )
    folded = [*sorted({name.rpartition("/")[0] for name in metrics} - {""}), "Model metrics", "System metrics"]
    sections = {"result": ("Result", 2), "curves": ("Curves", 2), "table": ("Table", 1)} | {
        name: (name, 2) for name in folded
    }
    settled = {"isReordered": True, "deleted": False, "isGenerated": False}
    return {
        "searchFilter": filtered,
        "orderByKey": f"metrics.`{measure}`" if measure else "attributes.start_time",
        "orderByAsc": bool(measure and measure.endswith(("loss", "rmse", "mae"))),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": _columns(runs, params, [measure, "test/loss", "validation/loss"], metrics),
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": cards,
        "compareRunSections": [
            settled | {"uuid": key, "name": name, "display": key not in folded, "columns": columns}
            for key, (name, columns) in sections.items()
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
    }


def _columns(runs: "list[Run]", params: list[str], figures: list[str | None], metrics: set[str]) -> list[str]:
    """The columns of MLflow's list: what the runs were trained by that differs, what everybody asks for first, and what
    came of it.
    """
    known = sorted(params, key=lambda name: not name.startswith(SHOWN))[:COLUMNS]
    data = {
        (given.dataset.name, given.dataset.digest) for run in runs if run.inputs for given in run.inputs.dataset_inputs
    }
    found = [f"metrics.`{name}`" for name in dict.fromkeys(figures) if name in metrics]
    return ["attributes.`Dataset`"] * (len(data) > 1) + [f"params.`{name}`" for name in known] + found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    """`page`, or MLflow's list of experiments where there is nothing to compare yet, or the server is out of reach.

    Raises:
        UserError: the store is here and can't be read.
    """
    try:
        return page()
    except UserError as error:
        path = mlflow_client.sqlite_file(uri)
        if path and path.exists():
            raise
        terminal.say(*error.args, kind="note")
        return EXPERIMENTS


if __name__ == "__main__":
    _open(sys.argv[1])
