"""A run: the chain that params.yaml and the data make, and its view in MLflow."""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot import files, provenance, serving, tracking
from surefoot.data.columns import describe_dropped
from surefoot.data.store import Store
from surefoot.errors import UserError
from surefoot.params import Params, flatten
from surefoot.training import numerics

if TYPE_CHECKING:
    from surefoot.training.sgd import Trainer
    from surefoot.training.trajectory import Chain, Segment
    from surefoot.training.trajectory_store import Record, TrajectoryStore

PATCH = "source/uncommitted.patch"
ACCOUNT = "trajectory.json"  # the artifact that `surefoot verify` compares with


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    identity: str
    origin: dict[str, Any]
    segments: "list[Segment]"
    make: "Callable[[], Trainer]"

    @property
    def epoch_keys(self) -> list[str]:
        """The key at the end of each epoch."""
        return [segment.key for segment in self.segments if segment.ends_epoch]


def plan(params: Params, batches: Store) -> Plan:
    """The chain of a training. Numerics must be pinned; the network is built and tried on one batch.

    Raises:
        UserError: the network can't be built, or doesn't fit the data.
    """
    from surefoot.training import model as networks
    from surefoot.training.objective import check_loss, objective
    from surefoot.training.origin import origin
    from surefoot.training.rows import Rows
    from surefoot.training.sgd import Trainer
    from surefoot.training.trajectory import segments

    train = params.train
    index = batches.index
    training, validation = (Rows.stored(split.inputs, split.targets, index["scale"]) for split in (batches.train, batches.validation))
    optimizer = train.model_dump(include={"momentum", "nesterov", "dampening", "weight_decay"})
    numerics.seed_step(params.seed, 0)  # a loss of the user's may draw
    aim = objective(batches.task, **train.loss.model_dump(), class_counts=index["splits"]["train"]["class_counts"])
    # What changes no step isn't here: `block` and `window` where all rows are shuffled.
    shuffle = {"shuffle": index["shuffle"], **({"block": index["block"], "window": index["window"]} if index["shuffle"] == "blocks" else {})}

    told: dict[str, str] = {}

    def schema() -> dict[str, Any]:
        given = batches.schema()
        told["schema"] = files.sha256(files.canonical_json(given))
        return given

    def make() -> Trainer:
        model = networks.build(train.model.factory, train.model.arguments, batches.input_shape, batches.outputs, params.seed, schema)
        return Trainer(model, optimizer, training, validation, batches.batch_size, params.seed, aim)

    trainer = make()
    first_state = networks.to_bytes(trainer.state())
    if networks.to_bytes(make().state()) != first_state:
        raise UserError(
            f"train.model.factory: {train.model.factory} gives other weights at each call, so no run could be made again; draw them from torch's generator"
        )
    outputs = networks.check_output(trainer.model, training.inputs[: batches.batch_size], batches.outputs)
    check_loss(aim, outputs, training.targets[: batches.batch_size])
    # `told`: a network that asks for the schema may compute by it what no array and no weight shows, such as a column's own scale.
    start = origin(
        seed=params.seed,
        numerics=params.numerics,
        threads=params.threads,
        deterministic=params.deterministic,
        fingerprint=numerics.fingerprint(),
        factory=train.model.factory,
        arguments=train.model.arguments,
        first_state=first_state,
        loss={"task": batches.task, **train.loss.model_dump(mode="json")},
        optimizer=optimizer,
        data={split: index["splits"][split] for split in ("train", "validation")}
        | {"batch_size": batches.batch_size, "drop_last": index["drop_last"], "classes": len(batches.classes), "scale": index["scale"], **shuffle, **told},
    )
    steps = -(-batches.rows_per_epoch // batches.batch_size)
    # The whole of the data: what a run shows also depends on the test rows, and its model on how inputs are prepared.
    identity = files.sha256(files.canonical_json([start, train.lr, train.epochs, train.select, batches.index["digest"]]))
    return Plan(identity, start, segments(start, [np.full(steps, train.lr)] * train.epochs, train.checkpoint_every), make)


def chain(params: Params, batches: Store, plan: Plan, store: "TrajectoryStore", **hooks: Any) -> "Chain":
    """The chain of a plan, with its rows; `hooks` go to `Chain`."""
    from surefoot.training.trajectory import Chain

    return Chain(plan.segments, store, plan.make, lambda epoch: batches.order(params.seed, epoch), **hooks)


def describe(params: Params, batches: Store, plan: Plan) -> tracking.Description:
    """What the run in MLflow says of itself."""
    train = params.train
    experiment = os.environ.get("DVC_EXP_NAME")
    network = train.model.factory.partition(":")[2]
    source = provenance.source()
    preparation = batches.index["preparation"]
    commit = {"mlflow.source.git.commit": source.commit, **_uncommitted(source)} if source.commit else {}
    return tracking.Description(
        name=experiment or f"{network} lr={train.lr:g} momentum={train.momentum:g} batch={batches.batch_size} epochs={train.epochs}",
        params=flatten(params.model_dump(mode="json")),
        dataset={
            "path": preparation["source"],
            "dvc_path": str(files.BATCHES),
            "digest": batches.index["digest"],
            "rows": {split: described["rows"] for split, described in batches.index["splits"].items()},
            "dropped": preparation["dropped"],
        },
        tags={
            "mlflow.source.name": "src/surefoot/stages/train.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            **commit,
            **({"DVC_EXP_NAME": experiment} if experiment else {}),
            "surefoot.fingerprint": plan.origin["numerics"]["fingerprint"],
            "surefoot.data.digest": batches.index["digest"],
            **({"surefoot.data.dropped": describe_dropped(preparation["dropped"])[:5000]} if preparation["dropped"] else {}),
        },
        texts={
            "environment/requirements.txt": provenance.packages(),
            "environment/machine.json": json.dumps(provenance.machine(), indent=2) + "\n",
            PATCH: source.patch.decode("utf-8", "surrogateescape"),
        },
    )


def _uncommitted(source: provenance.Source) -> dict[str, str]:
    # Each of them in any case: a run that is made again, from a clean tree, takes the tags over.
    return {
        "surefoot.git.dirty": str(bool(source.patch or source.left_out)).lower(),
        "surefoot.git.patch": files.sha256(source.patch),
        "surefoot.git.left_out": ", ".join(source.left_out)[:5000],
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())


def mark(params: Params, batches: Store, plan: Plan) -> dict[str, Any]:
    """What the store remembers of a run: enough to write all of its view in MLflow anew.

    `last`, `best` and `weights` (the digest of the chosen model) come when it is finished, `results` when it is evaluated.
    """
    preparation, splits = batches.index["preparation"], batches.index["splits"]
    return {
        "description": asdict(describe(params, batches, plan)),
        "origin": plan.origin,
        "data": {
            "source": {"path": preparation["source"], "md5": provenance.dvc_md5("prepare", str(files.RAW))},
            "digest": batches.index["digest"],
            **{split: {name: described[name]["sha256"] for name in ("inputs", "targets")} for split, described in splits.items()},
        },
        "epoch_keys": plan.epoch_keys,
        "select": params.train.select,
        "save_every": params.train.save_every,
        "model": {
            "factory": params.train.model.factory,
            "arguments": params.train.model.arguments,
            **{name: batches.index[name] for name in ("task", "classes", "input_shape", "features", "scale")},
        },
        "examples": preparation["examples"],
        "continues": [],
        "last": None,
        "best": None,
        "weights": None,
    }


def account(identity: str, run: dict[str, Any], store: "TrajectoryStore") -> dict[str, Any] | None:
    """All that was determined in a finished run, as digests and numbers; None where the store lacks records of it."""
    records = [store.record(key) for key in run["epoch_keys"]]
    if not run["last"] or not all(records):
        return None
    return {
        "identity": identity,
        "origin": run["origin"],
        "data": run["data"],
        "epochs": [{name: record[name] for name in ("epoch", "step", "key", "state", "metrics")} for record in records if record],
        "select": run["select"],
        "model": run["weights"],
    }


def metric_names(record: "Record") -> list[str]:
    """The metrics of an epoch in the order in which they are shown: the losses, what the task measures, the learning rate."""
    losses = ["train/loss", "validation/loss"]
    return [*losses, *sorted(record["metrics"].keys() - {*losses, "lr"}), "lr"]


def points(record: "Record") -> Iterator[tracking.Point]:
    """The metrics of an epoch, as they go to MLflow."""
    values = record["metrics"] | {"epoch_seconds": record["seconds"], "rows_per_second": record["rows"] / record["seconds"]}
    for name, value in values.items():
        yield tracking.Point(name, value, record["epoch"], record["ended"])


def interval_metrics(intervals: dict[str, dict[str, float]]) -> dict[str, float]:
    """The intervals of test metrics, as they go to MLflow: `test_interval/accuracy_low`. Not below `test/`, where they would stand between the figures."""
    return {f"test_interval/{name}_{end}": value for name, ends in intervals.items() for end, value in ends.items()}


def checkpoint(epoch: int) -> str:
    """Where a run in MLflow has the network after an epoch (`train.save_every`)."""
    return f"checkpoints/epoch-{epoch:04}.safetensors"


def publish(identity: str, run: dict[str, Any], store: "TrajectoryStore", locks: files.Locks) -> tracking.Tracker:
    """Bring to MLflow all that it lacks of a finished run; the run stays open in the tracker that is returned."""
    tracker = tracking.Tracker(identity, tracking.Description(**run["description"]), locks)
    tracker.open()
    if not tracker.complete:
        complete(tracker, run, store)
    tracker.results(run.get("results", {}))
    for plot in sorted((store.path / "plots" / identity).glob("*.png")):
        tracker.artifact(f"plots/{plot.name}", plot.read_bytes())
        if tracker.run_id:
            plot.unlink()
    return tracker


def keep_plots(identity: str, plots: dict[str, bytes], store: "TrajectoryStore") -> None:
    """Leave plots for `publish`, now or by `surefoot sync` when MLflow is back."""
    for name, data in plots.items():
        files.write_bytes(store.path / "plots" / identity / name, data)


def complete(tracker: tracking.Tracker, run: dict[str, Any], store: "TrajectoryStore") -> None:
    """Write the history, the checkpoints and the model of a finished run, whatever of them is there already."""
    from surefoot.training.origin import sources
    from surefoot.training.trajectory import network_of

    def weights(key: str) -> bytes | None:
        record = store.record(key)
        state = store.state(record) if record else None
        return network_of(state) if state else None

    for key in run["epoch_keys"]:
        record = store.record(key)
        if record:
            tracker.add(points(record))
    for other, epoch in run["continues"]:
        tracker.continues(other, epoch)
    if run["best"]:  # unknown where the model came from elsewhere
        tracker.results({"best_epoch": 1 + run["epoch_keys"].index(run["best"])})
    there = tracker.artifacts("checkpoints")
    saved = {checkpoint(epoch): key for epoch, key in enumerate(run["epoch_keys"], 1) if run["save_every"] and epoch % run["save_every"] == 0}
    wanted = {path: key for path, key in saved.items() if path not in there} | {f"checkpoints/{which}.safetensors": run[which] for which in ("best", "last")}
    for path, key in wanted.items():
        data = weights(key)
        if data:
            tracker.artifact(path, data)
    said = account(tracker.identity, run, store)
    if said:
        tracker.artifact(ACCOUNT, files.canonical_json(said))
    chosen = weights(run[run["select"]])
    # The model carries its code: it must still be the code that it was trained with.
    if chosen and sources(run["model"]["factory"]) == run["origin"]["model"]["source"]:
        tracker.model(lambda run_id: serving.log_model(run_id, chosen, run["model"], run["examples"]))
    tracker.end("FINISHED")
    tracker.tag({tracking.COMPLETE: "true"})
