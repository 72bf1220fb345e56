"""A run's way to MLflow: whatever it lacks there."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.base import digests, errors, locks, writing
from surefoot.base.errors import UserError
from surefoot.params.train_section import registered_as
from surefoot.run import start_from
from surefoot.run.record import ACCOUNT, account
from surefoot.serving import mlflow_model, onnx_export
from surefoot.tracking import find_runs, page, tag_names, tracker
from surefoot.tracking.tracker import Description, Tracker

if TYPE_CHECKING:
    from surefoot.run.trajectory_store import Record, TrajectoryStore


def metric_names(record: "Record") -> list[str]:
    """The metrics of an epoch in the order in which they are shown: the losses, what the task measures, the gradient's
    norm, the learning rate.
    """
    losses, last = ["train/loss", "validation/loss"], ["gradient_norm", "lr"]
    return [*losses, *sorted(record["metrics"].keys() - {*losses, *last}), *last]


def points(record: "Record") -> Iterator[tracker.Point]:
    """The metrics of an epoch, as they go to MLflow."""
    seconds = record["seconds"]
    values = record["metrics"] | {
        "epoch_seconds": seconds,
        "rows_per_second": record["rows"] / seconds,
        "steps_per_second": record["steps"] / seconds,
        "peak_memory_mb": record["peak_memory"] / 1e6,
    }
    for name, value in values.items():
        yield tracker.Point(name, value, record["epoch"], record["ended"])


def checkpoint(epoch: int) -> str:
    """Where a run in MLflow has the network after an epoch (`train.save_every`)."""
    return f"checkpoints/epoch-{epoch:04}.safetensors"


def publish(
    identity: str, run: dict[str, Any], store: "TrajectoryStore", locks: locks.Locks, anew: bool = True
) -> tracker.Tracker:
    """Bring to MLflow all that it lacks of a finished run; the run stays open in the tracker that is returned, which
    says what it still lacks.

    `anew`: also where the run was deleted there.
    """
    tracker = Tracker(identity, Description(**run["description"]), locks)
    tracker.open(anew=anew)
    went_on = tracker.incomplete != (run.get("incomplete") or "")  # while MLflow was out of reach
    if not tracker.complete or went_on or tracker.model_weights != run["weights"]:
        complete(tracker, run, store)
    results = run.get("results", {})
    tracker.results({name: value for name, value in results.items() if not name.startswith(find_runs.INTERVAL)})
    ranges: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        if name.startswith(find_runs.INTERVAL):
            metric, _, end = name.removeprefix(find_runs.INTERVAL).rpartition("_")
            ranges.setdefault(metric, {})[end] = value
    if ranges:
        tracker.artifact(find_runs.INTERVALS, digests.canonical_json({"test": ranges}))
    describe_in_mlflow(tracker, run)
    for plot in sorted((store.path / "plots" / identity).glob("*.png")):
        path = f"plots/{plot.name}"
        tracker.artifact(path, plot.read_bytes())
        if tracker.run_id and path not in tracker.lacks:
            plot.unlink()
    return tracker


def describe_in_mlflow(tracker: tracker.Tracker, run: dict[str, Any]) -> None:
    """Write the description that the run's page in MLflow opens on, with links to the run that it goes on from, and to
    the model that it started from.
    """
    links = [tracker.continues(other, epoch) for other, epoch in run["continues"]]
    if run.get("start") and run["start"]["weights"]:
        links.append(tracker.started(run["start"]))
    tracker.note(page.markdown(run, tracker.run_id or "", " ".join(links)))


def keep_plots(identity: str, plots: dict[str, bytes], store: "TrajectoryStore") -> None:
    """Leave plots for `publish`, now or by `surefoot sync` when MLflow is back."""
    for name, data in plots.items():
        writing.write_bytes(store.path / "plots" / identity / name, data)


def complete(tracker: tracker.Tracker, run: dict[str, Any], store: "TrajectoryStore") -> None:
    """Write the history, the checkpoints and the model of a finished run, whatever of them is there already; the
    tracker notes what can't be.
    """
    from surefoot.run.chain import network_of

    def weights(key: str, averaged: bool = False) -> bytes | None:
        record = store.record(key)
        state = store.state(record) if record else None
        return network_of(state, averaged) if state else None

    records = [store.record(key) for key in run["epoch_keys"]]
    for record in records:
        if record:
            tracker.add(points(record))
    if not all(records):
        tracker.lack("its whole history", f"records of it are gone from {store.path}")
    describe_in_mlflow(tracker, run)
    if run["best"]:  # unknown where the model came from elsewhere
        tracker.results(
            {
                "best_epoch": 1 + run["epoch_keys"].index(run["best"]),
                "chosen_epoch": 1 + run["epoch_keys"].index(run["chosen"]),
            }
        )
        tracker.tag({tag_names.INCOMPLETE: run["incomplete"] or ""})
    there = tracker.artifacts("checkpoints")
    saved = {
        checkpoint(epoch): key
        for epoch, key in enumerate(run["epoch_keys"], 1)
        if run["save_every"] and epoch % run["save_every"] == 0
    }
    data = {path: weights(key) for path, key in saved.items() if path not in there}
    data |= {f"checkpoints/{which}.safetensors": weights(run[which]) for which in ("best", "last") if run[which]}
    chosen = weights(run["chosen"], run["select"].endswith("_average")) if run["chosen"] else None
    for path, network in (
        data | ({f"checkpoints/{run['select']}.safetensors": chosen} if run["chosen"] else {})
    ).items():
        if network:
            tracker.artifact(path, network)
        elif path not in there:
            tracker.lack(path, f"its state is gone from {store.path}")
    for path, given in start_from.artifacts(run, store).items():
        if path not in tracker.artifacts(str(Path(path).parent)):
            tracker.artifact(path, given)
    said = account(tracker.identity, run, store)
    if said:
        tracker.artifact(ACCOUNT, digests.canonical_json(said))
    if run["chosen"]:
        _log_model(tracker, run, store, chosen)
    if run.get("register"):
        tracker.register(*registered_as(run["register"]))
    tracker.end("FINISHED")
    tracker.tag({tag_names.COMPLETE: "false" if tracker.lacks else "true"})


def _log_model(tracker: tracker.Tracker, run: dict[str, Any], store: "TrajectoryStore", chosen: bytes | None) -> None:
    """Log the chosen model, if it isn't there: from its weights, and the code that made them, which a model carries."""
    if tracker.model_weights != run["weights"]:
        if chosen is None:
            tracker.lack("its model", f"its state is gone from {store.path}")
            return
        other = _edited(run)
        if other:
            commit = run["description"]["tags"].get("mlflow.source.git.commit", "")[:12]
            mend = "put it back" + (f" (it was made at the commit {commit})" if commit else "")
            tracker.lack(
                "its model",
                f"{other} isn't the code that it was trained with, and a model carries its code; {mend}, then run"
                " `surefoot sync`",
            )
            return
    if chosen is None:
        return
    tracker.model(
        digests.sha256(chosen),
        len(chosen),
        lambda run_id: mlflow_model.log_model(
            run_id, run["description"]["name"], chosen, run["model"], run["examples"]
        ),
    )
    record = store.record(run["chosen"])
    if record:
        tracker.link(point for point in points(record) if "/" in point.name)
    there = tracker.artifacts("onnx") if run.get("onnx") and tracker.model_weights == run["weights"] else set()
    if run.get("onnx") and tracker.run_id and not there >= onnx_export.PATHS:
        try:
            exported = onnx_export.export(chosen, run["model"], run["examples"])
        except UserError as error:  # it could be exported before the training: no reason to lose what comes after
            errors.say("warning", *error.args)
            tracker.lack("its ONNX export", str(error.args[0]))
            exported = {}
        for path, data_of in exported.items():
            tracker.artifact(path, data_of)


def _edited(run: dict[str, Any]) -> str:
    """The modules of a run's network that aren't as they were when it was trained; empty where all are."""
    from surefoot.run.origin import sources

    before = run["origin"]["model"]["source"]
    try:
        now = sources(run["model"]["factory"])
    except (UserError, ImportError, OSError, SyntaxError):  # it is gone
        now = {}
    return ", ".join(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
