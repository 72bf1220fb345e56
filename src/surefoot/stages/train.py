"""train: minibatch SGD from the batch store to the chosen model."""

import csv
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from surefoot import errors, files, provenance, serving, tracking
from surefoot.data.order import epoch_order
from surefoot.data.store import Store, open_store
from surefoot.errors import UserError
from surefoot.params import Params, flatten, load
from surefoot.training import numerics

if TYPE_CHECKING:
    from surefoot.training.sgd import Batches, Epoch

COLUMNS = ("epoch", "train/loss", "validation/loss", "validation/accuracy", "lr")


def main() -> None:
    """Read `data/batches/`; write the chosen model and the history; log the run to MLflow."""
    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads)
    store = open_store(files.BATCHES)
    fingerprint = numerics.fingerprint()
    with tracking.started(**_describe(params, store, fingerprint)) as run:
        history, weights = _train(params, store, run)
        files.write_bytes(files.MODEL, weights)
        files.write_bytes(files.HISTORY, _table(history))
        run.model(lambda run_id: _log_model(run_id, params, store, weights))


def _train(params: Params, store: Store, run: tracking.Tracker) -> tuple[list[dict[str, float]], bytes]:
    """Train as `params.train` says; returns a row an epoch, and the chosen epoch's weights."""
    import torch

    from surefoot.training import model as networks
    from surefoot.training import sgd

    train = params.train
    training, validation = (sgd.Rows(torch.from_numpy(split.inputs), torch.from_numpy(split.targets)) for split in (store.train, store.validation))
    model = networks.build(train.model.factory, train.model.arguments, store.input_shape, len(store.classes), params.seed)
    networks.check_output(model, training.inputs[: store.batch_size], len(store.classes))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, dampening=train.dampening, weight_decay=train.weight_decay
    )
    epochs = sgd.epochs(
        model,
        torch.nn.CrossEntropyLoss(),
        optimizer,
        training,
        validation,
        number=train.epochs,
        batch_size=store.batch_size,
        seed=params.seed,
        order=lambda epoch: torch.from_numpy(epoch_order(len(training.targets), params.seed, epoch)[: store.rows_per_epoch]),
        watch=lambda batches, epoch: _progress_bar(batches, epoch, params, store),
    )
    history: list[dict[str, float]] = []
    weights: dict[str, bytes] = {}
    least = float("inf")
    try:
        for epoch in epochs:
            history.append({"epoch": epoch.number, **epoch.metrics})
            weights["last"] = networks.save(model)
            if epoch.metrics["validation/loss"] < least:
                least, weights["best"] = epoch.metrics["validation/loss"], weights["last"]
            if train.save_every and epoch.number % train.save_every == 0:
                run.artifact(f"checkpoints/epoch-{epoch.number:04}.safetensors", weights["last"])
            run.metrics({**epoch.metrics, "epoch_seconds": epoch.seconds, "rows_per_second": epoch.rows / epoch.seconds}, step=epoch.number)
            _report(epoch, train.epochs)
    except sgd.Diverged as diverged:
        kept = "no epoch was finished, so no checkpoint is kept"
        if history:
            kept = f"the checkpoint of epoch {len(history)} is kept in the MLflow run {run.run_id} as checkpoints/last.safetensors"
        raise UserError(f"{diverged}; try a smaller train.lr\n{kept}") from None
    finally:
        for name, data in weights.items():
            run.artifact(f"checkpoints/{name}.safetensors", data)
    return history, weights[train.select]


def _describe(params: Params, store: Store, fingerprint: str) -> dict[str, Any]:
    """What the MLflow run says of itself, as arguments for `tracking.started`."""
    train = params.train
    experiment = os.environ.get("DVC_EXP_NAME")
    network = train.model.factory.partition(":")[2]
    return {
        "name": experiment or f"{network} lr={train.lr:g} momentum={train.momentum:g} batch={store.batch_size} epochs={train.epochs}",
        "params": flatten(params.model_dump(mode="json")),
        "tags": {
            tracking.IDENTITY: tracking.identity(params, store.index["digest"], fingerprint),
            "surefoot.fingerprint": fingerprint,
            "surefoot.data.digest": store.index["digest"],
            **({"DVC_EXP_NAME": experiment} if experiment else {}),
        },
        "dataset": {
            "path": store.index["preparation"]["source"],
            "dvc_path": str(files.BATCHES),
            "digest": store.index["digest"],
            "rows": {split: described["rows"] for split, described in store.index["splits"].items()},
        },
        "source": provenance.source(),
    }


def _log_model(run_id: str, params: Params, store: Store, weights: bytes) -> None:
    preparation = store.index["preparation"]
    network = {"factory": params.train.model.factory, "arguments": params.train.model.arguments}
    description = network | {"classes": store.classes, "input_shape": store.input_shape} | {key: preparation[key] for key in ("inputs", "subtract", "divide")}
    serving.log_model(run_id, weights, description, preparation["examples"])


def _report(epoch: "Epoch", epochs: int) -> None:
    metrics = "  ".join(f"{name} {epoch.metrics[name]:.4f}" for name in COLUMNS[1:-1])
    print(f"epoch {epoch.number:{len(str(epochs))}}/{epochs}  {metrics}  ({epoch.seconds:.2f} s, {epoch.rows / epoch.seconds:,.0f} rows/s)", flush=True)


def _progress_bar(batches: "Batches", epoch: int, params: Params, store: Store) -> "Batches":
    """A bar over the minibatches where a terminal is attached; it vanishes when the epoch is done."""
    if not sys.stderr.isatty():
        return batches
    from tqdm import tqdm

    return tqdm(batches, desc=f"epoch {epoch}/{params.train.epochs}", total=-(-store.rows_per_epoch // store.batch_size), unit="batch", leave=False)


def _table(history: list[dict[str, float]]) -> bytes:
    """The history as CSV; floats as the shortest text that reads back as the same number."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


if __name__ == "__main__":
    errors.run(main)
