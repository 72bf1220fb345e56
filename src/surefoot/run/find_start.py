"""Looking up what `train.start_from` names: once, by the stage start_from, before anything is prepared.

`previous` is the model that lies in the workspace, whether it was trained here or came by DVC. What it was is kept
for the same raw data: a later run on them, with another learning rate, forced or after a kill, starts from the same
model. With new data, `previous` is the model that lies there then.
"""

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from surefoot.base import digests, paths, reading
from surefoot.base.documents import Malformed, parse_document
from surefoot.base.errors import UserError
from surefoot.base.user_code import FUNCTION
from surefoot.data import kept_preparation
from surefoot.data.batch_index import BatchIndex
from surefoot.data.kept_preparation import KeptPreparation
from surefoot.data.part_files import part_file_digest
from surefoot.params.prepare_section import PrepareParams
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock
from surefoot.run import new_rows
from surefoot.run.record import Select
from surefoot.run.start_from import KEY, PREVIOUS, SEEN, Start, read_start, start_files
from surefoot.run.start_note import Seen, StartNote
from surefoot.tracking import find_runs, tag_names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from surefoot.run.trajectory_store import TrajectoryStore

STAGE = "start_from"


def find_start(params: Params, store: "TrajectoryStore") -> Start:
    """What training starts from; for `previous` what it was before, where the raw data are the same.

    Raises:
        UserError: there is no such thing, it is damaged, or MLflow is out of reach.
    """
    wanted = params.train.start_from
    if wanted is None:
        return Start(StartNote(), None)
    key = digests.sha256(digests.canonical_json([wanted, _data(params.prepare) if wanted == PREVIOUS else None]))
    noted = _noted()
    if noted and noted.note.wanted == wanted and (noted.note.fixed or (wanted == PREVIOUS and noted.note.key == key)):
        return noted
    found = _previous(store, noted) if wanted == PREVIOUS else _named(wanted, store)
    return Start(found.note.model_copy(update={"wanted": wanted, "key": key}), found.weights, found.preparation)


def _data(prepare: PrepareParams) -> list[Any]:
    """What tells the raw data from others, as part files are told."""
    found: list[Any] = []
    for name in (
        getattr(prepare, f"{split}{what}") for split in ("", "validation_", "test_") for what in ("source", "labels")
    ):
        function = name is not None and re.fullmatch(FUNCTION, name)
        path = Path("src", *name.partition(":")[0].split(".")).with_suffix(".py") if function else Path(name or "")
        there = sorted(path.rglob("*")) if name and path.is_dir() else [path] if name else []
        found.append([name, [[str(file), part_file_digest(file)] for file in there if _is_file(file)]])
    return found


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False


def _noted() -> Start | None:
    """What the stage found when it ran last: here, or else as dvc.lock names it, in DVC's cache.

    Raises:
        UserError: it is here, but damaged.
    """
    directory = paths.START_FROM
    found = read_start(start_files()) or read_start(
        dvc_lock.cached_directory(dvc_lock.recorded_md5(STAGE, "outs", directory))
    )
    if found is None and (directory / "start.json").exists():
        raise UserError(
            f"{KEY}: {directory} is damaged; `dvc checkout {directory}` brings it back, or delete it, so that it is"
            " looked up anew"
        )
    return found


def _start(weights: bytes | None, name: str | None, preparation: KeptPreparation | None = None, **more: Any) -> Start:
    note = StartNote(name=name, weights=digests.sha256(weights) if weights is not None else None, **more)
    return Start(note, weights, preparation)


def _previous(store: "TrajectoryStore", noted: Start | None) -> Start:
    """The model that lies in the workspace."""
    weights = _in_workspace()
    if weights is None:
        return _start(None, None)
    found = _known(weights, str(paths.MODEL), store)
    if found.note.run is None and noted and noted.note.weights == found.note.weights:
        return noted  # it lay here before: what was trained from it came to no end
    return _as_trained_here(found, noted) if found.note.run is None else found


def _in_workspace() -> bytes | None:
    """The weights of the model that lies here. A training that failed took it away: then the one that dvc.lock names,
    from DVC's cache.

    Raises:
        UserError: dvc.lock names one that isn't here; or it can't be read.
    """
    named = dvc_lock.recorded_md5("train", "outs", paths.MODEL)
    # In a checkout that a search works in, the model is in the repository that it was made from.
    places = (paths.MODEL, dvc_lock.cached_file(named), paths.repository_root() / paths.MODEL)
    path = next((place for place in places if place and os.path.lexists(place)), None)
    if path is not None:
        return _weights(path)
    if named:
        raise UserError(
            f"{KEY}: {PREVIOUS}: {paths.MODEL}, which dvc.lock names, isn't here: `dvc pull` brings it where a remote"
            " has it",
            f"or train from fresh weights ({KEY}: null), or name another start",
        )
    return None


def _weights(path: Path, name: str = "") -> bytes:
    try:
        return reading.read_weights(path)
    except OSError as error:
        raise UserError(f"{KEY}: {name or path} can't be read: {error.strerror}") from None


def _known(weights: bytes, name: str, store: "TrajectoryStore") -> Start:
    """Weights, and what the store knows of the run that made them."""
    made = digests.sha256(weights)
    runs = [run for run in store.runs().values() if run.last and run.weights == made]
    if not runs:
        return _start(weights, name)
    # Of several the longest: which one it is depends on no file's time, as it is written to start.json.
    run = max(runs, key=lambda run: (len(run.epoch_keys), run.identity))
    return _start(
        weights,
        f"the run {run.description.name}",
        kept_preparation.parse_preparation(run.network),
        run=run.identity,
        seen=run.seen,
    )


