"""A run: the chain that params.yaml and the data make, and its view in MLflow."""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot import errors, files, locked, lookup, onnx_export, overview, provenance, serving, start, tracking, user_code
from surefoot.data import new_rows
from surefoot.data.cleaning import describe_dropped
from surefoot.data.parts import Range
from surefoot.data.store import Store
from surefoot.errors import UserError
from surefoot.params import NO_RESULT, Params, flatten, parse, registered_as
from surefoot.training import numerics

if TYPE_CHECKING:
    from surefoot.training.schedule import Schedule
    from surefoot.training.sgd import Trainer
    from surefoot.training.trajectory import Chain
    from surefoot.training.trajectory_store import Record, TrajectoryStore

ACCOUNT = "trajectory.json"  # the artifact that `surefoot verify` compares with


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    identity: str
    origin: dict[str, Any]
    lr: float  # in effect: scaled, if that is asked for
    steps_per_epoch: int
    schedule: "Callable[[], Schedule]"
    make: "Callable[[], Trainer]"
    start: dict[str, Any] | None  # what is said of the model that it starts from
    weights: bytes | None  # of that model
    only: tuple[Range, ...] | None  # the training rows that are trained on, if not all

    def epoch_keys(self) -> list[str]:
        """The key at the end of each epoch, as far as they are known before anything is trained: none where the schedule follows a metric."""
        from surefoot.training.schedule import epochs
        from surefoot.training.trajectory import segments

        schedule = self.schedule()
        if schedule.metric:
            return []
        return [segment.key for segment in segments(self.origin, epochs(schedule), 0, self.steps_per_epoch)]


