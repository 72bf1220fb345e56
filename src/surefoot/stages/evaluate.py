"""evaluate: the chosen model on the test rows, which nothing before has looked at."""

import csv
import io
from typing import TYPE_CHECKING

from surefoot import errors, files, runs
from surefoot.data.store import Store, open_store
from surefoot.params import Params, load
from surefoot.training import numerics

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    """Read the model, the history and `data/batches/`; write test metrics; add them and plots to the MLflow run."""
    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads)
    import torch

    from surefoot.evaluation.metrics import confusion_matrix
    from surefoot.training import model as networks
    from surefoot.training.rows import Stored

    store = open_store(files.BATCHES)
    network = params.train.model
    model = networks.build(network.factory, network.arguments, store.input_shape, len(store.classes), params.seed)
    networks.load(model, files.MODEL.read_bytes())

    targets = torch.from_numpy(store.test.targets)
    logits = networks.predict(model, Stored(store.test.inputs, store.index["scale"]))
    metrics = {"loss": torch.nn.functional.cross_entropy(logits, targets).item(), "accuracy": networks.accuracy(logits, targets)}
    predicted = logits.argmax(1).numpy()
    matrix = confusion_matrix(store.test.targets, predicted, len(store.classes))

    files.write_json(files.METRICS, {"test": metrics})
    pairs = [(store.classes[actual], store.classes[guess]) for actual, guess in zip(store.test.targets, predicted, strict=True)]
    files.write_bytes(files.CONFUSION, _table([("actual", "predicted"), *pairs]))
    print(f"test accuracy {metrics['accuracy']:.4f}, loss {metrics['loss']:.4f}, on {len(targets)} rows")
    _track(params, store, metrics, matrix)


def _table(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _track(params: Params, batches: Store, metrics: dict[str, float], matrix: "np.ndarray") -> None:
    """Add test metrics and plots to the training's run in MLflow, and whatever else it lacks."""
    from surefoot.evaluation import plots
    from surefoot.training.trajectory_store import TrajectoryStore

    trajectories = TrajectoryStore(files.trajectory())
    plan = runs.plan(params, batches)
    # Without a mark the model came from elsewhere, by `dvc pull` say: the run then has no history, but it is there.
    known = trajectories.runs().get(plan.identity)
    run = (known or runs.mark(params, batches, plan)) | {"results": {f"test/{name}": value for name, value in metrics.items()}}
    if known:
        trajectories.mark_run(plan.identity, run)  # if MLflow is out of reach now, `surefoot sync` writes them
    tracker = runs.publish(plan.identity, run, trajectories, files.Locks(trajectories.path / "lock"))
    with files.HISTORY.open(newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    training, validation = ([row[f"{split}/loss"] for row in history] for split in ("train", "validation"))
    chosen = 1 + (min(range(len(history)), key=validation.__getitem__) if params.train.select == "best" else len(history) - 1)
    tracker.artifact("plots/loss.png", plots.loss_curves([int(row["epoch"]) for row in history], training, validation, chosen))
    tracker.artifact("plots/confusion.png", plots.confusion(matrix, batches.classes))


if __name__ == "__main__":
    errors.run(main)
