"""The model that predicts: that of this workspace, or one of MLflow's."""

import re
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.base import paths
from surefoot.base.errors import UserError
from surefoot.base.installation import command
from surefoot.base.wording import without_password
from surefoot.data.batch_index import read_index
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock
from surefoot.serving import logged_network
from surefoot.tracking import find_runs, mlflow_client, mlflow_store, tag_names


@dataclass(frozen=True)
class Model:
    """A network with the preparation of its inputs; `name` for messages."""

    name: str
    network: Any
    description: dict[str, Any]

    @property
    def features(self) -> list[dict[str, Any]]:
        """The preparation, a dict for each input column."""
        return list(self.description["features"])


def workspace_model(params: Params, weights: Path | None) -> Model:
    """The network of params.yaml, with the weights of a file; None: those that were trained last.

    Raises:
        UserError: there is none, or it was trained on other batches than there are now.
    """
    path = weights or paths.MODEL
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file"
            if weights
            else f"there is no model yet: {path} doesn't exist; `{command('repro')}` makes one"
        )
    index = read_index(paths.BATCHES)  # which has the preparation
    trained, made = (
        dvc_lock.recorded_md5("train", "deps", paths.BATCHES),
        dvc_lock.recorded_md5("batch", "outs", paths.BATCHES),
    )
    if weights is None and trained and made and trained != made:
        raise UserError(
            f"{path} was trained on other batches than {paths.BATCHES} has now: `{command('repro')}` trains on these,"
            " or give a run (--run)"
        )
    chosen = params.train.model
    description = {"factory": chosen.factory, "arguments": chosen.arguments, **index.network_description()}
    return Model(str(path), logged_network.network_with_weights(description, path), description)


def model_in_mlflow(stack: ExitStack, uri: str | None, run: str | None) -> Model:
    """A logged model, by its URI, or that of a run.

    It brings the code of its network along, which runs: as with `mlflow models serve`, it must come from somebody you
    trust.

    Raises:
        UserError: MLflow is out of reach, or has no such run or model.
    """
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    name = uri
    if run:
        from surefoot.run.recorded_run import find_recorded

        recorded = find_recorded(run)
        model_id = recorded.run.data.tags.get(tag_names.MODEL)
        if not model_id or not re.fullmatch(r"[\w-]+", model_id):
            raise UserError(
                f"run {recorded.title} has no model in MLflow: it is {recorded.run.info.status}; `surefoot sync` brings"
                " what it lacks"
            )
        name, uri = f"run {recorded.title}", f"models:/{model_id}"
    path = _fetch(str(uri), scratch)
    sys.path.insert(0, str(path / "code"))
    stack.callback(sys.path.remove, str(path / "code"))
    return Model(str(name), *logged_network.load_logged_network(path / "data" / "network"))


def _fetch(uri: str, scratch: Path) -> Path:
    """Download a model of MLflow's.

    Raises:
        UserError: MLflow is out of reach, or doesn't have it.
    """
    mlflow_store.configure()
    try:
        return find_runs.fetch_model(uri, scratch)
    except mlflow_client.Failure as error:
        where = without_password(mlflow_store.store_uri())
        raise UserError(f"{uri}: MLflow at {where} doesn't give this model: {error}") from None
