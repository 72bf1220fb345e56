"""All that trains, built from a training's inputs: the network, its optimizer, the schedule, the average."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from surefoot.params.train_section import TrainParams
from surefoot.run.from_params import network_from_params, objective_from_params
from surefoot.run.plan.inputs import Inputs
from surefoot.run.processes.leader import Leader, LeadingTrainer
from surefoot.training import minibatches, numerics, on_cuda
from surefoot.training.loop import Trainer
from surefoot.training.objective import Objective
from surefoot.training.optimizer import make_optimizer
from surefoot.training.preflight import OWN, load_start_weights
from surefoot.training.recorded.recorded_trainer import RecordedTrainer
from surefoot.training.schedule import Schedule
from surefoot.training.sharded.sharded_trainer import ShardedTrainer
from surefoot.training.step import StepSettings
from surefoot.training.weight_average import Average


@dataclass(frozen=True)
class Builder:
    """Builds trainers, each in the run's first state; where others train along, such as `leader` leads."""

    inputs: Inputs
    objective: Objective
    leader: Leader | None = None

    @classmethod
    def of(cls, inputs: Inputs, leader: Leader | None = None) -> "Builder":
        """The builder for these inputs.

        Raises:
            UserError: the loss can't be made.
        """
        numerics.seed_step(inputs.params.seed, 0)  # a loss of the user's may draw
        return cls(inputs, objective_from_params(inputs.params, inputs.batches), leader)

    def trainer(self) -> Trainer:
        """A trainer in the first state; its network is built anew.

        Raises:
            UserError: the network, the optimizer, the average or the schedule can't be made; the model that it starts
            from doesn't fit.
        """
        inputs, train = self.inputs, self.inputs.params.train
        model = network_from_params(inputs.params, inputs.batches)
        if inputs.weights is not None:
            assert inputs.start
            load_start_weights(model, inputs.weights, str(inputs.start.note.name))
        optimizer = self._optimizer(model)
        return self._kind()(
            model,
            optimizer,
            inputs.training,
            inputs.validation,
            inputs.batches.batch_size,
            inputs.params.seed,
            self.objective,
            StepSettings(**step_settings(train)),
            Average(model, **average_settings(train)) if average_settings(train) else None,
            self.schedule_maker(optimizer)().columns,
        )

    def _kind(self) -> Callable[..., Trainer]:
        """How steps are taken."""
        train = self.inputs.params.train
        if self.leader:
            return partial(LeadingTrainer, shards=train.shards, transport=self.leader.transport, leader=self.leader)
        if train.shards > 1:
            return partial(ShardedTrainer, shards=train.shards)
        return RecordedTrainer if train.step == "auto" else Trainer

    def schedule_maker(self, optimizer: torch.optim.Optimizer) -> Callable[[], Schedule]:
        """A function that makes the schedule for an optimizer, from its first step, whatever that does meanwhile."""
        train = self.inputs.params.train
        parts = [part.model_dump() for part in train.schedule]
        groups = [{**group, "params": [nn.Parameter(torch.zeros(1, 1))]} for group in optimizer.param_groups]
        idle = type(optimizer)(groups)  # type: ignore[call-arg]
        return partial(Schedule, parts, idle, train.epochs, self.inputs.steps_per_epoch, train.max_steps)

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        train, settings = self.inputs.params.train, self.inputs.params.train.optimizer.model_dump()
        for group in settings["groups"]:
            if "lr" in group["arguments"]:
                group["arguments"]["lr"] = self.inputs.scaled(group["arguments"]["lr"])
        made = make_optimizer(model, lr=self.inputs.lr, own=optimizer_settings(train), **settings)
        if self.inputs.params.device == "cuda":
            minibatches.CHUNK_BYTES = on_cuda.CHUNK_BYTES
            on_cuda.fuse(made, model)
        return made


def optimizer_settings(train: TrainParams) -> dict[str, Any]:
    """Settings of the optimizer that are params of their own."""
    return train.model_dump(include=set(OWN))


def step_settings(train: TrainParams) -> dict[str, Any]:
    """What goes into a step beside the optimizer."""
    return train.model_dump(include={"accumulate", "clip_norm", "clip_value", "precision"})


def average_settings(train: TrainParams) -> dict[str, Any]:
    """How weights are averaged; {} if they aren't."""
    return train.average.model_dump() if train.average.name != "none" else {}
