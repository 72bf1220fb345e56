"""A run: the chain that params.yaml and the data make, and its view in MLflow."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from surefoot.base import code_digests, digests, paths
from surefoot.base.errors import UserError
from surefoot.data.batch_store import Store
from surefoot.data.part_files import Range
from surefoot.params.sections import Params
from surefoot.run import new_rows, start_from
from surefoot.run.start_note import StartNote
from surefoot.training import numerics

if TYPE_CHECKING:
    from surefoot.run.chain import Chain
    from surefoot.run.trajectory_store import Record, TrajectoryStore
    from surefoot.training.loop import Trainer
    from surefoot.training.schedule import Schedule


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    identity: str
    origin: dict[str, Any]
    lr: float  # in effect: scaled, if that is asked for
    steps_per_epoch: int
    schedule: "Callable[[], Schedule]"
    make: "Callable[[], Trainer]"
    start: StartNote | None  # what is said of the model that it starts from
    weights: bytes | None  # of that model
    only: tuple[Range, ...] | None  # the training rows that are trained on, if not all

    def epoch_keys(self) -> list[str]:
        """The key at the end of each epoch, as far as they are known before anything is trained: none where the
        schedule follows a metric.
        """
        from surefoot.run.chain import segments
        from surefoot.training.schedule import epochs

        schedule = self.schedule()
        if schedule.metric:
            return []
        return [segment.key for segment in segments(self.origin, epochs(schedule), 0, self.steps_per_epoch)]


def plan(params: Params, batches: Store) -> Plan:
    """The chain of a training. Numerics must be pinned; the network is built and tried on one batch.

    Raises:
        UserError: the network can't be built, or doesn't fit the data; the model that it is to start from isn't there,
        or doesn't fit it.
    """
    from surefoot.run.origin import origin, sources
    from surefoot.run.trajectory_store import TrajectoryStore
    from surefoot.training import network as networks
    from surefoot.training import optimizer as optimizers
    from surefoot.training.loop import Step, Trainer
    from surefoot.training.minibatches import Rows
    from surefoot.training.objective import check_loss, objective
    from surefoot.training.schedule import Schedule
    from surefoot.training.weight_average import Average

    begin = start_from.load(params, TrajectoryStore(paths.trajectory_store()))
    batches = new_rows.select(params.train.rows, batches, begin.note if begin else None)
    weights = networks.saved(begin.weights, str(begin.note.name)) if begin and begin.weights is not None else None
    train, device = params.train, params.device
    index = batches.index
    numerics.check_precision(train.precision, params.numerics, device)
    training, validation = (
        Rows.stored(split.inputs, split.targets, index["scale"], batches.target_scale)
        for split in (batches.train, batches.validation)
    )
    numerics.seed_step(params.seed, 0)  # a loss of the user's may draw
    of_data = {"class_counts": index["splits"]["train"]["class_counts"], "unit": batches.target_unit}
    aim = objective(batches.task, **train.loss.model_dump(), **of_data, device=device)
    # What changes no step isn't here: `block` and `window` where all rows are shuffled.
    shuffle = {
        "shuffle": index["shuffle"],
        **({"block": index["block"], "window": index["window"]} if index["shuffle"] == "blocks" else {}),
    }
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
        told["schema"] = digests.sha256(digests.canonical_json(given))
        return given

    def build() -> tuple[Any, Any]:
        model = networks.build(
            train.model.factory,
            train.model.arguments,
            batches.input_shape,
            batches.outputs,
            params.seed,
            schema,
            device,
        )
        if begin and weights is not None:
            try:
                networks.start_from(model, weights, str(begin.note.name))
            except (
                UserError
            ) as error:  # a line each, which aren't told apart there: that module is part of each run's identity
                raise UserError(*str(error.args[0]).rsplit("\n", 1)) from None
        return model, optimizers.optimizer(model, lr=lr, own=own, **of_optimizer)

    _, groups = build()
    _check_codes(train.model.factory, index["features"] or [], "schema" in told)

    def schedule() -> Schedule:
        return Schedule(
            [part.model_dump() for part in train.schedule], groups, train.epochs, steps_per_epoch, train.max_steps
        )

    columns = schedule().columns

    def make() -> Trainer:
        model, optimizer = build()
        averaged = Average(model, **average) if average else None
        return Trainer(
            model, optimizer, training, validation, batches.batch_size, params.seed, aim, step, averaged, columns
        )

    trainer = make()
    first_state = networks.to_bytes(trainer.state())
    if networks.to_bytes(make().state()) != first_state:
        raise UserError(
            f"train.model.factory: {train.model.factory} gives other weights at each call, so no run could be made"
            " again; draw them from torch's generator"
        )
    outputs = networks.check_output(trainer.model, training.inputs[: batches.batch_size], batches.outputs)
    check_loss(aim, outputs, training.targets[: batches.batch_size].to(outputs.device))
    _check_metrics(
        params,
        [f"validation/{name}" for name in ("loss", *aim.measure(outputs, training.targets[: batches.batch_size]))],
        schedule().metric,
    )
    # `told`: a network that asks for the schema may compute by it what no array and no weight shows, such as a column's
    # own scale.
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
        | {
            "batch_size": batches.batch_size,
            "drop_last": index["drop_last"],
            "classes": len(batches.classes),
            "scale": index["scale"],
            **shuffle,
            **told,
        }
        | ({"target_scale": batches.target_scale} if batches.target_scale else {})
        | ({"only": batches.only} if batches.only is not None else {}),
        start={"weights": begin.note.weights} if begin and weights is not None else None,
    )
    # The whole of the data: what a run shows also depends on the test rows, and its model on how inputs are prepared.
    ends = train.model_dump(mode="json", include={"epochs", "max_steps", "early_stopping", "schedule", "select"})
    # A schedule of the user's by its source; nothing where it is torch's own.
    scheduled = code_digests.functions_in(ends["schedule"])
    theirs = [sources(*scheduled)] if scheduled else []
    identity = digests.sha256(digests.canonical_json([first, lr, ends, batches.index["digest"], *theirs]))
    # Whether the preparation of the model was kept, too (`surefoot.data.kept_preparation`).
    keeps = {"keeps": begin is not None and begin.preparation is not None and not params.prepare.refit}
    said = StartNote.model_validate(begin.note.said() | keeps) if begin else None
    return Plan(
        identity, first, lr, steps_per_epoch, schedule, make, said, begin.weights if begin else None, batches.only
    )


def _check_codes(factory: str, features: list[dict[str, Any]], knows_schema: bool) -> None:
    """Check that a network which is given the codes of categories asks for the schema, which says where they are: as
    mere numbers they mean nothing.
    """
    coded = [feature for feature in features if feature.get("encode") == "codes"]
    if coded and not knows_schema:
        widest = max(coded, key=lambda feature: len(feature["values"]))
        raise UserError(
            f"train.model.factory: {factory} would take the codes of categories as amounts, of column"
            f" {widest['column']!r} from 0 to {len(widest['values']):,} (prepare.categories: codes); take"
            " networks.table:table, which embeds them, or give your factory a parameter `schema`, which says where"
            " they are, or set prepare.categories: onehot"
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
    """A learning rate that is meant for steps of `reference` rows, for steps of `rows`; what isn't a number is left to
    the optimizer to refuse.
    """
    return lr * rows / reference if reference and isinstance(lr, int | float) else lr


def _check_metrics(params: Params, validated: list[str], plateau: str | None) -> None:
    """See whether the metrics that are followed are measured in each epoch."""
    averaged = [name.replace("/", "/average_", 1) for name in validated] if params.train.average.name != "none" else []
    logged = ["train/loss", *validated, *averaged, "gradient_norm"]
    early = params.train.early_stopping
    for key, metric in (
        ("schedule.metric", plateau),
        ("early_stopping.metric", early.metric if early.patience else None),
    ):
        if metric is not None and metric not in logged:
            raise UserError(f"train.{key}: no metric {metric!r} is logged; there are {', '.join(logged)}")
        if key == "schedule.metric" and metric in averaged and params.train.average.start > 1:
            raise UserError(
                f"train.{key}: {metric} is first there after epoch {params.train.average.start} (train.average.start);"
                " set that to 1"
            )


def chain(params: Params, batches: Store, plan: Plan, store: "TrajectoryStore", **hooks: Any) -> "Chain":
    """The chain of a plan, with its rows; `hooks` go to `Chain`."""
    from surefoot.run.chain import Chain, early_stopping, planner
    from surefoot.training.schedule import rises

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
        raise UserError(
            f"train.select: {select}: the run ended before train.average.start, so nothing was averaged; choose best or"
            " last"
        )
    return there[-1] if which == "last" else min(there, key=lambda record: float(record["metrics"][loss]))
