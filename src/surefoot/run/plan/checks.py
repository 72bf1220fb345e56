"""What can be seen to be wrong before the first step."""

from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base.errors import UserError
from surefoot.base.installation import included_network
from surefoot.base.user_code import describe_error
from surefoot.params.sections import Params
from surefoot.run.plan.inputs import Inputs
from surefoot.training.loop import Trainer
from surefoot.training.network import device_of
from surefoot.training.preflight import check_loss, check_output
from surefoot.training.sharded.sharded_step import shard_sizes


def check_repeats_itself(factory: str, network: nn.Module, again: nn.Module, same: bool) -> None:
    """See whether a factory makes the same network each time, and a new one.

    Args:
        factory: its import path.
        network: that it made.
        again: the one of its next call.
        same: whether their first states are the same.

    Raises:
        UserError: it doesn't.
    """
    if network is again:  # which is trained, so it isn't in its first state when a training begins again
        raise UserError(f"train.model.factory: {factory} gives the same network at each call; make a new one in it")
    if not same:
        raise UserError(
            f"train.model.factory: {factory} gives other weights at each call, so no run could be made again; draw them"
            " from torch's generator"
        )


def check_codes(factory: str, features: list[dict[str, Any]], knows_schema: bool) -> None:
    """See whether a network that is given the codes of categories asks for the schema, which says where they are: as
    mere numbers they mean nothing.

    Raises:
        UserError: it doesn't.
    """
    coded = [feature for feature in features if feature.get("encode") == "codes"]
    if coded and not knows_schema:
        widest = max(coded, key=lambda feature: len(feature["values"]))
        raise UserError(
            f"train.model.factory: {factory} would take the codes of categories as amounts, of column"
            f" {widest['column']!r} from 0 to {len(widest['values']):,} (prepare.categories: codes); take"
            f" {included_network('table:table')}, which embeds them, or give your factory a parameter `schema`, which"
            " says where they are, or set prepare.categories: onehot"
        )


def check_shards(inputs: Inputs, network: nn.Module) -> None:
    """See whether minibatches can be cut into so many shards.

    Args:
        inputs: of the training.
        network: one that isn't needed any more; it may not be as it was afterwards.

    Raises:
        UserError: they have fewer rows; or some shards have a single row, on which the network can't be trained.
    """
    shards, size = inputs.params.train.shards, inputs.batches.batch_size
    if shards > size:
        raise UserError(
            f"train.shards: a minibatch of {size} rows (batch.size) can't be cut into {shards} shards; at most {size}"
        )
    last = inputs.batches.rows_per_epoch % size
    for rows in (size, last) if shards > 1 else ():
        if 1 not in shard_sizes(rows, shards):
            continue
        try:
            with torch.no_grad():
                network(inputs.training.inputs[:1].to(device_of(network)))
        except (Exception, SystemExit) as error:
            where = f"a minibatch of {rows} rows" if rows == size else f"the last minibatch, of {rows} rows,"
            hint = "" if rows == size else ", or batch.drop_last: true"
            raise UserError(
                f"train.shards: {where} cut into {shards} shards has some of a single row, on which the network can't"
                f" be trained: {describe_error(error)}",
                f"take fewer shards, or another batch.size{hint}",
            ) from None


def check_one_batch(inputs: Inputs, trainer: Trainer) -> list[str]:
    """Try network and loss on one batch; returns the names of the metrics that are measured on the validation rows.

    The network may not be as it was afterwards: one that keeps something of each call isn't in its first state.

    Raises:
        UserError: one of them fails, or gives what it mustn't.
    """
    size = inputs.batches.batch_size
    outputs = check_output(trainer.model, inputs.training.inputs[:size], inputs.batches.index.outputs)
    targets: Tensor = inputs.training.targets[:size]
    check_loss(trainer.objective, outputs, targets.to(outputs.device))
    return [f"validation/{name}" for name in ("loss", *trainer.objective.measure(outputs, targets))]


def averaged_names(validated: list[str]) -> list[str]:
    """The same metrics of the averaged weights."""
    return [name.replace("/", "/average_", 1) for name in validated]


def check_followed_metrics(params: Params, validated: list[str], followed_by_schedule: str | None) -> None:
    """See whether the metrics that are followed are measured in each epoch.

    Raises:
        UserError: one isn't.
    """
    averaged = averaged_names(validated) if params.train.average.name != "none" else []
    logged = ["train/loss", *validated, *averaged, "gradient_norm"]
    early = params.train.early_stopping
    for key, metric in (
        ("schedule.metric", followed_by_schedule),
        ("early_stopping.metric", early.metric if early.patience else None),
    ):
        if metric is not None and metric not in logged:
            raise UserError(f"train.{key}: no metric {metric!r} is logged; there are {', '.join(logged)}")
        if key == "schedule.metric" and metric in averaged and params.train.average.start > 1:
            raise UserError(
                f"train.{key}: {metric} is first there after epoch {params.train.average.start} (train.average.start);"
                " set that to 1"
            )
