"""Networks, optimizers, losses and options, each trained eagerly and by recorded steps, from one state on the same
rows.

`python -m tests.unit.training.recorded_cases native NAME ...` does so with the numerics of a profile, or on a GPU
(`cuda`), in a process of its own.
"""

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import cycle
from types import ModuleType
from typing import Any

from surefoot.training import numerics

if __name__ == "__main__":
    DEVICE = "cuda" if sys.argv[1] == "cuda" else "cpu"
    numerics.pin("native" if DEVICE == "cuda" else sys.argv[1], threads=1, device=DEVICE)

import numpy as np
import torch
from torch import nn

from networks.cnn import cnn
from networks.mlp import mlp
from networks.sequence import sequence
from networks.table import table
from surefoot.training import minibatches, on_cuda
from surefoot.training.loop import Progress, Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.numerics import seed_step
from surefoot.training.objective import Objective, make_objective
from surefoot.training.recorded import recorded_trainer
from surefoot.training.recorded.bits import same_bits
from surefoot.training.recorded.recorded_trainer import RecordedTrainer
from surefoot.training.step import StepSettings
from surefoot.training.weight_average import Average
from surefoot.training.without_dynamo import without_dynamo

ROWS, SIZE, EPOCHS, SEED = 30, 8, 8, 7  # the last minibatch of an epoch has 6 rows
CALLS = [0]  # of a network that counts them here
another = ModuleType("another")  # where another one does
sys.modules["another"] = another


def _rows(make_inputs: Callable[[torch.Generator], torch.Tensor], numbers: bool = False) -> Rows:
    generator = torch.Generator().manual_seed(3)
    inputs = make_inputs(generator)
    targets = torch.randn(ROWS, generator=generator) if numbers else torch.randint(3, (ROWS,), generator=generator)
    return Rows(inputs, targets)


FLAT = _rows(lambda generator: torch.randn(ROWS, 6, generator=generator))
IMAGES = _rows(lambda generator: torch.randn(ROWS, 2, 8, 8, generator=generator))
WORDS = _rows(lambda generator: torch.randint(20, (ROWS, 5), generator=generator))
CODED = _rows(lambda generator: torch.randint(5, (ROWS, 4), generator=generator).float())
NUMBERS = _rows(lambda generator: torch.randn(ROWS, 6, generator=generator), numbers=True)
POSITIVE = Rows(NUMBERS.inputs, NUMBERS.targets.abs())
TWO = Rows(FLAT.inputs, (FLAT.targets % 2).float())


class Own(nn.Module):
    """A network whose forward is a function of itself and the inputs."""

    def __init__(self, forward, inputs=6, **more):
        super().__init__()
        self.linear = nn.Linear(inputs, 3)
        self._forward = forward
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, inputs):
        return self._forward(self, inputs)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4))
            for _ in range(3)
        )
        self.last = nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        for block in self.blocks:
            hidden = torch.relu(hidden + block(hidden))
        return self.last(hidden.mean((2, 3)))


class Words(nn.Module):
    """An embedding, something recurrent or attentive, and a linear layer."""

    def __init__(self, middle=None, sparse=False):
        super().__init__()
        self.embedding = nn.Embedding(20, 4, sparse=sparse)
        self.middle = middle
        self.last = nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.embedding(inputs)
        if self.middle is not None:
            hidden = self.middle(hidden)
        return self.last((hidden[0] if isinstance(hidden, tuple) else hidden).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.last = nn.Linear(4, 20, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, inputs):
        return self.last(self.embedding(inputs).mean(1))[:, :3]


def attention():
    return Words(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True))


def coded_table():
    features = [
        {"first": 0, "width": 2},
        {"first": 2, "width": 1, "encode": "codes", "values": [*"abcd"]},
        {"first": 3, "width": 1},
    ]
    return table((4,), 3, {"features": features}, dropout=0.1)


