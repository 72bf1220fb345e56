"""Finding runs in MLflow: by id, by name, the latest ones. Reads alone: it makes neither a store nor an experiment."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot import files, mlflow_client, tracking
from surefoot.errors import UserError
from surefoot.mlflow_client import Failure, Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LATEST = 20  # runs that are compared where no sweep says which


@contextmanager
def reading() -> "Iterator[MlflowClient]":
    """A client of the store.

    Raises:
        UserError: there is no store yet; or within the block, it can't be read.
    """
    uri = mlflow_client.configure()
    path = mlflow_client.sqlite_file(uri)
    if path and not path.exists():
        raise UserError(f"there is no run yet: {path} doesn't exist; `make repro` makes one")
    try:
        yield mlflow_client.connect()
    except Failure as error:
        raise UserError(f"MLflow at {mlflow_client.without_password(uri)} can't be read: {error}") from None


def search(client: "MlflowClient", filtered: str = "", limit: int = 1000) -> "list[Run]":
    """The runs that a filter of MLflow's leaves, the latest first."""
    found = experiment(client)
    return list(client.search_runs([found], filtered, order_by=["attributes.start_time DESC"], max_results=limit)) if found else []


def experiment(client: "MlflowClient") -> str | None:
    """The id of the experiment, or None where there is none yet. (`tracking.experiment` would make it.)"""
    found = mlflow_client.active_experiment(client)
    return str(found.experiment_id) if found else None


def run(client: "MlflowClient", wanted: str) -> "Run":
    """The run of an id, a unique start of one, a name, or the DVC experiment of that name.

    Raises:
        UserError: there is none, or there are several.
    """
    found = _by_name(client, wanted) or _by_start(client, wanted)
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found[:5])
        how = "are called" if wanted in (found[0].info.run_name, found[0].data.tags.get("DVC_EXP_NAME")) else "have an id that starts with"
        raise UserError(f"{len(found)} runs {how} {wanted!r}; give the id of one: {ids}" + (", ..." if len(found) > 5 else ""))
    if not found:
        raise UserError(f"there is no run {wanted!r} in MLflow; give a run's id or name, or a DVC experiment's")
    return found[0]


def latest(client: "MlflowClient") -> "tuple[list[Run], str]":
    """The runs to compare, the latest first, and the filter that finds them: those of the sweep that the latest run is of, or else the latest 20."""
    runs = [run for run in search(client, limit=10 * LATEST) if tracking.KIND not in run.data.tags][:LATEST]
    sweep = runs[0].data.tags.get(tracking.SWEEP) if runs else None
    quoted = _quoted(sweep) if sweep else None
    if quoted:
        filtered = f"tags.`{tracking.SWEEP}` = {quoted}"
        return search(client, filtered), filtered
    return runs, f"attributes.run_id IN ({', '.join(repr(run.info.run_id) for run in runs)})"


def _by_name(client: "MlflowClient", wanted: str) -> "list[Run]":
    if re.fullmatch("[0-9a-f]{32}", wanted):
        try:
            return [client.get_run(wanted)]
        except Refused:
            return []
    quoted = _quoted(wanted)
    if not quoted:
        return []
    filters = (f"attributes.run_name = {quoted}", f"tags.DVC_EXP_NAME = {quoted}")
    return list({run.info.run_id: run for filtered in filters for run in search(client, filtered)}.values())


def _by_start(client: "MlflowClient", wanted: str) -> "list[Run]":
    return search(client, f"attributes.run_id LIKE '{wanted}%'") if re.fullmatch("[0-9a-f]{4,31}", wanted) else []


def _quoted(text: str) -> str | None:
    """As MLflow's filters take it, which know no escape; None where it has quotes of both kinds."""
    quote = '"' if "'" in text else "'"
    return None if quote in text else f"{quote}{text}{quote}"


def artifact(client: "MlflowClient", run: "Run", path: str, largest: int = files.LARGEST_WHOLE) -> bytes | None:
    """The bytes of an artifact, or None if there is none.

    Raises:
        Failure: MLflow is out of reach, or gives what is no file of at most `largest` bytes.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if path not in {file.path for file in client.list_artifacts(run.info.run_id, str(Path(path).parent))}:
                return None
            return files.read_file(Path(client.download_artifacts(run.info.run_id, path, scratch)), largest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path} of the run {run.info.run_id} can't be read: {error.strerror}") from None
