"""What determines a run: the origin of its chain, from its inputs, and the digest of all that its view shows."""

from typing import Any

from surefoot.base import code_digests, digests
from surefoot.run.origin import make_origin, source_digests
from surefoot.run.plan.builder import average_settings, optimizer_settings, step_settings
from surefoot.run.plan.inputs import Inputs
from surefoot.training import numerics
from surefoot.training.schedule import Schedule


def origin_of(inputs: Inputs, first_state: bytes, schedule: Schedule, knows_schema: bool) -> dict[str, Any]:
    """What the first key is the digest of.

    Args:
        inputs: of the training.
        first_state: the state before the first step.
        schedule: of the run.
        knows_schema: whether the network was told of the columns.
    """
    params, train = inputs.params, inputs.params.train
    return make_origin(
        seed=params.seed,
        numerics={
            "profile": params.numerics,
            "threads": params.threads,
            "device": params.device,
            "deterministic": params.deterministic,
            "fingerprint": numerics.fingerprint(params.device, train.precision),
        },
        factory=train.model.factory,
        arguments=train.model.arguments,
        first_state=first_state,
        loss={"task": inputs.batches.task, **train.loss.model_dump(mode="json")},
        optimizer=train.optimizer.model_dump(mode="json") | optimizer_settings(train),
        step=step_settings(train) | ({"shards": train.shards} if train.shards > 1 else {}),
        average=average_settings(train),
        schedule={"columns": schedule.columns, "follows": schedule.metric},
        data=_data(inputs, knows_schema),
        start={"weights": inputs.start.note.weights} if inputs.start and inputs.weights is not None else None,
    )


def _data(inputs: Inputs, knows_schema: bool) -> dict[str, Any]:
    """The rows that are trained and validated on, and how they are batched."""
    batches, index = inputs.batches, inputs.batches.index
    found = {
        "train": index.splits["train"].plain(),
        "validation": index.splits["validation"].plain(),
        "batch_size": index.batch_size,
        "drop_last": index.drop_last,
        "classes": len(index.classes),
        "scale": index.scale,
        "shuffle": index.shuffle,
    }
    if index.shuffle == "blocks":  # where all rows are shuffled these change no step
        found |= {"block": index.block, "window": index.window}
    if knows_schema:  # it may compute by it what no array and no weight shows, such as a column's own scale
        found["schema"] = digests.sha256(digests.canonical_json(batches.schema()))
    if batches.target_scale:
        found["target_scale"] = batches.target_scale
    if batches.only is not None:
        found["only"] = batches.only
    return found


def identity_of(inputs: Inputs, origin: dict[str, Any]) -> str:
    """The identity of a run, under which its view in MLflow is found."""
    ends = inputs.params.train.model_dump(
        mode="json", include={"epochs", "max_steps", "early_stopping", "schedule", "select"}
    )
    # A schedule of the user's by its source; nothing where it is torch's own.
    scheduled = code_digests.functions_in(ends["schedule"])
    theirs = [source_digests(*scheduled)] if scheduled else []
    # The whole of the data: what a run shows also depends on the test rows, and its model on how inputs are prepared.
    data = inputs.batches.index.digest
    return digests.sha256(digests.canonical_json([origin, inputs.lr, ends, data, *theirs]))
