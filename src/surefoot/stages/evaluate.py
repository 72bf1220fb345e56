"""evaluate: the chosen model on the test rows, which nothing before has looked at."""

import csv
import io
import json
import os
from typing import TYPE_CHECKING

from surefoot.base import errors, paths, terminal, writing
from surefoot.base.installation import command
from surefoot.data.batch_store import Store, open_store
from surefoot.params import dvc_yaml
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock
from surefoot.run import naming
from surefoot.run.choose_epoch import describe_choice
from surefoot.run.history import read_history
from surefoot.run.kept_plots import keep_plots
from surefoot.run.new_record import new_record
from surefoot.run.pinned_params import pin_by
from surefoot.run.run_file import RunFile, read_run_file
from surefoot.run.start_tracking import Tracking, start_tracking
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import intervals_artifact, mlflow_store, tracker

if TYPE_CHECKING:
    from surefoot.evaluation.metrics import Scored


def main() -> None:
    """Read the model, what train says of it, the history and `data/batches/`; write test metrics, tables and plots; add
    them to the MLflow run; print a summary.
    """
    with start_tracking() as tracking:
        _evaluate(tracking)


def _evaluate(tracking: Tracking) -> None:
    params = load_params(paths.PARAMS)
    terminal.print_lines(f"testing {paths.MODEL}")
    pin_by(params)
    writing.remove_measured()
    dvc_yaml.require_watched(params, "evaluate")
    from surefoot.evaluation import intervals, metrics, reports, summary
    from surefoot.run.score_model import old_and_new, score_model

    batches, run = open_store(paths.BATCHES), read_run_file()
    history = read_history(len(run.epoch_keys))
    loss, tested = score_model(params, batches)
    found = {"loss": loss, **metrics.measure_metrics(tested), **old_and_new(run.start, batches, tested)}
    ranges = {name: ends for name, ends in intervals.metric_intervals(tested, params.seed).items() if name in found}
    ends = {name: {"low": low, "high": high} for name, (low, high) in ranges.items()}
    writing.write_json(paths.METRICS, {"test": found})
    writing.write_json(paths.INTERVALS, {"test": ends})
    writing.write_bytes(paths.PREDICTIONS, _predictions_csv(batches, tested))
    writing.write_bytes(paths.CLASSES, reports.class_table(tested))
    terminal.print_lines("", *summary.summary_table(len(tested.actual), found, ranges, _last_commits()), "")

    select, inputs, features = params.train.select, batches.test.inputs, batches.index.features
    pictures = reports.draw_plots(tested, history, run.chosen_epoch, select, params.prepare.target, inputs, features)
    with writing.new_directory(paths.PLOTS) as out:
        for name, picture in pictures.items():
            writing.write_bytes(out / name, picture)
    results = {f"test/{name}": value for name, value in found.items()} | intervals_artifact.interval_ends(ends)
    _track(tracking, params, batches, run, results, pictures)
    terminal.print_lines(*_places(tracking, *describe_choice(select, run.chosen_epoch, history)))


def _predictions_csv(batches: Store, tested: "Scored") -> bytes:
    """Target and prediction of each test row: labels, or numbers."""
    columns = [
        [str(value) if batches.task == "regression" else batches.classes[int(value)] for value in values]
        for values in (tested.actual, tested.predicted)
    ]
    return writing.csv_bytes([("actual", "predicted"), *zip(*columns, strict=True)])


def _track(
    tracking: Tracking,
    params: Params,
    batches: Store,
    run: RunFile,
    results: dict[str, float],
    pictures: dict[str, bytes],
) -> None:
    """Add test metrics and plots to the training's run in MLflow, and whatever else it lacks."""
    store = TrajectoryStore(paths.trajectory_store())
    # Without a mark the model came from elsewhere, by `dvc pull` say: the run then has no history, but it is there.
    known = store.run(run.identity)
    known = None if known and known.lacks() else known
    record = known or new_record(params, batches, run.identity, run.origin, run.epoch_keys, run.start)
    record = record.model_copy(update={"results": results})
    if known:
        store.mark_run(record)  # if MLflow is out of reach now, `surefoot sync` writes them
    keep_plots(run.identity, pictures | {"schedule.png": _schedule_picture(params, run)}, store)
    size = paths.MODEL.stat().st_size
    tracking.finish("publish_evaluation", size=size, mark=record.mark().decode())


def _schedule_picture(params: Params, run: RunFile) -> bytes:
    """The schedule as it was: one that follows a metric isn't known before, and a run may end early."""
    from surefoot.evaluation.plots import learning_rate

    drawn, groups, title = run.schedule, naming.group_names(params), naming.schedule_title(params)
    count = 1 + max(group for group, _ in drawn.columns)
    if count > len(groups):  # params.yaml was edited since, and evaluate run alone
        groups = [f"group {number}" for number in range(1, count + 1)]
    epochs = len(run.epoch_keys)
    return learning_rate.schedule_plot(drawn.points(), drawn.columns, groups, drawn.steps_per_epoch, epochs, title)


def _last_commits() -> tuple[str, dict[str, float]] | None:
    """The last commit and its test metrics, if they can be had, and are of the same test rows."""
    found, predictions = (
        dvc_lock.committed_output("evaluate", path, path.read_bytes()) for path in (paths.METRICS, paths.PREDICTIONS)
    )
    try:
        if not found or not predictions or _actual(predictions[1]) != _actual(paths.PREDICTIONS.read_bytes()):
            return None
        return found[0], {name: float(value) for name, value in json.loads(found[1])["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error):
        return None


def _actual(predictions: bytes) -> list[str]:
    """The targets of the test rows, in order."""
    return [row[0] for row in csv.reader(io.StringIO(predictions.decode(), newline=""))]


def _places(tracking: Tracking, chosen: str, *notes: str) -> list[str]:
    """Lines that say of which epoch the model is, and where things are: not the latter when `surefoot verify` makes a
    run again, as they will be gone.
    """
    if os.environ.get(tracker.SCRATCH):
        return [f"model   {chosen}", *notes]
    lacks = "lacks something of the run" if tracking.trouble else "is out of reach"
    run = _run_address(tracking.run_id) if tracking.run_id else [f"{lacks}; `surefoot sync` brings it there later"]
    lines = zip(("model", "", "plots", "MLflow", ""), (str(paths.MODEL), chosen, str(paths.PLOTS), *run), strict=False)
    return [*(f"{name:8}{text}" for name, text in lines), *notes]


def _run_address(run_id: str) -> list[str]:
    """How to open a run's page in MLflow."""
    local = mlflow_store.store_uri().startswith("sqlite:")
    run = f"run {run_id}: {command('ui') if local else 'on the server that MLFLOW_TRACKING_URI names'}"
    return [text for text in (run, mlflow_store.run_page(run_id)) if text]


if __name__ == "__main__":
    errors.run_process(main)
