"""The first of several processes: what its trainer does, the others do at the same time."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.base import digests, terminal
from surefoot.base.errors import UserError
from surefoot.params.dotted_keys import flatten
from surefoot.run.processes import wanted
from surefoot.run.processes.member import BEFORE, ORIGIN, Member
from surefoot.training.loop import Batches, Progress
from surefoot.training.network import to_bytes
from surefoot.training.sharded.sharded_trainer import Order, ShardedTrainer
from surefoot.training.sharded.shared_outputs import evaluation_parts, outputs_by_all


class Leader:
    """Tells the others what to do."""

    def __init__(self, member: Member) -> None:
        self.transport, self.size, self._store = member.transport, member.size, member.store
        self._talking = member.talking
        self._told = 0
        self._mirrored: LeadingTrainer | None = None  # whose state the others have

    def begin(self, origin: dict[str, Any]) -> None:
        """Say what is trained, by its origin: the others see whether they would train the same.

        Raises:
            UserError: it isn't what was trained before all were started again.
        """
        with self._talking():
            before = json.loads(self._store.get(BEFORE)) if self._store.check([BEFORE]) else None
        if before and (differing := differences(origin, before)):
            raise UserError(
                f"the run would go on as another one, by {differing}: code, packages or data were changed since it"
                " began; what was trained is kept"
            )
        with self._talking():
            self._store.set(ORIGIN, digests.canonical_json(origin).decode())

    def tell(self, do: str, **given: Any) -> None:
        """What the others are to do next."""
        with self._talking():
            self._store.set(f"told {self._told}", json.dumps({"do": do, **given}))
            if self._told > 1:  # the others have done what was told before the last
                self._store.delete_key(f"told {self._told - 2}")
        self._told += 1

    def mirror(self, trainer: "LeadingTrainer") -> None:
        """Let the others have the state of a trainer."""
        if self._mirrored is not trainer:
            state = to_bytes(trainer.state())
            self.tell("load", size=len(state))
            self.transport.give_out([torch.frombuffer(bytearray(state), dtype=torch.uint8)])
            self._mirrored = trainer

    def forget(self) -> None:
        """The trainer whose state the others have goes to another one."""
        self._mirrored = None


@dataclass
class LeadingTrainer(ShardedTrainer):
    """A trainer whose steps the others take, too."""

    leader: Leader | None = None

    def train(
        self,
        order: Order,
        scheduled: Iterable[Sequence[float]],
        before: Progress,
        steps_before: int,
        epoch: int = 1,
        watch: Callable[[Batches], Batches] = lambda batches: batches,
    ) -> Progress:
        """As `ShardedTrainer.train`."""
        assert self.leader
        assert not isinstance(order, Tensor)
        values = list(scheduled)
        self.leader.mirror(self)
        self.leader.tell(
            "train",
            order={"kind": type(order).__name__, **asdict(order)},
            scheduled=values,
            before=asdict(before),
            steps_before=steps_before,
            epoch=epoch,
        )
        try:
            return super().train(order, values, before, steps_before, epoch, watch)
        except BaseException:
            self.leader.forget()
            raise

    def _validate(self, model: nn.Module, prefix: str) -> dict[str, float]:
        """As `Trainer`'s; the others compute some of the outputs."""
        assert self.leader
        if len(evaluation_parts(self.validation.inputs)) > 1:
            averaged = self.average is not None and model is self.average.model
            self.leader.mirror(self)
            self.leader.tell("validate", averaged=averaged)
            if averaged:  # the first alone measures BatchNorm anew
                self.transport.give_out(numbers_of(model))
            outputs = outputs_by_all(model, self.validation.inputs, self.transport)
            if outputs is not None:
                targets = self.validation.targets[:].to(outputs.device)
                loss = self.objective.loss(outputs, targets).item()
                if math.isfinite(loss):
                    measured = {"loss": loss, **self.objective.measure(outputs, targets)}
                    return {f"{prefix}{name}": value for name, value in measured.items()}
        return super()._validate(model, prefix)  # which says what is wrong, if something is

    def load(self, state: dict[str, Tensor]) -> None:
        """As `Trainer.load`."""
        assert self.leader
        self.leader.forget()
        super().load(state)


def differences(origin: dict[str, Any], other: dict[str, Any]) -> str:
    """Where an origin differs from another, which was JSON, in words; empty where it doesn't."""
    here, there = flatten(json.loads(digests.canonical_json(origin))), flatten(other)
    return terminal.first_few([name for name in {**there, **here} if here.get(name) != there.get(name)], 3)


def numbers_of(model: nn.Module) -> list[Tensor]:
    """All numbers of a network, to be read or written."""
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


@contextmanager
def joined_group() -> Iterator[Leader | None]:
    """The others, if this is the first of several processes that train; they end with the block."""
    if not wanted.is_launched():
        yield None
        return
    leader = Leader(Member())
    try:
        yield leader
    finally:
        leader.tell("end")
