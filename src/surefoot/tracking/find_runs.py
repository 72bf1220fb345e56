"""Finding runs in MLflow: by id, by name, the latest ones. Reads alone: it makes neither a store nor an experiment."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from surefoot.base import paths
from surefoot.base.documents import Document, Malformed, what_is_wrong
from surefoot.base.errors import UserError
from surefoot.base.installation import command
from surefoot.base.reading import LARGEST_WHOLE, read_file
from surefoot.base.wording import without_password
from surefoot.base.yaml12 import UnreadableYaml, from_yaml
from surefoot.tracking import mlflow_client, mlflow_store, parent_run, tag_names
from surefoot.tracking.mlflow_client import Failure, Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ID = re.compile("[0-9a-f]{1,64}")  # or the start of one
LARGEST_MLMODEL = 2 << 20  # bytes
LATEST = 20  # runs that are compared where no sweep says which


class MLmodel(Document):
    """What is read of a model's `MLmodel`."""

    run_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None


@contextmanager
def reading_mlflow() -> "Iterator[MlflowClient]":
    """A client of the store.

    Raises:
        UserError: there is no store yet; or within the block, it can't be read.
    """
    uri = mlflow_store.configure()
    path = mlflow_store.sqlite_file(uri)
    if path and not path.exists():
        raise UserError(f"there is no run yet: {path} doesn't exist; `{command('repro')}` makes one")
    try:
        yield mlflow_client.connect()
    except Failure as error:
        raise UserError(f"MLflow at {without_password(uri)} can't be read: {error}") from None


def search_runs(client: "MlflowClient", filtered: str = "", limit: int = 1000) -> "list[Run]":
    """The runs that a filter of MLflow's leaves, the latest first."""
    found = experiment_id(client)
    return (
        [
            _checked(run)
            for run in client.search_runs([found], filtered, order_by=["attributes.start_time DESC"], max_results=limit)
        ]
        if found
        else []
    )


def _checked(run: "Run") -> "Run":
    if not re.fullmatch(r"[\w-]{1,64}", run.info.run_id or ""):
        raise Refused(f"it answers with a run whose id is {run.info.run_id!r}")
    return run


def experiment_id(client: "MlflowClient") -> str | None:
    """The id of the experiment, or None where there is none yet. (`experiment.ensure_experiment` would make it.)"""
    found = mlflow_client.active_experiment(client)
    return str(found.experiment_id) if found else None


def find_run(client: "MlflowClient", wanted: str) -> "Run":
    """The run of a name, of an id, or of the DVC experiment of that name. An id is MLflow's or the run's identity,
    which `surefoot store` lists; or its start.

    Raises:
        UserError: there is none, or there are several.
    """
    found = _by_name(client, wanted) or _by_id(client, wanted)
    found = [run for run in found if not _is_parent(run)] or found  # a sweep and a run of one name
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found[:5])
        how = (
            "are called"
            if wanted in (found[0].info.run_name, found[0].data.tags.get("DVC_EXP_NAME"))
            else "have an id that starts with"
        )
        raise UserError(
            f"{len(found)} runs {how} {wanted!r}; give the id of one: {ids}" + (", ..." if len(found) > 5 else "")
        )
    if not found:
        known = known_identities(wanted)
        if known:
            raise UserError(
                f"the run {wanted} is in {paths.trajectory_store()}, but not in MLflow; `surefoot sync` brings it"
                " there, once it is finished"
            )
        raise UserError(f"there is no run {wanted!r} in MLflow; give a run's id or name, or a DVC experiment's")
    if _is_parent(found[0]):
        sweep = found[0].data.tags.get(tag_names.OF)
        raise UserError(
            f"{wanted!r} trained nothing: it is the parent of the runs of {sweep}; name one of those: `{command('ui')}`"
            " shows them below it"
        )
    return found[0]


def _is_parent(run: "Run") -> bool:
    return bool(run.data.tags.get(tag_names.KIND) == tag_names.PARENT_KIND)