def _as_trained_here(found: Start, noted: Start | None) -> Start:
    """What DVC knows of the model, where no run of the store does, as in a clone: it was trained on the batches that
    dvc.lock names.
    """
    if hashlib.md5(found.weights or b"", usedforsecurity=False).hexdigest() != dvc_lock.recorded_md5(
        "train", "outs", paths.MODEL
    ):
        return found
    batches = dvc_lock.recorded_md5("train", "deps", paths.BATCHES)
    path = dvc_lock.cached_directory(batches).get("index.json") or (
        paths.BATCHES / "index.json" if batches == dvc_lock.recorded_md5("batch", "outs", paths.BATCHES) else None
    )
    try:
        index = parse_document(BatchIndex, reading.read_file(path, kept_preparation.BYTES)) if path else None
    except (OSError, Malformed):
        return found
    seen = new_rows.seen_parts(index, noted.note.seen if noted else None) if index else None
    keep = kept_preparation.parse_preparation(index.plain()) if index else None
    return Start(found.note.model_copy(update={"seen": seen}), found.weights, keep)


# --- what has a name ------------------------------------------------------------------------------


def _named(wanted: str, store: "TrajectoryStore") -> Start:
    if wanted.startswith("models:/"):
        return _of_model(wanted, store)
    if wanted.endswith(".safetensors"):
        # In a temporary copy that DVC works in, what Git ignores is in the repository that it was made from.
        return _known(
            _weights(Path(wanted) if Path(wanted).exists() else paths.repository_root() / wanted, wanted), wanted, store
        )
    return _of_run(wanted, store)


def _of_run(wanted: str, store: "TrajectoryStore") -> Start:
    with _reaching_mlflow() as client:
        try:
            run = find_runs.find_run(client, wanted)
        except UserError as error:
            *before, last = error.args
            raise UserError(*before, f"{KEY}: {last}, models:/NAME@ALIAS, PATH.safetensors, or {PREVIOUS}") from None
        select = run.data.params.get("train.select")
        name, path = (
            f"the run {run.info.run_name}",
            f"checkpoints/{select if select in get_args(Select) else 'best'}.safetensors",
        )
        weights = find_runs.read_artifact(client, run, path, reading.LARGEST_WEIGHTS)
        if weights is None:
            raise UserError(
                f"{KEY}: {name} ({run.info.run_id}, {run.info.status}) has no artifact {path}, so no model to start"
                " from"
            )
        if run.data.tags.get("surefoot.model_weights", made := digests.sha256(weights)) != made:
            raise UserError(
                f"{KEY}: {path} of {name} ({run.info.run_id}) is damaged: its digest is another one than the run has"
                " recorded"
            )
        preparation, about = _about(client, run, store)
        model = run.data.tags.get(tag_names.MODEL)
        if preparation is None and model and re.fullmatch(r"[\w-]+", model):
            with _model(f"models:/{model}") as where:
                preparation = _description(where)
        return _start(weights, name, preparation, **about)


def _of_model(wanted: str, store: "TrajectoryStore") -> Start:
    with _reaching_mlflow() as client, _model(wanted) as where:
        found = sorted(where.rglob("model.safetensors"))
        if len(found) != 1:
            raise UserError(
                f"{KEY}: {wanted} holds no model.safetensors, as Surefoot's models do; nothing else is read, as it"
                " could run code"
            )
        weights = _weights(found[0])
        run_id = _run_id(where / "MLmodel", wanted)
        preparation, about = _about(client, client.get_run(run_id), store) if run_id else (None, {})
        return _start(weights, wanted, preparation or _description(where), **about)


@contextmanager
def _model(uri: str) -> Iterator[Path]:
    """The files of a model in MLflow, while the block lasts."""
    with tempfile.TemporaryDirectory() as scratch:
        yield find_runs.fetch_model(uri, Path(scratch))


def _run_id(path: Path, wanted: str) -> str | None:
    try:
        return find_runs.run_of_model(reading.read_file(path, find_runs.LARGEST_MLMODEL))
    except FileNotFoundError:
        return None
    except Malformed as error:
        raise UserError(f"{KEY}: {wanted}: its MLmodel is damaged: {error}") from None


def _description(where: Path) -> KeptPreparation | None:
    """The preparation that a model in MLflow carries."""
    path = where / "data" / "network" / "description.json"
    try:
        return kept_preparation.parse_preparation(json.loads(reading.read_file(path, kept_preparation.BYTES)))
    except (OSError, ValueError, RecursionError):
        return None


def _about(
    client: "MlflowClient", run: "Run", store: "TrajectoryStore"
) -> tuple[KeptPreparation | None, dict[str, Any]]:
    """The preparation of a run's model, where the store knows it, and what a note says of the run."""
    identity = run.data.tags.get(tag_names.IDENTITY)
    identity = identity if identity and re.fullmatch("[0-9a-f]{64}", identity) else None
    known = store.run(identity) if identity else None
    if known:
        return kept_preparation.parse_preparation(known.network), {"run": identity, "seen": known.seen}
    data = find_runs.read_artifact(client, run, SEEN)
    try:
        seen = parse_document(Seen, data) if data is not None else None
    except Malformed as error:
        raise UserError(f"{KEY}: {SEEN} of the run {run.info.run_id} is damaged: {error}") from None
    return None, {"run": identity, "run_id": None if identity else run.info.run_id, "seen": seen}


@contextmanager
def _reaching_mlflow() -> "Iterator[MlflowClient]":
    try:
        with find_runs.reading_mlflow() as client:
            yield client
    except OSError as error:
        raise UserError(f"{KEY}: MLflow can't be read: {error}") from None
    except UserError as error:
        raise (error if str(error).startswith(KEY) else UserError(f"{KEY}: {error.args[0]}", *error.args[1:])) from None
