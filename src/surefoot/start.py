"""What training starts from where it isn't fresh weights: a model that is there already (`train.start_from`), and the rows that it hasn't seen.

What a training came to start from is noted in the trajectory store, by `train.start_from` and the raw data: so a training that was killed, lengthened or
tuned starts from the same weights, and `previous` means one model for all runs on the same data.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from surefoot import documents, files, lookup, mlflow_client, tracking
from surefoot.data.parts import Range, count, ranges
from surefoot.data.store import Store
from surefoot.errors import UserError
from surefoot.params import Params

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from surefoot.training.trajectory_store import TrajectoryStore

KEY = "train.start_from"
PREVIOUS = "previous"
WEIGHTS = "start/weights.safetensors"  # in the MLflow run that was started from them
START = "start/start.json"  # the same: what is said of them
SEEN = "data/parts.json"  # the same: which part files it has seen itself


@dataclass(frozen=True)
class Start:
    """A start: `weights` as safetensors, None for fresh ones; and what is said of it.

    `said`: `from`, the param; `key`, under which it is noted; `weights`, their digest; `run`, the identity of the run that made them, its MLflow `run_id`
    and `name`, as far as they are known; `seen`, from `seen`, or None where it isn't known.
    """

    said: dict[str, Any]
    weights: bytes | None


def find(params: Params, batches: Store, store: "TrajectoryStore", anew: bool = False) -> Start | None:
    """The start of a training on these batches, or None if params.yaml names none.

    Args:
        params: params.yaml.
        batches: the batch store.
        store: where starts are noted.
        anew: for the training itself: look what `train.start_from` means now, where that may change (an alias of a model's, or a file; not
            `previous`), and note what was found. Whoever only looks, as `surefoot schedule` does, pins nothing.

    Raises:
        UserError: there is no such thing, it is damaged, or MLflow is out of reach.
    """
    wanted = params.train.start_from
    if wanted is None:
        return None
    key = note_key(wanted, batches)
    noted = store.start(key)
    if noted and (not anew or noted.get("fixed") or wanted == PREVIOUS):
        weights = _noted_weights(noted, store)
        return Start(noted, weights)
    found = _find(wanted, store)
    found.said["key"] = key
    if anew:
        store.note_start(key, found.said, found.weights)
    return found


def note_key(wanted: str, batches: Store) -> str:
    """Under which key a start is noted: a digest of the param and of the raw data."""
    index = batches.index
    data = [part["digest"] for part in index["parts"]] or [split[name]["sha256"] for split in index["splits"].values() for name in ("inputs", "targets")]
    return files.sha256(files.canonical_json([wanted, data]))


def _noted_weights(noted: dict[str, Any], store: "TrajectoryStore") -> bytes | None:
    if noted["weights"] is None:
        return None
    weights = store.start_weights(noted["weights"])
    if weights is None:  # deleted or damaged: as long as the run is there, so are they
        run = store.runs().get(noted["run"] or "")
        weights = _chosen_weights(run, store) if run else None
        if weights is None or files.sha256(weights) != noted["weights"]:
            raise UserError(f"{KEY}: {store.start_path(noted['weights'])}, which this training started from, is damaged or gone; put it back, or name a start")
        store.note_start(noted["key"], noted, weights)
    return weights


def _find(wanted: str, store: "TrajectoryStore") -> Start:
    if wanted == PREVIOUS:
        return _previous(store)
    if wanted.startswith("models:/"):
        return _of_model(wanted, store)
    if wanted.endswith(".safetensors"):
        return _start(wanted, _read(wanted), wanted)
    return _of_run(wanted, store)


def _start(wanted: str, weights: bytes | None, name: str | None, **more: Any) -> Start:
    said = {"from": wanted, "name": name, "run": None, "run_id": None, "seen": None, **more}
    return Start(said | {"weights": files.sha256(weights) if weights is not None else None}, weights)


def _previous(store: "TrajectoryStore") -> Start:
    """The chosen model of the run that was finished last."""
    runs = {identity: run for identity, run in store.runs().items() if run["last"] and run.get("chosen")}
    if not runs:
        return _start(PREVIOUS, None, None)
    identity = max(runs, key=lambda identity: (store.run_path(identity).stat().st_mtime_ns, identity))
    run = runs[identity]
    name = f"the run {run['description']['name']}"
    weights = _chosen_weights(run, store)
    if weights is None:
        with _reaching_mlflow() as client:
            found = tracking.find(client, identity)
            weights = lookup.artifact(client, found, _chosen(found), files.LARGEST_WEIGHTS) if found else None
        if weights is None or files.sha256(weights) != run["weights"]:
            raise UserError(f"{KEY}: the model of {name} ({identity[:8]}) is neither in {store.path} nor in MLflow any more; name another start, or null")
    return _start(PREVIOUS, weights, name, run=identity, seen=run.get("seen"))


def _chosen_weights(run: dict[str, Any], store: "TrajectoryStore") -> bytes | None:
    from surefoot.training.trajectory import network_of

    record = store.record(run["chosen"]) if run.get("chosen") else None
    state = store.state(record) if record else None
    return network_of(state, run["select"].endswith("_average")) if state is not None else None


def _read(wanted: str) -> bytes:
    # In a temporary copy that DVC works in, what Git ignores is in the repository that it was made from.
    path = Path(wanted) if Path(wanted).exists() else files.root() / wanted
    try:
        return files.read_weights(path)
    except OSError as error:
        raise UserError(f"{KEY}: {wanted} can't be read: {error.strerror}") from None


def _of_run(wanted: str, store: "TrajectoryStore") -> Start:
    with _reaching_mlflow() as client:
        try:
            run = lookup.run(client, wanted)
        except UserError as error:
            *before, last = error.args
            raise UserError(*before, f"{KEY}: {last}, models:/NAME@ALIAS, PATH.safetensors, or {PREVIOUS}") from None
        name = f"the run {run.info.run_name}"
        weights = lookup.artifact(client, run, _chosen(run), files.LARGEST_WEIGHTS)
        if weights is None:
            raise UserError(f"{KEY}: {name} ({run.info.run_id}, {run.info.status}) has no artifact {_chosen(run)}, so no model to start from")
        if run.data.tags.get("surefoot.model_weights", digest := files.sha256(weights)) != digest:
            raise UserError(f"{KEY}: {_chosen(run)} of {name} ({run.info.run_id}) is damaged: its digest is another one than the run has recorded")
        return _start(wanted, weights, name, run_id=run.info.run_id, **_known_of(client, run, store))


def _of_model(wanted: str, store: "TrajectoryStore") -> Start:
    with _reaching_mlflow() as client, tempfile.TemporaryDirectory() as scratch:
        from mlflow.artifacts import download_artifacts

        place = Path(scratch)
        where = Path(mlflow_client.call(lambda: download_artifacts(artifact_uri=wanted, dst_path=scratch), into=place, requests=tracking.MODEL_REQUESTS))
        found = sorted(where.rglob("model.safetensors"))
        if len(found) != 1:
            raise UserError(f"{KEY}: {wanted} holds no model.safetensors, as Surefoot's models do; nothing else is read, as it could run code")
        weights = files.read_weights(found[0])
        try:
            run_id = documents.parse_mlmodel(files.read_file(where / "MLmodel", documents.LARGEST_YAML))["run_id"]
        except FileNotFoundError:
            run_id = None
        except documents.Malformed as error:
            raise UserError(f"{KEY}: {wanted}: its MLmodel is damaged: {error}") from None
        more = {"run_id": run_id, **_known_of(client, client.get_run(run_id), store)} if run_id else {}
        return _start(wanted, weights, wanted, **more)


def _known_of(client: "MlflowClient", run: "Run", store: "TrajectoryStore") -> dict[str, Any]:
    identity = run.data.tags.get(tracking.IDENTITY)
    identity = identity if identity and re.fullmatch("[0-9a-f]{64}", identity) else None
    known = store.runs().get(identity or "", {}).get("seen")
    data = None if known else lookup.artifact(client, run, SEEN)
    try:
        return {"run": identity, "seen": known or (documents.parse(documents.Seen, data) if data else None)}
    except documents.Malformed as error:
        raise UserError(f"{KEY}: {SEEN} of the run {run.info.run_id} is damaged: {error}") from None


def _chosen(run: "Run") -> str:
    """The artifact with the chosen model's weights."""
    select = run.data.params.get("train.select")
    return f"checkpoints/{select if select in get_args(documents.Select) else 'best'}.safetensors"


