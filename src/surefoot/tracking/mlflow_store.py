"""Where MLflow keeps runs: the store, the experiment in it, and how MLflow is set up before it is imported."""

import os
import re
from pathlib import Path

from surefoot.base import paths
from surefoot.base.wording import without_password

EXPERIMENT = "surefoot"
# A tracking server must not hold a stage up; a user's own setting is left as it is.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # which may say an hour
    # Artifacts in parts have retries and time-outs of their own, and go to wherever the server says.
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    # "Creating initial MLflow database tables..." and such are no news to the person at the terminal.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# A file's URI with a relative path: of SQLite, or of MLflow's older store, which needs no scheme.
RELATIVE = re.compile(
    r"(sqlite(?:\+\w+)?:///|file:(?!/)|(?![a-z][a-z\d+.-]*:|databricks$|uc$))((?![/~:]|file:).+)",
    re.IGNORECASE | re.DOTALL,
)


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file at the repository's root."""
    return _at_root(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")


def _at_root(uri: str) -> str:
    """The URI of a store, a relative path in it taken from the repository's root: DVC runs stages in temporary copies,
    too.
    """
    found = RELATIVE.fullmatch(uri)
    return f"{found[1]}{paths.repository_root() / found[2]}" if found else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None where it is another one."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?:]+)(\?.*)?", uri, re.DOTALL)
    return Path(found[1]) if found else None


def configure() -> str:
    """Set MLflow up for this process, before it is imported: the store, no telemetry, short time-outs.

    Returns the store's URI.
    """
    os.environ["MLFLOW_TRACKING_URI"] = store_uri()
    if os.environ.get("MLFLOW_REGISTRY_URI"):
        os.environ["MLFLOW_REGISTRY_URI"] = _at_root(os.environ["MLFLOW_REGISTRY_URI"])
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return store_uri()


def experiment_name() -> str:
    """The name of the experiment that runs are in."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def run_page(run_id: str) -> str | None:
    """The address of a run's page: on a server, or where `make ui` serves the local store; None where there is none."""
    uri = store_uri()
    if uri.startswith("sqlite:"):
        return f"http://127.0.0.1:5000/#/runs/{run_id}"
    return f"{without_password(uri).rstrip('/')}/#/runs/{run_id}" if uri.startswith(("http:", "https:")) else None