def frozen():
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    network[0].weight.requires_grad_(False)
    network.add_module("unused", nn.Identity())
    return network


def noisy(self, inputs):
    drawn = 0.1 * torch.randn_like(inputs) + torch.rand(6)
    return self.linear(inputs * self.scale + drawn + torch.arange(6) / 6)


def makes_tensors(self, inputs):
    total = torch.tensor(0.5)
    total += self.linear(inputs * torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])).mean()
    return self.linear(inputs[:, [5, 4, 3, 2, 1, 0]]) + total


def counts(self, inputs):
    self.calls += 1
    return self.linear(inputs) * (1 + self.calls / 1000)


def counts_in_a_list(self, inputs):
    self.calls[0] += 1
    return self.linear(inputs) if self.calls[0] < 20 else self.linear(inputs) * 0.5


def counts_in_the_module(self, inputs):
    CALLS[0] += 1
    return self.linear(inputs) if CALLS[0] < 20 else self.linear(inputs) * 0.5


def branches(self, inputs):
    return self.linear(inputs) if inputs.sum() > 0 else self.linear(2 * inputs)


def asks_numpy(self, inputs):
    return self.linear(inputs) if np.asarray(inputs).sum() > 0 else self.linear(2 * inputs)


def goes_through_numpy(self, inputs):
    return self.linear(torch.from_numpy(np.tanh(inputs.numpy())))


def asks_a_list(self, inputs):
    return self.linear(inputs) * inputs.tolist()[0][0]


def chooses_rows(self, inputs):
    positive = inputs[inputs[:, 0] > 0]
    return self.linear(inputs) + positive.mean()


def draws_in_python(self, inputs):
    return self.linear(inputs) * (1.0 if random.random() < 0.9 else 0.5)


def keeps_what_was(self, inputs):
    outputs = self.linear(inputs) + 0.1 * self.last
    self.last = outputs.detach().mean()
    return outputs


def rebinds_a_buffer(self, inputs):
    self.seen = 0.9 * self.seen + 0.1 * inputs.mean(0)
    return self.linear(inputs - self.seen)


def writes_to_a_buffer(self, inputs):
    self.seen.mul_(0.9).add_(0.1 * inputs.mean(0))
    return self.linear(inputs - self.seen)


def shares_memory(self, inputs):
    self.seen.add_(0.1)
    return self.linear(inputs - self.part * inputs)


def with_view():
    network = with_buffer(shares_memory)()
    network.part = network.seen[:1]
    return network


def counts_in_another_module(self, inputs):
    another.calls += 1
    return self.linear(inputs) if another.calls < 20 else self.linear(inputs) * 0.5


def counts_in_a_comprehension(self, inputs):
    return sum(counts_in_the_module(self, inputs) for _ in range(1))


def counts_in_a_function(self, inputs):
    counts_in_a_function.calls += 1
    return self.linear(inputs) if counts_in_a_function.calls < 20 else self.linear(inputs) * 0.5


counts_in_a_function.calls = 0


def asks_an_iterator(self, inputs):
    return self.linear(inputs) * next(self.scales)


class Slots:
    """Something that has no `__dict__`."""

    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0


def counts_in_slots(self, inputs):
    self.slots.calls += 1
    return self.linear(inputs) if self.slots.calls < 20 else self.linear(inputs) * 0.5


