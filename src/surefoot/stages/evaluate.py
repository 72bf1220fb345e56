"""evaluate: the chosen model on the test rows, which nothing before has looked at."""

import csv
import io
import math
from typing import TYPE_CHECKING

from surefoot import errors, files, runs, start
from surefoot.data.store import Store, open_store
from surefoot.errors import UserError
from surefoot.imports import where
from surefoot.params import Params, load
from surefoot.training import numerics

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    """Read the model, the history and `data/batches/`; write test metrics; add them and plots to the MLflow run."""
    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    import torch

    from surefoot.evaluation.metrics import METRICS
    from surefoot.training import model as networks
    from surefoot.training.objective import objective
    from surefoot.training.rows import Stored

    store = open_store(files.BATCHES)
    network, loss = params.train.model, params.train.loss
    model = networks.build(network.factory, network.arguments, store.input_shape, store.outputs, params.seed, store.schema, params.device)
    networks.load(model, files.MODEL.read_bytes())
    aim = objective(store.task, **loss.model_dump(), class_counts=store.index["splits"]["train"]["class_counts"], device=params.device)

    targets = torch.from_numpy(store.test.targets)
    try:
        outputs = networks.predict(model, Stored(store.test.inputs, store.index["scale"]))
        targets = targets.to(outputs.device)
    except (Exception, SystemExit) as error:
        raise UserError(f"train.model: the network fails on the test rows: {where(error)}") from None
    value = aim.loss(outputs, targets).item()
    if not math.isfinite(value):
        raise UserError(f"the loss on the test rows is {value}, though on the validation rows it wasn't: are there values far from all those in training?")
    outputs = outputs.cpu()
    metrics = {"loss": value, **METRICS[store.task](outputs.numpy(), store.test.targets)}
    metrics |= start.old_and_new(params, store, outputs.numpy())
    predicted = _predicted(store, outputs.numpy())

    files.write_json(files.METRICS, {"test": metrics})
    actual = _labels(store, store.test.targets)
    files.write_bytes(files.PREDICTIONS, _table([("actual", "predicted"), *zip(actual, _labels(store, predicted), strict=True)]))
    print(f"test {', '.join(f'{name} {value:.4f}' for name, value in metrics.items())}, on {len(targets)} rows")
    _track(params, store, metrics, predicted)


def _predicted(store: Store, outputs: "np.ndarray") -> "np.ndarray":
    """For each row the class, as an index, or the number."""
    found: np.ndarray = outputs.argmax(1) if store.task == "classification" else outputs[:, 0]
    return (found > 0).astype("int64") if store.task == "binary" else found


def _labels(store: Store, values: "np.ndarray") -> list[str]:
    return [str(value) for value in values] if store.task == "regression" else [store.classes[int(value)] for value in values]


def _table(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _track(params: Params, batches: Store, metrics: dict[str, float], predicted: "np.ndarray") -> None:
    """Add test metrics and plots to the training's run in MLflow, and whatever else it lacks."""
    from surefoot.training.trajectory_store import TrajectoryStore

    trajectories = TrajectoryStore(files.trajectory())
    plan = runs.plan(params, batches)
    # Without a mark the model came from elsewhere, by `dvc pull` say: the run then has no history, but it is there.
    known = trajectories.runs().get(plan.identity)
    run = (known or runs.mark(params, batches, plan)) | {"results": {f"test/{name}": value for name, value in metrics.items()}}
    if known:
        trajectories.mark_run(plan.identity, run)  # if MLflow is out of reach now, `surefoot sync` writes them
    runs.keep_plots(plan.identity, _plots(params, batches, predicted), trajectories)
    runs.publish(plan.identity, run, trajectories, files.Locks(trajectories.path / "lock"))


def _plots(params: Params, batches: Store, predicted: "np.ndarray") -> dict[str, bytes]:
    from surefoot.evaluation import plots
    from surefoot.evaluation.metrics import confusion_matrix

    with files.HISTORY.open(newline="") as file:
        history = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    training, validation = ([row[f"{split}/loss"] for row in history] for split in ("train", "validation"))
    chosen = int(runs.choose(params.train.select, [{"epoch": row["epoch"], "metrics": row} for row in history])["epoch"])
    found = {"loss.png": plots.loss_curves([int(row["epoch"]) for row in history], training, validation, chosen)}
    if batches.task == "regression":
        return found | {"predictions.png": plots.predictions(batches.test.targets, predicted)}
    matrix = confusion_matrix(batches.test.targets.astype("int64"), predicted, len(batches.classes))
    return found | {"confusion.png": plots.confusion(matrix, batches.classes)}


if __name__ == "__main__":
    errors.run(main)