def plan(params: Params, batches: Store) -> Plan:
    """The chain of a training. Numerics must be pinned; the network is built and tried on one batch.

    Raises:
        UserError: the network can't be built, or doesn't fit the data; the model that it is to start from isn't there, or doesn't fit it.
    """
    from surefoot.training import model as networks
    from surefoot.training import optimizer as optimizers
    from surefoot.training.average import Average
    from surefoot.training.objective import check_loss, objective
    from surefoot.training.origin import origin, sources
    from surefoot.training.rows import Rows
    from surefoot.training.schedule import Schedule
    from surefoot.training.sgd import Step, Trainer
    from surefoot.training.trajectory_store import TrajectoryStore

    begin = start.load(params, TrajectoryStore(files.trajectory()))
    batches = new_rows.select(params.train.rows, batches, begin.said if begin else None)
    weights = networks.saved(begin.weights, str(begin.note.name)) if begin and begin.weights is not None else None
    train, device = params.train, params.device
    index = batches.index
    numerics.check_precision(train.precision, params.numerics, device)
    training, validation = (Rows.stored(split.inputs, split.targets, index["scale"], batches.target_scale) for split in (batches.train, batches.validation))
    numerics.seed_step(params.seed, 0)  # a loss of the user's may draw
    of_data = {"class_counts": index["splits"]["train"]["class_counts"], "unit": batches.target_unit}
    aim = objective(batches.task, **train.loss.model_dump(), **of_data, device=device)
    # What changes no step isn't here: `block` and `window` where all rows are shuffled.
    shuffle = {"shuffle": index["shuffle"], **({"block": index["block"], "window": index["window"]} if index["shuffle"] == "blocks" else {})}
    step = Step(**train.model_dump(include={"accumulate", "clip_norm", "clip_value", "precision"}))
    rows_per_step = batches.batch_size * step.accumulate
    steps_per_epoch = -(-batches.rows_per_epoch // rows_per_step)
    lr = _scaled(train.lr, train.lr_reference_batch, rows_per_step)
    of_optimizer = train.optimizer.model_dump()
    for group in of_optimizer["groups"]:
        if "lr" in group["arguments"]:
            group["arguments"]["lr"] = _scaled(group["arguments"]["lr"], train.lr_reference_batch, rows_per_step)
    own = train.model_dump(include=set(optimizers.OWN))
    average = train.average.model_dump() if train.average.name != "none" else {}

    told: dict[str, str] = {}

    def schema() -> dict[str, Any]:
        given = batches.schema()
        told["schema"] = files.sha256(files.canonical_json(given))
        return given

    def build() -> tuple[Any, Any]:
        model = networks.build(train.model.factory, train.model.arguments, batches.input_shape, batches.outputs, params.seed, schema, device)
        if begin and weights is not None:
            try:
                networks.start_from(model, weights, str(begin.note.name))
            except UserError as error:  # a line each, which aren't told apart there: that module is part of each run's identity
                raise UserError(*str(error.args[0]).rsplit("\n", 1)) from None
        return model, optimizers.optimizer(model, lr=lr, own=own, **of_optimizer)

    _, groups = build()
    _check_codes(train.model.factory, index["features"] or [], "schema" in told)

    def schedule() -> Schedule:
        return Schedule([part.model_dump() for part in train.schedule], groups, train.epochs, steps_per_epoch, train.max_steps)

    columns = schedule().columns

    def make() -> Trainer:
        model, optimizer = build()
        averaged = Average(model, **average) if average else None
        return Trainer(model, optimizer, training, validation, batches.batch_size, params.seed, aim, step, averaged, columns)

    trainer = make()
    first_state = networks.to_bytes(trainer.state())
    if networks.to_bytes(make().state()) != first_state:
        raise UserError(
            f"train.model.factory: {train.model.factory} gives other weights at each call, so no run could be made again; draw them from torch's generator"
        )
    outputs = networks.check_output(trainer.model, training.inputs[: batches.batch_size], batches.outputs)
    check_loss(aim, outputs, training.targets[: batches.batch_size].to(outputs.device))
    _check_metrics(params, [f"validation/{name}" for name in ("loss", *aim.measure(outputs, training.targets[: batches.batch_size]))], schedule().metric)
    # `told`: a network that asks for the schema may compute by it what no array and no weight shows, such as a column's own scale.
    first = origin(
        seed=params.seed,
        numerics=params.numerics,
        threads=params.threads,
        device=device,
        deterministic=params.deterministic,
        fingerprint=numerics.fingerprint(device, train.precision),
        factory=train.model.factory,
        arguments=train.model.arguments,
        first_state=first_state,
        loss={"task": batches.task, **train.loss.model_dump(mode="json")},
        optimizer=train.optimizer.model_dump(mode="json") | own,
        step=train.model_dump(include={"accumulate", "clip_norm", "clip_value", "precision"}),
        average=average,
        schedule={"columns": columns, "follows": schedule().metric},
        data={split: index["splits"][split] for split in ("train", "validation")}
        | {"batch_size": batches.batch_size, "drop_last": index["drop_last"], "classes": len(batches.classes), "scale": index["scale"], **shuffle, **told}
        | ({"target_scale": batches.target_scale} if batches.target_scale else {})
        | ({"only": batches.only} if batches.only is not None else {}),
        start={"weights": begin.note.weights} if begin and weights is not None else None,
    )
    # The whole of the data: what a run shows also depends on the test rows, and its model on how inputs are prepared.
    ends = train.model_dump(mode="json", include={"epochs", "max_steps", "early_stopping", "schedule", "select"})
    # A schedule of the user's by its source; nothing where it is torch's own.
    scheduled = user_code.functions_in(ends["schedule"])
    theirs = [sources(*scheduled)] if scheduled else []
    identity = files.sha256(files.canonical_json([first, lr, ends, batches.index["digest"], *theirs]))
    # Whether the preparation of the model was kept, too (`surefoot.data.kept`).
    said = begin.said | {"keeps": begin.preparation is not None and not params.prepare.refit} if begin else None
    return Plan(identity, first, lr, steps_per_epoch, schedule, make, said, begin.weights if begin else None, batches.only)


def _check_codes(factory: str, features: list[dict[str, Any]], knows_schema: bool) -> None:
    """Check that a network which is given the codes of categories asks for the schema, which says where they are: as mere numbers they mean nothing."""
    coded = [feature for feature in features if feature.get("encode") == "codes"]
    if coded and not knows_schema:
        widest = max(coded, key=lambda feature: len(feature["values"]))
        raise UserError(
            f"train.model.factory: {factory} would take the codes of categories as amounts, of column {widest['column']!r} from 0 to {len(widest['values']):,} "
            "(prepare.categories: codes); take networks.table:table, which embeds them, or give your factory a parameter `schema`, which says where they are, "
            "or set prepare.categories: onehot"
        )


def remedies(params: Params, batches: Store) -> str:
    """What may help against a training that diverges, beside a smaller `train.lr`, as the end of a sentence."""
    from surefoot.training import divergence

    return divergence.remedies(
        batches.task,
        params.train.loss.name,
        inputs_scaled=batches.inputs_scaled,
        target_scaled=batches.target_scale is not None,
    )


def _scaled(lr: Any, reference: int | None, rows: int) -> Any:
    """A learning rate that is meant for steps of `reference` rows, for steps of `rows`; what isn't a number is left to the optimizer to refuse."""
    return lr * rows / reference if reference and isinstance(lr, int | float) else lr


def _check_metrics(params: Params, validated: list[str], plateau: str | None) -> None:
    """See whether the metrics that are followed are measured in each epoch."""
    averaged = [name.replace("/", "/average_", 1) for name in validated] if params.train.average.name != "none" else []
    logged = ["train/loss", *validated, *averaged, "gradient_norm"]
    early = params.train.early_stopping
    for key, metric in (("schedule.metric", plateau), ("early_stopping.metric", early.metric if early.patience else None)):
        if metric is not None and metric not in logged:
            raise UserError(f"train.{key}: no metric {metric!r} is logged; there are {', '.join(logged)}")
        if key == "schedule.metric" and metric in averaged and params.train.average.start > 1:
            raise UserError(f"train.{key}: {metric} is first there after epoch {params.train.average.start} (train.average.start); set that to 1")


def chain(params: Params, batches: Store, plan: Plan, store: "TrajectoryStore", **hooks: Any) -> "Chain":
    """The chain of a plan, with its rows; `hooks` go to `Chain`."""
    from surefoot.training.schedule import rises
    from surefoot.training.trajectory import Chain, early_stopping, planner

    train, chosen = params.train, replace(batches, only=plan.only)
    ends = early_stopping(**train.early_stopping.model_dump(), rises=rises(train.early_stopping.metric))
    planned = planner(plan.origin, plan.schedule().next_epoch, train.checkpoint_every, plan.steps_per_epoch)
    epochs = min(train.epochs, -(-train.max_steps // plan.steps_per_epoch)) if train.max_steps else train.epochs
    return Chain(planned, epochs, store, plan.make, lambda epoch: chosen.order(params.seed, epoch), ends=ends, **hooks)


def choose(select: str, history: "list[Record]") -> "Record":
    """The epoch of a run whose model is kept, by `train.select`.

    Raises:
        UserError: no epoch has averaged weights.
    """
    which, _, averaged = select.partition("_")
    loss = f"validation/{'average_' if averaged else ''}loss"
    there = [record for record in history if loss in record["metrics"]]
    if not there:
        raise UserError(f"train.select: {select}: the run ended before train.average.start, so nothing was averaged; choose best or last")
    return there[-1] if which == "last" else min(there, key=lambda record: float(record["metrics"][loss]))


def describe(params: Params, batches: Store, plan: Plan) -> tracking.Description:
    """What the run in MLflow says of itself."""
    experiment, trial = os.environ.get("DVC_EXP_NAME"), os.environ.get("SUREFOOT_TRIAL")
    group = sweep(trial or experiment or "", os.environ.get("DVC_EXP_BASELINE_REV", ""))
    source = provenance.source(provenance.raw_places(flatten(params.model_dump(mode="json"))))
    preparation = batches.index["preparation"]
    git = {tracking.NO_GIT: source.trouble}
    if source.commit:
        git |= {"mlflow.source.git.commit": source.commit, **_uncommitted(source)}
    return tracking.Description(
        name=_name(params, trial or experiment),
        params=flatten(params.model_dump(mode="json")),
        dataset={
            "path": preparation["source"],
            "dvc_path": str(files.BATCHES),
            "digest": _data_digest(batches),
            "batches": batches.index["digest"],
            "rows": {split: described["rows"] for split, described in batches.index["splits"].items()},
            "dropped": preparation["dropped"],
        },
        tags={
            "mlflow.source.name": "src/surefoot/stages/train.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            **git,
            **({"DVC_EXP_NAME": experiment} if experiment else {}),
            **({tracking.SWEEP: group} if group else {}),
            "surefoot.fingerprint": plan.origin["numerics"]["fingerprint"],
            "surefoot.data.digest": _data_digest(batches),
            "surefoot.data.dropped": describe_dropped(preparation["dropped"]) if preparation["dropped"] else "",
        },
        texts={
            "environment/requirements.txt": provenance.packages(),
            "environment/machine.json": json.dumps(provenance.machine(), indent=2) + "\n",
        },
    )


def _data_digest(batches: Store) -> str:
    """The digest of what was prepared of which data, whatever batches were made of it."""
    index = batches.index
    read = [part["digest"] for part in index["parts"]] or {split: described["targets"]["sha256"] for split, described in index["splits"].items()}
    return files.sha256(files.canonical_json([read, index["features"], index["classes"], index["preparation"]["split"]]))


def group_names(params: Params) -> list[str]:
    """What to call each group of the optimizer: its pattern. The last are the parameters of no pattern, if there are any."""
    return [*(group.parameters for group in params.train.optimizer.groups if not group.frozen), "all others"]


def schedule_title(params: Params) -> str:
    """What a plot of the schedule is called."""
    parts = params.train.schedule
    lengths = [f", {part.length} {part.per}s" if part.length else "" for part in parts]
    return ", then ".join(f"{part.name}{length}" for part, length in zip(parts, lengths, strict=True))


def _name(params: Params, label: str | None) -> str:
    """What a run is called: its data set, what differs from the last commit, and what it is otherwise; at the end the experiment's or trial's name."""
    now = flatten(params.model_dump(mode="json"))
    committed = parse(provenance.committed(str(files.PARAMS)) or b"")
    before = flatten(committed.model_dump(mode="json")) if committed else now
    told = _told(params)
    differs = [key for key, value in now.items() if key not in ("prepare.source", *NO_RESULT) and before.get(key, NOT_GIVEN) != value]
    if label:  # in a sweep what others vary is told, too
        differs = list(dict.fromkeys(["train.lr", "batch.size", *differs]))
    texts = [told.get(key, f"{key.partition('.')[2] or key}={_short(now[key])}") for key in differs]
    others = [] if label else [text for key, text in told.items() if key not in differs]
    return " ".join(text[:60] for text in dict.fromkeys([_data_set(params.prepare.source), *texts, *others, label or ""]) if text)[:200]


def _data_set(source: str) -> str:
    """What the data are called: `digits` for data/raw/digits.csv and for sklearn:digits."""
    name = Path(source.removeprefix("sklearn:")).name
    return name.partition(".")[0] if ":" not in name and not name.startswith(".") else name


def _told(params: Params) -> dict[str, str]:
    """What tells one run from another, shortly, by the key that says it."""
    train = params.train
    schedules = " ".join(part.name.rpartition(":")[2] for part in train.schedule if part.name != "constant")
    return {
        "train.model.factory": train.model.factory.partition(":")[2],
        "train.optimizer.name": "" if train.optimizer.name == "SGD" else train.optimizer.name,
        "train.lr": f"lr={train.lr:g}",
        "train.momentum": f"momentum={train.momentum:g}" if train.optimizer.name == "SGD" or train.momentum else "",
        "train.schedule.name": schedules,
        "batch.size": f"batch={params.batch.size}",
        "train.epochs": f"epochs={train.epochs}",
        "train.start_from": f"from {train.start_from[:32]}" if train.start_from else "",
    }


NOT_GIVEN = object()


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))


def sweep(experiment: str, baseline: str) -> str:
    """What all runs of a sweep have in common: `--name lr` makes experiments lr-1, lr-2, ...; those without a name share the commit they started from."""
    prefix, _, number = experiment.rpartition("-")
    return prefix if number.isdecimal() else baseline[:7]


def _uncommitted(source: provenance.Source) -> dict[str, str]:
    """Tags of what isn't committed; the patch itself goes to the trajectory store, and from there to MLflow."""
    # Each of them in any case: a run that is made again, from a clean tree, takes the tags over.
    return {
        "surefoot.git.dirty": str(bool(source.patch or source.left_out)).lower(),
        tracking.PATCH_DIGEST: provenance.keep_patch(source.patch),
        "surefoot.git.left_out": ", ".join(source.left_out),
        "surefoot.git.data": provenance.data_digest(source.data),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())


def mark(params: Params, batches: Store, plan: Plan) -> dict[str, Any]:
    """What the store remembers of a run: enough to write all of its view in MLflow anew.

    `epoch_keys`, `last`, `best`, `chosen` and `weights` (the digest of the chosen model) come when it is finished, `results` when it is evaluated.
    """
    preparation, splits = batches.index["preparation"], batches.index["splits"]
    return {
        "description": asdict(describe(params, batches, plan)),
        "origin": plan.origin,
        "data": {
            "source": {"path": preparation["source"], "md5": locked.md5("prepare", "deps", files.RAW)},
            "digest": batches.index["digest"],
            **{split: {name: described[name]["sha256"] for name in ("inputs", "targets")} for split, described in splits.items()},
        },
        "epochs": params.train.epochs,
        "epoch_keys": plan.epoch_keys(),
        "incomplete": None,
        "select": params.train.select,
        "save_every": params.train.save_every,
        "register": params.train.register,
        "onnx": params.train.onnx,
        "model": {
            "factory": params.train.model.factory,
            "arguments": params.train.model.arguments,
            **batches.preparation,
        },
        "examples": preparation["examples"],
        "start": plan.start,
        "seen": new_rows.seen(batches.index, (plan.start or {}).get("seen")),
        "continues": [],
        "last": None,
        "best": None,
        "chosen": None,
        "weights": None,
    }


def account(identity: str, run: dict[str, Any], store: "TrajectoryStore") -> dict[str, Any] | None:
    """All that was determined in a finished run, as digests and numbers; None where the store lacks records of it."""
    records = [store.record(key) for key in run["epoch_keys"]]
    if not run["last"] or not all(records):
        return None
    return {
        "identity": identity,
        "params": run["description"]["params"],  # whole: MLflow cuts long ones
        "origin": run["origin"],
        "data": run["data"],
        "epochs": [{name: record[name] for name in ("epoch", "step", "key", "state", "metrics")} for record in records if record],
        "select": run["select"],
        "chosen": run.get("chosen"),
        "incomplete": run.get("incomplete"),  # a mark of an older Surefoot, whose code `surefoot verify` runs, has neither
        "start": {name: value for name, value in (run.get("start") or {}).items() if name != "seen"},
        "model": run["weights"],
    }


def metric_names(record: "Record") -> list[str]:
    """The metrics of an epoch in the order in which they are shown: the losses, what the task measures, the gradient's norm, the learning rate."""
    losses, last = ["train/loss", "validation/loss"], ["gradient_norm", "lr"]
    return [*losses, *sorted(record["metrics"].keys() - {*losses, *last}), *last]


def points(record: "Record") -> Iterator[tracking.Point]:
    """The metrics of an epoch, as they go to MLflow."""
    seconds = record["seconds"]
    values = record["metrics"] | {
        "epoch_seconds": seconds,
        "rows_per_second": record["rows"] / seconds,
        "steps_per_second": record["steps"] / seconds,
        "peak_memory_mb": record["peak_memory"] / 1e6,
    }
    for name, value in values.items():
        yield tracking.Point(name, value, record["epoch"], record["ended"])


def checkpoint(epoch: int) -> str:
    """Where a run in MLflow has the network after an epoch (`train.save_every`)."""
    return f"checkpoints/epoch-{epoch:04}.safetensors"


def publish(identity: str, run: dict[str, Any], store: "TrajectoryStore", locks: files.Locks, anew: bool = True) -> tracking.Tracker:
    """Bring to MLflow all that it lacks of a finished run; the run stays open in the tracker that is returned, which says what it still lacks.

    `anew`: also where the run was deleted there.
    """
    tracker = tracking.Tracker(identity, tracking.Description(**run["description"]), locks)
    tracker.open(anew=anew)
    went_on = tracker.incomplete != (run.get("incomplete") or "")  # while MLflow was out of reach
    if not tracker.complete or went_on or tracker.model_weights != run["weights"]:
        complete(tracker, run, store)
    results = run.get("results", {})
    tracker.results({name: value for name, value in results.items() if not name.startswith(lookup.INTERVAL)})
    ranges: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        if name.startswith(lookup.INTERVAL):
            metric, _, end = name.removeprefix(lookup.INTERVAL).rpartition("_")
            ranges.setdefault(metric, {})[end] = value
    if ranges:
        tracker.artifact(lookup.INTERVALS, files.canonical_json({"test": ranges}))
    describe_in_mlflow(tracker, run)
    for plot in sorted((store.path / "plots" / identity).glob("*.png")):
        path = f"plots/{plot.name}"
        tracker.artifact(path, plot.read_bytes())
        if tracker.run_id and path not in tracker.lacks:
            plot.unlink()
    return tracker


def describe_in_mlflow(tracker: tracking.Tracker, run: dict[str, Any]) -> None:
    """Write the description that the run's page in MLflow opens on, with links to the run that it goes on from, and to the model that it started from."""
    links = [tracker.continues(other, epoch) for other, epoch in run["continues"]]
    if run.get("start") and run["start"]["weights"]:
        links.append(tracker.started(run["start"]))
    tracker.note(overview.markdown(run, tracker.run_id or "", " ".join(links)))


def keep_plots(identity: str, plots: dict[str, bytes], store: "TrajectoryStore") -> None:
    """Leave plots for `publish`, now or by `surefoot sync` when MLflow is back."""
    for name, data in plots.items():
        files.write_bytes(store.path / "plots" / identity / name, data)


def complete(tracker: tracking.Tracker, run: dict[str, Any], store: "TrajectoryStore") -> None:
    """Write the history, the checkpoints and the model of a finished run, whatever of them is there already; the tracker notes what can't be."""
    from surefoot.training.trajectory import network_of

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
        tracker.results({"best_epoch": 1 + run["epoch_keys"].index(run["best"]), "chosen_epoch": 1 + run["epoch_keys"].index(run["chosen"])})
        tracker.tag({tracking.INCOMPLETE: run["incomplete"] or ""})
    there = tracker.artifacts("checkpoints")
    saved = {checkpoint(epoch): key for epoch, key in enumerate(run["epoch_keys"], 1) if run["save_every"] and epoch % run["save_every"] == 0}
    data = {path: weights(key) for path, key in saved.items() if path not in there}
    data |= {f"checkpoints/{which}.safetensors": weights(run[which]) for which in ("best", "last") if run[which]}
    chosen = weights(run["chosen"], run["select"].endswith("_average")) if run["chosen"] else None
    for path, network in (data | ({f"checkpoints/{run['select']}.safetensors": chosen} if run["chosen"] else {})).items():
        if network:
            tracker.artifact(path, network)
        elif path not in there:
            tracker.lack(path, f"its state is gone from {store.path}")
    for path, given in start.artifacts(run, store).items():
        if path not in tracker.artifacts(str(Path(path).parent)):
            tracker.artifact(path, given)
    said = account(tracker.identity, run, store)
    if said:
        tracker.artifact(ACCOUNT, files.canonical_json(said))
    if run["chosen"]:
        _log_model(tracker, run, store, chosen)
    if run.get("register"):
        tracker.register(*registered_as(run["register"]))
    tracker.end("FINISHED")
    tracker.tag({tracking.COMPLETE: "false" if tracker.lacks else "true"})


def _log_model(tracker: tracking.Tracker, run: dict[str, Any], store: "TrajectoryStore", chosen: bytes | None) -> None:
    """Log the chosen model, if it isn't there: from its weights, and the code that made them, which a model carries."""
    if tracker.model_weights != run["weights"]:
        if chosen is None:
            tracker.lack("its model", f"its state is gone from {store.path}")
            return
        other = _edited(run)
        if other:
            commit = run["description"]["tags"].get("mlflow.source.git.commit", "")[:12]
            mend = "put it back" + (f" (it was made at the commit {commit})" if commit else "")
            tracker.lack("its model", f"{other} isn't the code that it was trained with, and a model carries its code; {mend}, then run `surefoot sync`")
            return
    if chosen is None:
        return
    tracker.model(
        files.sha256(chosen), len(chosen), lambda run_id: serving.log_model(run_id, run["description"]["name"], chosen, run["model"], run["examples"])
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
    from surefoot.training.origin import sources

    before = run["origin"]["model"]["source"]
    try:
        now = sources(run["model"]["factory"])
    except (UserError, ImportError, OSError, SyntaxError):  # it is gone
        now = {}
    return ", ".join(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