class Base(nn.Module):
    """A network that counts in its class."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs):
        Base.calls += 1
        return self.linear(inputs) if Base.calls < 20 else self.linear(inputs) * 0.5


class Derived(Base):
    """Inherits that."""


def checkpointed(self, inputs):
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda rows: self.linear(nn.functional.dropout(rows, 0.3)), inputs, use_reentrant=False)


def own(forward, **more):
    return lambda: Own(forward, **{name: value() if callable(value) else value for name, value in more.items()})


def with_buffer(forward):
    def make():
        network = Own(forward)
        network.register_buffer("seen", torch.zeros(6))
        return network

    return make


def counts_in_a_hook_of_a_weight():
    network, calls = mlp((6,), 3, [5]), [0]

    def thaw_later(gradient):
        calls[0] += 1
        return gradient * (0.0 if calls[0] < 20 else 1.0)

    network[1].weight.register_hook(thaw_later)
    return network


def counts_on_a_weight(self, inputs):
    self.linear.weight.calls = getattr(self.linear.weight, "calls", 0) + 1
    return self.linear(inputs) * (1.0 if self.linear.weight.calls < 20 else 0.5)


def draws_from_its_own(self, inputs):
    return self.linear(inputs + torch.randn(inputs.shape, generator=self.generator))


def turns_a_weight(self, inputs):
    return self.linear(inputs @ self.mix.detach().t_())


def hooked():
    network = mlp((6,), 3, [5])
    network[1].register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    return network


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    make: Callable[[], nn.Module]
    rows: Rows = FLAT
    optimizer: str = "SGD"
    arguments: dict[str, Any] = field(default_factory=lambda: {"momentum": 0.9})
    settings: StepSettings = field(default_factory=StepSettings)
    average: str | None = None
    loss: str = "auto"
    loss_arguments: dict[str, Any] = field(default_factory=dict)
    class_weights: Any = None
    columns: tuple[tuple[int, str], ...] = ((0, "lr"),)
    scheduled: Callable[[int], list[float]] = lambda step: [0.05]
    groups: bool = False  # two of them
    device: str = "cpu"
    fused: bool = False  # as the optimizer is on a GPU

    def trainer(self, kind: type[Trainer] = Trainer) -> Trainer:
        """A trainer in its first state."""
        seed_step(SEED, 0)
        CALLS[0] = 0
        random.seed(0)
        model = self.make().to(self.device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [{"params": trained[:1]}, {"params": trained[1:], "lr": 0.01}] if self.groups else trained
        optimizer = without_dynamo(getattr(torch.optim, self.optimizer))(groups, lr=0.05, **self.arguments)
        if self.fused:
            on_cuda.fuse(optimizer, model)
        average = Average(model, self.average, 0.9, 2) if self.average else None
        return kind(
            model,
            optimizer,
            self.rows,
            Rows(self.rows.inputs[:9], self.rows.targets[:9]),
            SIZE,
            SEED,
            self.objective(),
            self.settings,
            average,
            self.columns,
        )

    def objective(self) -> Objective:
        """The loss."""
        targets = self.rows.targets
        task = "classification" if targets.dtype == torch.int64 else "binary" if self.rows is TWO else "regression"
        counts = torch.bincount(targets.long()).tolist() if task != "regression" else []
        return make_objective(task, self.loss, self.loss_arguments, self.class_weights, counts, self.device)


def train(trainer: Trainer, case: Case, first: int = 1, last: int = EPOCHS) -> list[Progress]:
    """Train some epochs; returns how each came out."""
    steps, found = -(-ROWS // trainer.rows_per_step), []
    for epoch in range(first, last + 1):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch))
        before = (epoch - 1) * steps
        scheduled = [case.scheduled(before + step) for step in range(steps)]
        found.append(trainer.train(order, scheduled, Progress(), before, epoch))
    return found


def differences(one: Trainer, other: Trainer) -> list[str]:
    """The tensors of their states that differ in a bit."""
    states = one.state(), other.state()
    assert states[0].keys() == states[1].keys()
    return [name for name, tensor in states[0].items() if not same_bits(tensor, states[1][name])]


def both_ways(case: Case) -> tuple[str | None, list[str]]:
    """Train both ways; returns how the recording trainer took its steps, and what differs."""
    eager, recorded = case.trainer(), case.trainer(RecordedTrainer)
    states = []
    for trainer in (eager, recorded):
        CALLS[0] = another.calls = counts_in_a_function.calls = Base.calls = 0
        random.seed(0)
        progress = train(trainer, case)
        states.append((progress, torch.get_rng_state().tolist()))
    wrong = differences(eager, recorded) + ([] if states[0] == states[1] else ["losses, norms or random numbers"])
    return recorded.way, wrong


def _falling(step):
    return [0.05 * 0.98**step]


NETWORKS = {
    "mlp": Case(lambda: mlp((6,), 3, [5])),
    "dropout": Case(lambda: mlp((6,), 3, [5, 4], 0.3)),
    "cnn, BatchNorm": Case(lambda: cnn((2, 8, 8), 3), IMAGES),
    "residual": Case(Residual, IMAGES),
    "gru": Case(lambda: sequence((5,), 3, 20, 4), WORDS),
    "lstm": Case(lambda: Words(nn.LSTM(4, 4, batch_first=True)), WORDS),
    "attention": Case(attention, WORDS, "AdamW", {}),
    "tied": Case(Tied, WORDS),
    "frozen": Case(frozen),
    "embedding": Case(Words, WORDS),
    "table": Case(coded_table, CODED),
    "random numbers": Case(own(noisy, scale=lambda: torch.linspace(0, 1, 6))),
    "makes indices": Case(own(lambda self, inputs: self.linear(inputs[:, [5, 4, 3, 2, 1, 0]]))),
    "writes to a buffer": Case(with_buffer(writes_to_a_buffer)),
    "a view of a buffer": Case(with_view),
}
OPTIMIZERS = {
    "plain": Case(NETWORKS["mlp"].make, arguments={}),
    "nesterov, decay": Case(NETWORKS["mlp"].make, arguments={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "dampening": Case(NETWORKS["mlp"].make, arguments={"momentum": 0.9, "dampening": 0.1}),
    "maximize": Case(NETWORKS["mlp"].make, arguments={"momentum": 0.9, "maximize": True}),
    "falling": Case(NETWORKS["mlp"].make, scheduled=_falling),
    "falls once": Case(NETWORKS["mlp"].make, scheduled=lambda step: [0.05 if step < 18 else 0.025]),
    "equal numbers": Case(
        NETWORKS["mlp"].make,
        arguments={"momentum": 0.95, "weight_decay": 0.05},
        scheduled=lambda step: [0.05 if step < 18 else 0.025],
    ),
    "momentum scheduled": Case(
        NETWORKS["mlp"].make,
        arguments={"momentum": 0.9, "dampening": 0.0},
        columns=((0, "lr"), (0, "momentum")),
        scheduled=lambda step: [0.05, 0.9 - step / 100],
    ),
    "zero at first": Case(NETWORKS["mlp"].make, scheduled=lambda step: [0.05 * min(step % 20, 10)]),
    "two groups": Case(
        NETWORKS["mlp"].make,
        groups=True,
        columns=((0, "lr"), (1, "lr")),
        scheduled=lambda step: [0.05, 0.05] if step < 14 else [0.02, 0.01],
    ),
    "rates that part": Case(
        NETWORKS["mlp"].make,
        groups=True,
        columns=((0, "lr"), (1, "lr")),
        scheduled=lambda step: [0.01 * min(step + 1, 16), 0.01 * min(step + 1, 16) * 0.9 ** max(0, step - 16)],
    ),
    "adam": Case(NETWORKS["mlp"].make, optimizer="Adam", arguments={}),
    "adam, falling, decay": Case(
        NETWORKS["mlp"].make, optimizer="Adam", arguments={"weight_decay": 0.01}, scheduled=_falling
    ),
    "amsgrad": Case(NETWORKS["mlp"].make, optimizer="Adam", arguments={"amsgrad": True}),
    "adamw, two groups": Case(
        NETWORKS["mlp"].make,
        optimizer="AdamW",
        arguments={"weight_decay": 0.1},
        groups=True,
        columns=((0, "lr"), (1, "lr")),
        scheduled=lambda step: [0.05 * 0.98**step, 0.01 * 0.98**step],
    ),
    "betas scheduled": Case(
        NETWORKS["mlp"].make,
        optimizer="AdamW",
        arguments={},
        columns=((0, "lr"), (0, "betas")),
        scheduled=lambda step: [0.05, 0.9 - step / 1000],
    ),
    "beta grows late": Case(  # at first its power is as good as 0
        NETWORKS["mlp"].make,
        optimizer="Adam",
        arguments={},
        columns=((0, "lr"), (0, "betas")),
        scheduled=lambda step: [0.05, 1e-10 * (1 + step) if step < 20 else 0.9],
    ),
    "rmsprop": Case(NETWORKS["mlp"].make, optimizer="RMSprop", arguments={"momentum": 0.5}, scheduled=_falling),
    "adadelta": Case(NETWORKS["mlp"].make, optimizer="Adadelta", arguments={}),
    "foreach": Case(
        NETWORKS["mlp"].make, optimizer="SGD", arguments={"momentum": 0.9, "foreach": True}, scheduled=_falling
    ),
}
OPTIONS = {
    "clip_norm": Case(NETWORKS["mlp"].make, settings=StepSettings(clip_norm=0.5)),
    "clip_value": Case(NETWORKS["mlp"].make, settings=StepSettings(clip_value=0.01)),
    "both": Case(NETWORKS["dropout"].make, settings=StepSettings(clip_value=0.05, clip_norm=0.1)),
    "accumulate": Case(NETWORKS["dropout"].make, settings=StepSettings(accumulate=3, clip_norm=1.0)),
    "accumulate, weighted": Case(
        NETWORKS["mlp"].make, settings=StepSettings(accumulate=2), class_weights=(1.0, 2.0, 0.5)
    ),
    "ema": Case(NETWORKS["mlp"].make, average="ema"),
    "swa": Case(NETWORKS["mlp"].make, average="swa"),
    "ema, BatchNorm, all": Case(
        NETWORKS["cnn, BatchNorm"].make, IMAGES, settings=StepSettings(accumulate=2, clip_norm=1.0), average="ema"
    ),
    "weights": Case(NETWORKS["mlp"].make, class_weights=(1.0, 2.0, 0.5), loss_arguments={"label_smoothing": 0.1}),
    "binary, balanced": Case(lambda: mlp((6,), 1, [5]), TWO, class_weights="balanced"),
}
LOSSES = {
    **{name: Case(NETWORKS["mlp"].make, loss=name) for name in ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")},
    **{
        name: Case(lambda: mlp((6,), 1, [5]), TWO, loss=name)
        for name in ("BCEWithLogitsLoss", "SoftMarginLoss", "HingeEmbeddingLoss", "MultiLabelSoftMarginLoss")
    },
    **{
        name: Case(lambda: mlp((6,), 1, [5]), NUMBERS, loss=name)
        for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
    },
    "BCELoss": Case(lambda: nn.Sequential(mlp((6,), 1, [5]), nn.Sigmoid()), TWO, loss="BCELoss"),
    "PoissonNLLLoss": Case(lambda: mlp((6,), 1, [5]), POSITIVE, loss="PoissonNLLLoss"),
    "sum": Case(
        lambda: mlp((6,), 1, [5]),
        NUMBERS,
        loss="MSELoss",
        loss_arguments={"reduction": "sum"},
        settings=StepSettings(accumulate=2),
        scheduled=lambda step: [1e-4],
    ),
}
# What stays eager, and what the run says of it.
EAGER = {
    "branch": (Case(own(branches)), "reads a value of a tensor in Python"),
    "numpy": (Case(own(goes_through_numpy)), "hands a tensor's values to Python (numpy)"),
    "branch by numpy": (Case(own(asks_numpy)), "hands a tensor's values to Python"),
    "tolist": (Case(own(asks_a_list)), "hands a tensor's values to Python (tolist)"),
    "sizes by values": (Case(own(chooses_rows)), "whose size depends on values"),
    "counter": (Case(own(counts, calls=0)), "a step changes Own.calls"),
    "counter in a list": (Case(own(counts_in_a_list, calls=lambda: [0])), "a step changes Own.calls[0]"),
    "counter in a module": (Case(own(counts_in_the_module)), "CALLS[0]"),
    "counter of a weight's hook": (Case(counts_in_a_hook_of_a_weight), "calls[0]"),
    "counter on a weight": (Case(own(counts_on_a_weight)), "['weight'].calls"),
    "generator of its own": (Case(own(draws_from_its_own, generator=torch.Generator)), "a step changes Own.generator"),
    "turned in place": (Case(own(turns_a_weight, mix=lambda: nn.Parameter(torch.rand(6, 6)))), "(aten::t_)"),
    "counter in another module": (Case(own(counts_in_another_module)), "another.calls"),
    "counter in a comprehension": (Case(own(counts_in_a_comprehension)), "CALLS[0]"),
    "counter of a function": (Case(own(counts_in_a_function)), "a step changes Own._forward.calls"),
    "counter in slots": (Case(own(counts_in_slots, slots=Slots)), "a step changes Own.slots.calls"),
    "counter in a base class": (Case(Derived), "Base.calls"),
    "iterator": (Case(own(asks_an_iterator, scales=lambda: cycle([1.0] * 20 + [0.5]))), "a step changes Own.scales"),
    "sparse": (Case(lambda: Words(sparse=True), WORDS, arguments={}), "sparse"),
    "hook": (Case(hooked), "a hook of 1 would not be called"),
    "random numbers of Python": (Case(own(draws_in_python)), "Python's random numbers"),
    "keeps a tensor": (Case(own(keeps_what_was, last=0.0)), "a step changes Own.last"),
    "rebinds a buffer": (Case(with_buffer(rebinds_a_buffer)), "a step changes Own._buffers['seen']"),
    "makes numbers": (
        Case(own(lambda self, inputs: self.linear(inputs) * torch.tensor(0.5))),
        "a tensor of shape [] is another one in each step",
    ),
    "changes what it makes": (Case(own(makes_tensors)), "a tensor of shape [] is another one in each step"),
    "checkpoint": (Case(own(checkpointed)), ""),
    "radam": (Case(NETWORKS["mlp"].make, optimizer="RAdam", arguments={}), "reads a value of a tensor in Python"),
    "nadam": (Case(NETWORKS["mlp"].make, optimizer="NAdam", arguments={}), "reads a value of a tensor in Python"),
    "fused": (
        Case(NETWORKS["mlp"].make, optimizer="SGD", arguments={"momentum": 0.9, "fused": True}),
        "changes a list of tensors",
    ),
}
ALL = NETWORKS | OPTIMIZERS | OPTIONS | LOSSES
BF16 = {  # needs numerics: native
    "bfloat16": Case(NETWORKS["dropout"].make, settings=StepSettings(precision="bfloat16")),
    "bfloat16, cnn": Case(NETWORKS["cnn, BatchNorm"].make, IMAGES, settings=StepSettings(precision="bfloat16")),
}

if __name__ == "__main__":
    recorded_trainer.EAGER_FIRST = recorded_trainer.EAGER_FIRST_ALONE = 1
    if DEVICE == "cuda":
        minibatches.CHUNK_BYTES = on_cuda.CHUNK_BYTES
    for each in sys.argv[2:] or ALL:
        way, wrong = both_ways(replace((ALL | BF16)[each], device=DEVICE, fused=DEVICE == "cuda"))
        print(f"{each}: {way}; {', '.join(wrong) or 'the same bits'}")
    assert "torch._dynamo" not in sys.modules, "to import it takes a second"