def known_identities(wanted: str) -> list[str]:
    """The runs of the trajectory store whose identity starts so."""
    return sorted(
        path.stem
        for path in (paths.trajectory_store() / "runs").glob("*.json")
        if ID.fullmatch(wanted) and path.stem.startswith(wanted)
    )


def latest_runs(client: "MlflowClient") -> "tuple[list[Run], str]":
    """The runs to compare, the latest first, and the filter that finds them: those of the sweep that the latest run is
    of, or else the latest 20.
    """
    runs = [run for run in search_runs(client, limit=10 * LATEST) if tag_names.KIND not in run.data.tags][:LATEST]
    sweep = runs[0].data.tags.get(tag_names.SWEEP) if runs else None
    quoted = parent_run.quote(sweep) if sweep else None
    if quoted:
        filtered = f"tags.`{tag_names.SWEEP}` = {quoted}"
        return search_runs(client, filtered), filtered
    return runs, f"attributes.run_id IN ({', '.join(repr(run.info.run_id) for run in runs)})"


def _by_name(client: "MlflowClient", wanted: str) -> "list[Run]":
    quoted = parent_run.quote(wanted)
    return _all(client, f"attributes.run_name = {quoted}", f"tags.DVC_EXP_NAME = {quoted}") if quoted else []


def _by_id(client: "MlflowClient", wanted: str) -> "list[Run]":
    if not ID.fullmatch(wanted):
        return []
    if len(wanted) == 32:  # a whole one of MLflow's: of any experiment
        found = []
        with suppress(Refused):
            found = [client.get_run(wanted)]
        if found:
            return [_checked(found[0])]
    found = _all(client, f"attributes.run_id LIKE '{wanted}%'", f"tags.`{tag_names.IDENTITY}` LIKE '{wanted}%'")
    # Several of one identity are one run, the latest: only an id of MLflow's means an older one.
    latest: dict[str, Run] = {}
    for run in found:
        own = run.info.run_id.startswith(wanted)
        latest.setdefault(run.info.run_id if own else run.data.tags.get(tag_names.IDENTITY, run.info.run_id), run)
    return list({run.info.run_id: run for run in latest.values()}.values())


def _all(client: "MlflowClient", *filters: str) -> "list[Run]":
    return list({run.info.run_id: run for filtered in filters for run in search_runs(client, filtered)}.values())


def read_artifact(client: "MlflowClient", run: "Run", path: str, largest: int = LARGEST_WHOLE) -> bytes | None:
    """The bytes of an artifact, or None if there is none.

    Raises:
        Failure: MLflow is out of reach, or gives what is no file of at most `largest` bytes.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if path not in {file.path for file in client.list_artifacts(run.info.run_id, str(Path(path).parent))}:
                return None
            return read_file(Path(client.download_artifacts(run.info.run_id, path, scratch)), largest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path} of the run {run.info.run_id} can't be read: {error.strerror}") from None


def fetch_model(uri: str, into: Path) -> Path:
    """Download the files of a model to a directory; where in it they lie.

    Raises:
        Failure: MLflow is out of reach, or doesn't have it.
    """
    from mlflow.artifacts import download_artifacts

    return Path(
        mlflow_client.call(
            lambda: download_artifacts(artifact_uri=uri, dst_path=str(into)),
            into=into,
            requests=mlflow_client.MODEL_REQUESTS,
        )
    )


def run_of_model(mlmodel: bytes) -> str | None:
    """The id of the run that a model is of, from its file `MLmodel`; None where that names none.

    Raises:
        Malformed: it isn't such a file.
    """
    if len(mlmodel) > LARGEST_MLMODEL:
        raise Malformed(f"it has {len(mlmodel):,} bytes")
    try:
        return MLmodel.model_validate(from_yaml(mlmodel.decode())).run_id
    except UnreadableYaml:
        raise Malformed("it isn't YAML") from None
    except ValueError as error:  # of pydantic, or as it isn't UTF-8
        raise Malformed(what_is_wrong(error)) from None
