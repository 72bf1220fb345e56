"""Trainings whose minibatches are cut into 8 shards, by one process of several.

`python -m tests.unit.training.sharded_cases DIRECTORY PROCESSES ...` does so by each number of processes, forked from
itself; it prints what each came to by the first of them: a digest of the state, and how far it is.
"""

import json
import os
import sys
from pathlib import Path

from surefoot.training import numerics

if __name__ == "__main__":
    numerics.pin("portable", threads=1)

import torch
import torch.distributed as dist
from torch import nn

from networks.cnn import cnn
from networks.mlp import mlp
from surefoot.base.digests import sha256
from surefoot.base.errors import UserError
from surefoot.training import network
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Progress
from surefoot.training.minibatches import Rows
from surefoot.training.network import to_bytes
from surefoot.training.numerics import seed_step
from surefoot.training.objective import make_objective
from surefoot.training.preflight import optimizer_class
from surefoot.training.sharded import shared_outputs, tree
from surefoot.training.sharded.sharded_trainer import ShardedTrainer
from surefoot.training.sharded.transport import Alone, Group
from surefoot.training.step import StepSettings
from surefoot.training.weight_average import Average

ROWS, SIZE, SHARDS, SEED = 70, 32, 8, 7  # 6 rows in the last minibatch: two shards have none
WEIGHTS = [1.0, 0.0, 3.0]
FLAT = Rows(
    torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1)), torch.arange(ROWS).mul(7).div(5).long() % 3
)
IMAGES = Rows(torch.randn(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(2)), FLAT.targets)


class Mixed(nn.Module):
    """Weights of two types of numbers, a part that only some rows reach, a count, and one that never changes."""

    def __init__(self):
        super().__init__()
        self.first, self.wide, self.last = nn.Linear(6, 5), nn.Linear(5, 5).double(), nn.Linear(5, 3)
        self.idle, self.seldom = nn.Linear(3, 3), nn.Linear(5, 5)
        self.register_buffer("third", torch.tensor([1 / 3, float("nan")]))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, inputs):
        if self.training:
            self.seen += torch.tensor([1, len(inputs)])
            self.mean.mul_(0.9).add_(inputs.mean())
        hidden = self.wide(self.first(inputs).double()).float()
        if len(inputs) < 4:  # a smaller minibatch
            hidden = self.seldom(hidden)
        noise = torch.rand_like(hidden) if self.training else 0
        return self.last(hidden + noise + self.mean.float())


def _fails(inputs):
    if inputs[0, 0] == FLAT.inputs[20, 0]:
        raise ValueError("this row")
    return inputs


class Fails(nn.Module):
    def forward(self, inputs):
        return _fails(inputs)


def infinite():
    inputs = FLAT.inputs.clone()
    inputs[50] = float("inf")
    return Rows(inputs, FLAT.targets)


def _adam(parameters):
    return optimizer_class("Adam")(parameters, lr=0.0)


def _sgd(parameters):
    return optimizer_class("SGD")(parameters, lr=0.0, momentum=0.9, weight_decay=0.01)


# Each: the rows, the network, the optimizer, what goes into a step, class weights, whether it is averaged.
CASES = {
    "MLP with dropout": (FLAT, lambda: mlp((6,), 3, hidden=[7, 5], dropout=0.3), _sgd, {}, None, False),
    "CNN with BatchNorm": (IMAGES, lambda: cnn((1, 8, 8), 3, channels=3), _sgd, {"clip_norm": 0.5}, None, False),
    "EMA, Adam": (IMAGES, lambda: cnn((1, 8, 8), 3, channels=3), _adam, {}, None, True),
    "weights, accumulation": (FLAT, lambda: mlp((6,), 3), _sgd, {"accumulate": 2, "clip_value": 0.01}, WEIGHTS, False),
    "of all kinds": (FLAT, Mixed, _sgd, {"clip_norm": 1.0}, None, True),
    "a network that fails": (FLAT, lambda: nn.Sequential(Fails(), mlp((6,), 3)), _sgd, {}, None, False),
    "divergence": (infinite(), lambda: mlp((6,), 3), _sgd, {}, None, False),
}


def digest_of(name, transport):
    """What two epochs come to."""
    data, make, optimizer, settings, weights, averaged = CASES[name]
    seed_step(SEED, 0)
    model = make()
    trainer = ShardedTrainer(
        model,
        optimizer(model.parameters()),
        data,
        data,
        SIZE,
        SEED,
        make_objective("classification", "auto", {}, weights, [ROWS] * 3),
        StepSettings(**settings),
        Average(model, "ema", 0.8, 1) if averaged else None,
        shards=SHARDS,
        transport=transport,
    )
    steps = -(-ROWS // trainer.rows_per_step)
    found = []
    for epoch in range(2):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch))
        try:
            found.append(repr(trainer.train(order, [[0.1]] * steps, Progress(), epoch * steps, epoch + 1)))
        except (Diverged, UserError) as error:
            return str(error)
    outputs = shared_outputs.outputs_by_all(model, data.inputs, transport)
    assert torch.equal(outputs, network.outputs_of(model, data.inputs))
    assert model.training
    return [sha256(to_bytes(trainer.state())), *found]


def take_part(rank, processes, directory):
    """Be one of several processes."""
    tree.BUCKET = 100  # several are needed
    network.EVALUATION_ROWS = shared_outputs.EVALUATION_ROWS = 16  # 5 parts
    transport = Alone()
    if processes > 1:
        store = dist.FileStore(str(directory / f"store of {processes}"), processes)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
        transport = Group()
    found = {name: digest_of(name, transport) for name in CASES}
    if rank == 0:
        (directory / f"{processes}.json").write_text(json.dumps(found))
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def fork(*arguments):
    """A process that takes part."""
    process = os.fork()
    if not process:
        code = 1
        try:
            take_part(*arguments)
            code = 0
        finally:
            os._exit(code)
    return process


def main(directory, counts):
    """Train by each number of processes."""
    for processes in counts:
        started = [fork(rank, processes, directory) for rank in range(processes)]
        assert [os.waitpid(process, 0)[1] for process in started] == [0] * processes
    found = {processes: json.loads((directory / f"{processes}.json").read_text()) for processes in counts}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(count) for count in sys.argv[2:]])
