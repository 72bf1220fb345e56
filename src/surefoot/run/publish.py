"""A run's way to MLflow: whatever it lacks there."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.base import digests, terminal
from surefoot.base.errors import UserError
from surefoot.base.locks import Locks
from surefoot.params.train_section import registered_as
from surefoot.run import page, start_from
from surefoot.run.kept_plots import kept_plots
from surefoot.run.pinned_params import load_and_pin
from surefoot.run.record import ACCOUNT, RunRecord, make_account
from surefoot.run.stored_network import part_of_state, stored_network
from surefoot.tracking import intervals_artifact, run_links, run_model, tag_names
from surefoot.tracking.checkpoint_artifacts import checkpoint_path
from surefoot.tracking.metric_points import Point
from surefoot.tracking.tracker import Tracker

if TYPE_CHECKING:
    from surefoot.run.record import Record
    from surefoot.run.trajectory_store import TrajectoryStore


def epoch_points(record: "Record") -> Iterator[Point]:
    """The metrics of an epoch, as they go to MLflow."""
    values = record.metrics | {
        "epoch_seconds": record.seconds,
        "rows_per_second": record.rows / record.seconds,
        "steps_per_second": record.steps / record.seconds,
        "peak_memory_mb": record.peak_memory / 1e6,
    }
    for name, value in values.items():
        yield Point(name, value, record.epoch, record.ended)


def publish_run(run: RunRecord, store: "TrajectoryStore", locks: Locks, anew: bool = True) -> Tracker:
    """Bring to MLflow all that it lacks of a finished run; the run stays open in the tracker that is returned, which
    says what it still lacks.

    `anew`: also where the run was deleted there.
    """
    tracker = Tracker(run.identity, run.description, locks)
    tracker.open(anew=anew)
    went_on = tracker.incomplete != (run.incomplete or "")  # while MLflow was out of reach
    if not tracker.complete or went_on or tracker.model_weights != run.weights:
        publish_training(tracker, run, store)
    _publish_results(tracker, run)
    describe_in_mlflow(tracker, run)
    for plot in kept_plots(run.identity, store):
        path = f"plots/{plot.name}"
        tracker.log_artifact(path, plot.read_bytes())
        if tracker.run_id and path not in tracker.lacks:
            plot.unlink()
    return tracker


def _publish_results(tracker: Tracker, run: RunRecord) -> None:
    """The test metrics, and their intervals as an artifact."""
    run_model.log_results(
        tracker, {name: value for name, value in run.results.items() if not name.startswith(intervals_artifact.PREFIX)}
    )
    ranges: dict[str, dict[str, float]] = {}
    for name, value in run.results.items():
        if name.startswith(intervals_artifact.PREFIX):
            metric, _, end = name.removeprefix(intervals_artifact.PREFIX).rpartition("_")
            ranges.setdefault(metric, {})[end] = value
    if ranges:
        tracker.log_artifact(intervals_artifact.ARTIFACT, digests.canonical_json({"test": ranges}))


def describe_in_mlflow(tracker: Tracker, run: RunRecord) -> None:
    """Write the description that the run's page in MLflow opens on, with links to the run that it goes on from, and to
    the model that it started from.
    """
    links = [run_links.link_continued(tracker, other, epoch) for other, epoch in run.continues]
    start = run.start
    if start and start.weights:
        links.append(
            run_links.link_start(tracker, str(start.wanted), start.weights, run=start.run, run_id=start.run_id)
        )
    run_links.describe_run(tracker, page.page_markdown(run, tracker.run_id or "", " ".join(links)))


def publish_training(tracker: Tracker, run: RunRecord, store: "TrajectoryStore") -> None:
    """Write the history, the checkpoints and the model of a finished run, whatever of them is there already, and end
    it; the tracker notes what can't be.
    """
    _publish_history(tracker, run, store)
    describe_in_mlflow(tracker, run)
    if run.best and run.chosen:  # unknown where the model came from elsewhere
        epoch_of = {key: epoch for epoch, key in enumerate(run.epoch_keys, 1)}
        run_model.log_results(tracker, {"best_epoch": epoch_of[run.best], "chosen_epoch": epoch_of[run.chosen]})
        tracker.set_tags({tag_names.INCOMPLETE: run.incomplete or ""})
    chosen = stored_network(store, run.chosen, run.select.endswith("_average")) if run.chosen else None
    _publish_checkpoints(tracker, run, store, chosen)
    for path, given in start_from.start_artifacts(run, store).items():
        if path not in tracker.list_artifacts(str(Path(path).parent)):
            tracker.log_artifact(path, given)
    said = make_account(run, store)
    if said:
        tracker.log_artifact(ACCOUNT, digests.canonical_json(said.plain()))
    if run.chosen:
        _publish_model(tracker, run, store, chosen)
    if run.register_as:
        run_model.register_model(tracker, *registered_as(run.register_as))
    tracker.end("FINISHED")
    tracker.set_tags({tag_names.COMPLETE: "false" if tracker.lacks else "true"})


def _publish_history(tracker: Tracker, run: RunRecord, store: "TrajectoryStore") -> None:
    records = [store.record(key) for key in run.epoch_keys]
    for record in records:
        if record:
            tracker.add_points(epoch_points(record))
    if not all(records):
        tracker.note_lacking("its whole history", f"records of it are gone from {store.path}")


def _publish_checkpoints(tracker: Tracker, run: RunRecord, store: "TrajectoryStore", chosen: bytes | None) -> None:
    """The networks of the epochs that are to be kept, where they lack; those of the best, last and chosen one anew."""
    there = tracker.list_artifacts("checkpoints")
    for epoch, key in enumerate(run.epoch_keys, 1):
        if run.save_every and epoch % run.save_every == 0:
            publish_checkpoint(tracker, run.identity, store, epoch, key, there)
    named = {"best": run.best, "last": run.last}
    networks = {f"checkpoints/{which}.safetensors": stored_network(store, key) for which, key in named.items() if key}
    if run.chosen:
        networks[f"checkpoints/{run.select}.safetensors"] = chosen
    for path, network in networks.items():
        if network:
            tracker.log_artifact(path, network)
        elif path not in there:
            tracker.note_lacking(path, f"its state is gone from {store.path}")


def publish_checkpoint(
    tracker: Tracker, identity: str, store: "TrajectoryStore", epoch: int, key: str, there: Collection[str]
) -> None:
    """The network of an epoch that is to be kept, unless it is among the artifacts that are there."""
    path = checkpoint_path(epoch)
    if path not in there:
        state = store.checkpoint_state(identity, key)
        if state is None:
            tracker.note_lacking(path, f"its state is gone from {store.path}")
        else:
            tracker.log_artifact(path, part_of_state(state, "model."))
    if tracker.run_id and path not in tracker.lacks:
        store.kept_checkpoint(identity, key).unlink(missing_ok=True)


def _publish_model(tracker: Tracker, run: RunRecord, store: "TrajectoryStore", chosen: bytes | None) -> None:
    """Log the chosen model, if it isn't there: from its weights, and the code that made them, which a model carries."""
    if tracker.model_weights != run.weights:
        if chosen is None:
            tracker.note_lacking("its model", f"its state is gone from {store.path}")
            return
        other = _edited_modules(run)
        if other:
            commit = run.description.tags.get("mlflow.source.git.commit", "")[:12]
            mend = "put it back" + (f" (it was made at the commit {commit})" if commit else "")
            tracker.note_lacking(
                "its model",
                f"{other} isn't the code that it was trained with, and a model carries its code; {mend}, then run"
                " `surefoot sync`",
            )
            return
    if chosen is None or run.chosen is None:
        return
    from surefoot.serving import mlflow_model  # which imports Arrow, as most calls don't need

    weights, network = chosen, run.network
    run_model.log_model_once(
        tracker,
        digests.sha256(chosen),
        len(chosen),
        lambda run_id: mlflow_model.log_model(run_id, run.description.name, weights, network, run.examples),
    )
    record = store.record(run.chosen)
    if record:
        run_model.log_model_metrics(tracker, (point for point in epoch_points(record) if "/" in point.name))
    if run.onnx and tracker.run_id:
        _publish_onnx(tracker, run, chosen)


def _publish_onnx(tracker: Tracker, run: RunRecord, chosen: bytes) -> None:
    """The chosen model as ONNX, where it isn't there."""
    from surefoot.serving import onnx_export

    there = tracker.list_artifacts("onnx") if tracker.model_weights == run.weights else set()
    if there >= onnx_export.PATHS:
        return
    try:
        load_and_pin()  # the export computes, too
        exported = onnx_export.export(chosen, run.network, run.examples)
    except UserError as error:  # it could be exported before the training: no reason to lose what comes after
        terminal.warn(*error.args)
        tracker.note_lacking("its ONNX export", str(error.args[0]))
        return
    for path, data_of in exported.items():
        tracker.log_artifact(path, data_of)


def _edited_modules(run: RunRecord) -> str:
    """The modules of a run's network that aren't as they were when it was trained; empty where all are."""
    from surefoot.run.origin import source_digests

    before = run.origin.model.source if run.origin else {}
    try:
        now = source_digests(run.network["factory"])
    except (UserError, ImportError, OSError, SyntaxError):  # it is gone
        now = {}
    return ", ".join(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