@contextmanager
def _reaching_mlflow() -> "Iterator[MlflowClient]":
    try:
        with lookup.reading() as client:
            yield client
    except OSError as error:
        raise UserError(f"{KEY}: MLflow can't be read: {error}") from None
    except UserError as error:
        raise (error if str(error).startswith(KEY) else UserError(f"{KEY}: {error.args[0]}", *error.args[1:])) from None


def artifacts(run: dict[str, Any], store: "TrajectoryStore") -> dict[str, bytes]:
    """What an MLflow run has of the start of a run of the store, and for those that are to start from it."""
    said, found = run.get("start"), {}
    if run.get("seen", {}).get("parts"):
        found[SEEN] = files.canonical_json(run["seen"])
    if said and said["weights"]:
        found[START] = files.canonical_json(said)
        weights = store.start_weights(said["weights"])
        found |= {WEIGHTS: weights} if weights is not None else {}
    return found


# --- rows that are new ----------------------------------------------------------------------------


def seen(batches: Store, start: dict[str, Any] | None) -> dict[str, Any]:
    """Which part files a model has seen that is trained on these batches from this start, and what their split follows from.

    `parts`: [path, digest] of those of `prepare.source`, in order; `others`: the digests of all others; `split`: the params.
    """
    preparation = batches.index["preparation"]
    source = Path(preparation["source"])
    parts = [[part["path"], part["digest"]] for part in batches.index["parts"] if Path(part["path"]).is_relative_to(source)]
    others = {part["digest"] for part in batches.index["parts"]} | (_digests(start["seen"]) if start and start["seen"] else set())
    return {
        "parts": parts,
        "others": sorted(others - {digest for _, digest in parts}),
        "split": preparation["split"],
    }


