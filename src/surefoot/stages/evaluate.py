"""evaluate: the chosen model on the test rows, which nothing before has looked at."""

import csv
import io
import json
import math
import os
from typing import TYPE_CHECKING

from surefoot.base import errors, locks, paths, reading, terminal, writing
from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.data.batch_store import Store, open_store
from surefoot.data.normalization import in_own_unit
from surefoot.params import dvc_yaml
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock
from surefoot.run import naming, new_record, new_rows, publish, start_from
from surefoot.run.pinned_params import load_and_pin
from surefoot.tracking import find_runs, mlflow_client, tracker

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from surefoot.evaluation.metrics import Scored
    from surefoot.training.objective import Objective

ROWS_AT_ONCE = 10_000  # whose losses are computed


def main() -> None:
    """Read the model, the history and `data/batches/`; write test metrics, tables and plots; add them to the MLflow
    run; print a summary.
    """
    params = load_and_pin()
    writing.remove_measured()
    dvc_yaml.require_watched(params, "evaluate")
    from safetensors import SafetensorError

    from surefoot.evaluation import intervals, metrics, reports, summary
    from surefoot.run.from_params import network_from_params, objective_from_params
    from surefoot.run.trajectory_store import TrajectoryStore
    from surefoot.training import network as networks
    from surefoot.training.minibatches import Stored

    store = open_store(paths.BATCHES)
    model = network_from_params(params, store)
    try:
        networks.load_weights(model, reading.read_made(paths.MODEL, "train", reading.LARGEST_WEIGHTS))
    except (RuntimeError, ValueError, KeyError, SafetensorError):
        raise UserError(
            f"{paths.MODEL}: is damaged, or of another network; remove it, and `dvc repro train` makes it again"
        ) from None
    aim = objective_from_params(params, store)

    targets = Stored(store.test.targets, store.target_scale)[:]
    try:
        outputs = networks.outputs_of(model, Stored(store.test.inputs, store.index["scale"]))
        targets = targets.to(outputs.device)
    except (Exception, SystemExit) as error:
        raise UserError(f"train.model: the network fails on the test rows: {describe_error(error)}") from None
    value = aim.loss(outputs, targets).item()
    outputs, targets = outputs.cpu(), targets.cpu()
    if not math.isfinite(value) or not outputs.isfinite().all():
        what = "the network's output" if math.isfinite(value) else "the loss"
        told = "not finite" if math.isfinite(value) else value
        raise UserError(
            f"{what} on the test rows is {told}, though on the validation rows it wasn't: are there values far from all"
            " those in training?"
        )
    tested = _tested(store, outputs, *_losses(params, store, aim, outputs, targets, value))
    found = {"loss": value, **metrics.measure_metrics(tested)}
    begin = start_from.load(params, TrajectoryStore(paths.trajectory_store()))
    found |= new_rows.old_and_new(begin.note if begin else None, store, tested.actual, tested.predicted)
    ranges = {name: ends for name, ends in intervals.metric_intervals(tested, params.seed).items() if name in found}
    history = _history()
    chosen = _chosen(history, params.train.select)
    pictures = reports.draw_plots(
        tested, history, chosen, params.train.select, params.prepare.target, store.test.inputs, store.index["features"]
    )

    writing.write_json(paths.METRICS, {"test": found})
    ends = {name: {"low": low, "high": high} for name, (low, high) in ranges.items()}
    writing.write_json(paths.INTERVALS, {"test": ends})
    pairs = zip(_labels(store, tested.actual), _labels(store, tested.predicted), strict=True)
    writing.write_bytes(paths.PREDICTIONS, _table([("actual", "predicted"), *pairs]))
    writing.write_bytes(paths.CLASSES, reports.class_table(tested))
    with writing.new_directory(paths.PLOTS) as out:
        for name, picture in pictures.items():
            writing.write_bytes(out / name, picture)
    run_id = _track(params, store, found, ends, pictures, history)
    terminal.print_lines("", *summary.summary_table(len(targets), found, ranges, _last_commits()), *_places(run_id))


def _tested(store: Store, outputs: "Tensor", losses: "np.ndarray | None", weights: "np.ndarray | None") -> "Scored":
    """What came out of the network as what is measured."""
    import numpy as np
    import torch

    from surefoot.evaluation.metrics import Scored

    scores = outputs.double()
    # By torch, whose kernels are pinned: NumPy's exp has other last digits on other processors.
    if store.task == "classification":
        probabilities = torch.softmax(scores, 1)
    elif store.task == "binary":
        positive = torch.sigmoid(scores[:, 0])
        probabilities = torch.stack([1 - positive, positive], 1)
    else:
        probabilities = scores[:, :0]
    actual: np.ndarray = store.test.targets
    predicted = _predicted(store, outputs.numpy())
    if store.task != "regression":
        actual, predicted = actual.astype(np.int64), predicted.astype(np.int64)
    return Scored(store.task, store.classes, actual, predicted, scores.numpy(), probabilities.numpy(), losses, weights)


