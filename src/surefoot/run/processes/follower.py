"""The processes after the first: they take its steps, on their own shards, and keep nothing."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import safetensors.torch
import torch

from surefoot.base import paths
from surefoot.base.errors import UserError
from surefoot.data.batch_store import open_store
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.params.sections import Params
from surefoot.run.plan.builder import Builder
from surefoot.run.plan.identity import origin_of
from surefoot.run.plan.inputs import gather_inputs
from surefoot.run.processes.leader import differences, numbers_of
from surefoot.run.processes.member import ORIGIN, Member
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Progress
from surefoot.training.network import takes_schema, to_bytes
from surefoot.training.sharded.sharded_trainer import ShardedTrainer
from surefoot.training.sharded.shared_outputs import outputs_by_all

ORDERS = {kind.__name__: kind for kind in (RowOrder, RowOrderAmong)}


def follow_leader(params: Params) -> None:
    """Do what the first process tells, until it is done. Numerics must be pinned."""
    member = Member()
    trainer: ShardedTrainer | None = None
    for message in _told(member):
        if trainer is None:
            trainer = _make_trainer(params, member)
        DONE[message.pop("do")](trainer, **message)


def _make_trainer(params: Params, member: Member) -> ShardedTrainer:
    inputs = gather_inputs(params, open_store(paths.BATCHES), TrajectoryStore(paths.trajectory_store()))
    builder = Builder.of(inputs)
    trainer = builder.trainer()
    schedule, knows_schema = builder.schedule_maker(trainer.optimizer)(), takes_schema(params.train.model.factory)
    _check_origin(
        origin_of(inputs, to_bytes(trainer.state()), schedule, knows_schema), json.loads(member.wait_for(ORIGIN))
    )
    assert isinstance(trainer, ShardedTrainer)
    trainer.transport = member.transport
    return trainer


def _check_origin(origin: dict[str, Any], first: dict[str, Any]) -> None:
    """See whether this process trains what the first one does: each start reads the files of its machine anew."""
    if differing := differences(origin, first):
        raise UserError(
            f"this process would train something else than the first one, by {differing}: code, packages or data were"
            " changed since this machine began, or differ"
        )


def _told(member: Member) -> Iterator[dict[str, Any]]:
    """What the first process tells. It may take its time between two steps."""
    number = 0
    while True:
        message = json.loads(member.wait_for(f"told {number}"))
        if message["do"] == "end":
            return
        yield message
        number += 1


def _load(trainer: ShardedTrainer, size: int) -> None:
    state = torch.empty(size, dtype=torch.uint8)
    trainer.transport.give_out([state])
    trainer.load(safetensors.torch.load(bytes(state.numpy())))


def _train(trainer: ShardedTrainer, order: dict[str, Any], before: dict[str, Any], **given: Any) -> None:
    kind = ORDERS[order.pop("kind")]
    if "ranges" in order:
        order["ranges"] = tuple(map(tuple, order["ranges"]))
    with suppress(Diverged, UserError):  # the first process says it
        trainer.train(kind(**order), before=Progress(**before), **given)


def _validate(trainer: ShardedTrainer, averaged: bool) -> None:
    model = trainer.model
    if averaged:
        assert trainer.average
        model = trainer.average.model
        trainer.transport.give_out(numbers_of(model))
    outputs_by_all(model, trainer.validation.inputs, trainer.transport)


DONE: dict[str, Callable[..., None]] = {"load": _load, "train": _train, "validate": _validate}