def _digests(known: dict[str, Any]) -> set[str]:
    return {digest for _, digest in known["parts"]} | set(known["others"])


def _is_new(start: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    known = _digests(start["seen"]) if start["seen"] else set()
    return lambda part: part["digest"] not in known


def rows(params: Params, batches: Store, start: Start | None) -> Store:
    """The batches with the rows that are trained on.

    Raises:
        UserError: rows that the start was trained on are among those of another split now; there is no new row, or it can't be known.
    """
    if start is None or start.weights is None:  # from fresh weights: every row is new
        return batches
    said, parts, source = start.said, batches.index["parts"], batches.index["preparation"]["source"]
    if said["seen"]:
        _check_split(said["seen"], seen(batches, None), said["name"])
    if params.train.rows == "all":
        return batches
    if not parts:
        raise UserError(f"train.rows: new: {source} has no part files, so which rows are new can't be told; make it a directory of CSV or Parquet files")
    if not said["seen"]:
        raise UserError(f"train.rows: new: which rows {said['name']} has seen isn't known; start from a run, or set rows: all")
    only = ranges(parts, "train", _is_new(said))
    chosen = replace(batches, only=only)
    if not only:
        raise UserError(f"train.rows: new: {said['name']} has seen every part file of {source}; add one, or set rows: all")
    if not chosen.rows_per_epoch:
        raise UserError(f"train.rows: new: there are {count(only)} new training rows, less than batch.size, and batch.drop_last leaves none")
    return chosen


def _check_split(before: dict[str, Any], now: dict[str, Any], name: str) -> None:
    """See whether rows that the start has seen are in the splits in which they were.

    Raises:
        UserError: they aren't, so that it would be tested on rows that it was trained on.
    """
    known = [digest for _, digest in before["parts"]]
    shared = [number for number, (_, digest) in enumerate(now["parts"]) if digest in known]
    if not shared:
        return
    moved = f"so rows that {name} was trained on could be among the test rows now"
    was = ", ".join(f"{key} was {before['split'].get(key)}" for key, value in now["split"].items() if before["split"].get(key) != value)
    if was:
        raise UserError(f"{KEY}: {was}, {moved}; put that back, or start from null")
    if now["split"]["prepare.split"]["by"] in ("group", "time"):  # by a row's own group; or it moves with time, as it should
        return
    for number in range(shared[-1] + 1):
        path, digest = now["parts"][number]
        if number >= len(known) or known[number] != digest:
            new = digest not in known and path not in {path for path, _ in before["parts"]}
            other = f"{path} is new, and its name sorts before {now['parts'][shared[-1]][0]}" if new else f"{before['parts'][number][0]} isn't there as it was"
            mend = "rename it so that it sorts last" if new else "put it back"
            raise UserError(f"{KEY}: {other}, {moved}: a row's split depends on the rows before it (prepare.split.by)", f"{mend}, or start from null")


def old_and_new(params: Params, batches: Store, actual: "np.ndarray", predicted: "np.ndarray") -> dict[str, float]:
    """Accuracy (in regression the mean absolute error) on the test rows of part files that the start had seen, and on the new ones.

    From the test rows' classes or numbers, and those that were predicted.
    """
    import numpy as np

    from surefoot.training.trajectory_store import TrajectoryStore

    start = find(params, batches, TrajectoryStore(files.trajectory()))
    if start is None or not start.said["seen"] or not batches.index["parts"]:
        return {}
    new = np.zeros(len(actual), np.bool_)
    for first, stop in ranges(batches.index["parts"], "test", _is_new(start.said)):
        new[first:stop] = True
    what, each = ("mae", np.abs(predicted - actual.astype(np.float64))) if batches.task == "regression" else ("accuracy", predicted == actual)
    return {f"{age}/{what}": float(each[which].mean()) for age, which in (("old", ~new), ("new", new)) if which.any()}


def describe(start: dict[str, Any], batches: Store, only: tuple[Range, ...] | None) -> str:
    """A line for the terminal."""
    if start["weights"] is None:
        return f"{KEY}: {start['from']}: there is no run before this one, so training starts from fresh weights"
    new = [part["path"] for part in batches.index["parts"] if _is_new(start)(part)] if start["seen"] else []
    parts = f"; new: {', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}" if new else ""
    trained = "" if only is None else f"; training on {count(only):,} new rows of {len(batches.train.targets):,}"
    return f"training starts from {start['name']} (weights {start['weights'][:12]}){parts}{trained}"