def _losses(
    params: Params, store: Store, aim: "Objective", outputs: "Tensor", targets: "Tensor", mean: float
) -> "tuple[np.ndarray | None, np.ndarray | None]":
    """The loss of each test row, and the row's weight in their mean; None where the loss isn't such a mean, as one of
    the user's own may be.
    """
    import torch

    from surefoot.run.from_params import objective_from_params

    try:
        each = objective_from_params(params, store, "cpu", reduction="none")
        parts = [
            each.loss(*some).double()
            for some in zip(outputs.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True)
        ]
        losses = torch.cat(parts)
        # A loss with class weights divides by their sum.
        weight = getattr(aim.loss, "weight", None)  # which lies where the network does
        weights = torch.ones_like(losses) if weight is None else weight.cpu().double()[targets]
        for given in (None, weights):
            found = losses.mean() if given is None else losses.sum() / given.sum()
            if losses.shape == targets.shape and math.isclose(found.item(), mean, rel_tol=1e-4, abs_tol=1e-6):
                return (losses.numpy(), None) if given is None else ((losses / given).numpy(), given.numpy())
    except Exception:  # whatever a loss that isn't made for it may do
        return None, None
    return None, None


def _predicted(store: Store, outputs: "np.ndarray") -> "np.ndarray":
    """For each row the class, as an index, or the number."""
    found: np.ndarray = outputs.argmax(1) if store.task == "classification" else outputs[:, 0]
    if store.target_scale:
        return in_own_unit(found, store.target_scale)
    return (found > 0).astype("int64") if store.task == "binary" else found


def _labels(store: Store, values: "np.ndarray") -> list[str]:
    return (
        [str(value) for value in values]
        if store.task == "regression"
        else [store.classes[int(value)] for value in values]
    )


def _table(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _history() -> dict[str, list[float]]:
    """The columns of history.csv; NaN for an empty cell."""
    rows = list(
        csv.DictReader(io.StringIO(reading.read_made(paths.HISTORY, "train").decode("utf-8", "replace"), newline=""))
    )
    try:
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}
    except (IndexError, ValueError, TypeError):
        raise UserError(f"{paths.HISTORY}: is damaged; remove it, and `dvc repro train` makes it again") from None


def _chosen(history: dict[str, list[float]], select: str) -> int:
    """The epoch of the model."""
    averaged = history.get("validation/average_loss", [])
    losses = averaged if select.endswith("_average") and averaged else history["validation/loss"]
    there = [epoch for epoch, loss in enumerate(losses) if not math.isnan(loss)]
    return 1 + (min(there, key=losses.__getitem__) if select.startswith("best") else there[-1])


def _track(
    params: Params,
    batches: Store,
    metrics: dict[str, float],
    intervals: dict[str, dict[str, float]],
    pictures: dict[str, bytes],
    history: dict[str, list[float]],
) -> str | None:
    """Add test metrics and plots to the training's run in MLflow, and whatever else it lacks; returns the run's id,
    None where MLflow is out of reach.
    """
    from surefoot.evaluation.plots import learning_rate
    from surefoot.run.plan.planning import plan_run
    from surefoot.run.trajectory_store import TrajectoryStore

    trajectories = TrajectoryStore(paths.trajectory_store())
    plan = plan_run(params, batches)
    # Without a mark the model came from elsewhere, by `dvc pull` say: the run then has no history, but it is there.
    known = trajectories.run(plan.identity)
    results = {f"test/{name}": value for name, value in metrics.items()} | find_runs.interval_ends(intervals)
    known = None if known and known.lacks() else known
    run = (known or new_record.new_record(params, batches, plan)).model_copy(update={"results": results})
    if known:
        trajectories.mark_run(run)  # if MLflow is out of reach now, `surefoot sync` writes them
    # As it was: a schedule that follows a metric isn't known before, and a run may end early.
    schedule, epochs = plan.schedule(), len(history["epoch"])
    before = [None, *({name: values[epoch] for name, values in history.items()} for epoch in range(epochs - 1))]
    values = (schedule.next_epoch(metrics) for metrics in before)
    drawn = learning_rate.schedule_plot(
        values,
        schedule.columns,
        naming.group_names(params),
        plan.inputs.steps_per_epoch,
        epochs,
        naming.schedule_title(params),
    )
    publish.keep_plots(plan.identity, pictures | {"schedule.png": drawn}, trajectories)
    return publish.publish(run, trajectories, locks.Locks(trajectories.path / "lock")).run_id


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


def _places(run_id: str | None) -> list[str]:
    """Where things are, after an empty line; nothing where `surefoot verify` makes a run again, as they
    will be gone.
    """
    if os.environ.get(tracker.SCRATCH):
        return []
    by = (
        "make ui" if mlflow_client.store_uri().startswith("sqlite:") else "on the server that MLFLOW_TRACKING_URI names"
    )
    run = f"run {run_id}: {by}" if run_id else "is out of reach; `surefoot sync` brings the run there later"
    return ["", f"plots   {paths.PLOTS}", f"model   {paths.MODEL}", f"MLflow  {run}"]


if __name__ == "__main__":
    errors.run_process(main)
