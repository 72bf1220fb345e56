"""Trainings as params.yaml tells them, each beside the same in plain torch, written out with nothing of ours in it but
order and seeds.

`python -m tests.unit.training.by_hand native` compares those of `BF16` in a process of their own, with the numerics of
that profile.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from surefoot.training import numerics

if __name__ == "__main__":
    numerics.pin(sys.argv[1], threads=1)

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from surefoot.base import digests
from surefoot.data.batch_index import ArrayFile, BatchIndex, Preparation, SplitFiles
from surefoot.data.batch_store import SplitArrays, Store
from surefoot.data.order import RowOrder
from surefoot.params.sections import Params
from surefoot.run.plan.planning import plan_run
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.network import to_bytes
from surefoot.training.numerics import seed_step
from tests.unit.training.small_networks import bag, matrices, network

SEED, ROWS, SIZE, CLASSES, EPOCHS = 5, 45, 8, 3, 3
NETWORKS = "tests.unit.training.small_networks"


# --- The same twice ------------------------------------------------------------------------------


def data(rows=ROWS, size=SIZE, drop_last=False):
    """A batch store in memory."""
    generator = np.random.default_rng(3)

    def split(count):
        return SplitArrays(
            generator.normal(size=(count, 5)).astype(np.float32), generator.integers(CLASSES, size=count)
        )

    splits = {"train": split(rows), "validation": split(20), "test": split(8)}
    file = ArrayFile(dtype="", shape=[], sha256="0" * 64)
    index = BatchIndex(
        batch_size=size,
        drop_last=drop_last,
        shuffle="full",
        block=None,
        window=None,
        batches_per_epoch=rows // size if drop_last else -(-rows // size),
        task="classification",
        outputs=CLASSES,
        input_shape=[5],
        dtype="float32",
        scale=None,
        classes=[*"abc"],
        features=[],
        preparation=Preparation(),
        splits={
            name: SplitFiles(
                rows=len(some.targets),
                class_counts=np.bincount(some.targets, minlength=CLASSES).tolist(),
                inputs=file,
                targets=file,
            )
            for name, some in splits.items()
        },
        digest=digests.sha256(f"{rows} {size} {drop_last}".encode()),
    )
    return Store(index, **splits)


def params(train, **more):
    """Params with this section `train`."""
    rest = {"model": {"factory": f"{NETWORKS}:network"}, "epochs": EPOCHS, "lr": 0.05}
    prepare = {"source": "raw.csv", "target": "kind"}
    return Params.model_validate({"seed": SEED, "prepare": prepare, "train": rest | train} | more)


@dataclass
class Setting:
    """A training: as the params have it, and in torch's terms."""

    train: dict
    optimizer: object = partial(torch.optim.SGD, lr=0.05)  # of (parameters); or of the network, where `groups` is set
    scheduler: object = None  # of (optimizer)
    per: str = "epoch"
    plateau: str | None = None
    make: object = network
    groups: bool = False
    loss: object = field(default_factory=nn.CrossEntropyLoss)
    epochs: int = EPOCHS
    max_steps: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    autocast: bool = False
    ema: float | None = None
    swa: bool = False
    start: int = 1
    patience: int | None = None
    store: dict = field(default_factory=dict)
    numerics: str = "portable"


def ours(setting, path):
    """The state after the training, as safetensors, and the losses of each epoch."""
    store, given = data(**setting.store), params(setting.train, numerics=setting.numerics)
    plan = plan_run(given, store)
    with plan.chain(TrajectoryStore(path)) as chain:
        history = [reached.record.metrics for reached in chain.follow()]
        assert chain._trainer
        state = to_bytes(chain._trainer.state())
    return state, [
        {name: value for name, value in metrics.items() if name.endswith("loss") or name == "lr"} for metrics in history
    ]


def by_hand(setting):
    """The loop of the tutorials. Returns the same."""
    store = data(**setting.store)
    (x, y), (vx, vy) = (
        [torch.from_numpy(array) for array in (split.inputs, split.targets)]
        for split in (store.train, store.validation)
    )
    seed_step(SEED, 0)
    model = setting.make((5,), CLASSES)
    optimizer = setting.optimizer(model if setting.groups else model.parameters())
    scheduler = setting.scheduler(optimizer) if setting.scheduler else None
    averaged = None
    if setting.ema:
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(setting.ema))
    elif setting.swa:
        averaged = swa_utils.AveragedModel(model)
    size = store.batch_size
    rows = len(y) - len(y) % size if store.index.drop_last else len(y)
    step, history, best, since = 0, [], None, 0
    for epoch in range(1, setting.epochs + 1):
        batches = torch.from_numpy(RowOrder(len(y), SEED, epoch).indices()[:rows]).split(size)
        model.train()
        total = count = 0
        for first in range(0, len(batches), setting.accumulate):
            if step == setting.max_steps:
                break
            step += 1
            seed_step(SEED, step)
            optimizer.zero_grad()
            parts = batches[first : first + setting.accumulate]
            in_step = sum(len(part) for part in parts)
            for part in parts:
                with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
                    loss = setting.loss(model(x[part]), y[part])
                (loss * (len(part) / in_step)).backward()
                total += loss.item() * len(part)
            if setting.clip_value:
                nn.utils.clip_grad_value_(model.parameters(), setting.clip_value)
            if setting.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), setting.clip_norm)
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            count += in_step
            if setting.ema and epoch >= setting.start:
                averaged.update_parameters(model)
            if scheduler and setting.per == "step":
                with_more = step < (setting.max_steps or setting.epochs * -(-len(batches) // setting.accumulate))
                if with_more:
                    scheduler.step()
        if not count:
            break
        metrics = {"train/loss": total / count, "validation/loss": measure(model, vx, vy, setting.loss), "lr": rate}
        if averaged and epoch >= setting.start:
            if setting.swa:
                averaged.update_parameters(model)
            seed_step(SEED, step)
            if any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
                swa_utils.update_bn(list(x.split(size)), averaged.module)
            metrics["validation/average_loss"] = measure(averaged.module, vx, vy, setting.loss)
        history.append(metrics)
        if scheduler and setting.per == "epoch":
            scheduler.step(*[metrics[setting.plateau]] if setting.plateau else [])
        best, since = (
            (metrics["validation/loss"], 0) if best is None or metrics["validation/loss"] < best else (best, since + 1)
        )
        if since == setting.patience:
            break
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        state |= {
            f"optimizer.{number}.{name}": value
            for name, value in optimizer.state[parameter].items()
            if value is not None
        }
        state |= {
            name: torch.tensor(value) for name, value in state.items() if isinstance(value, int)
        }  # SparseAdam's step
    if averaged:
        state |= {f"average.{name}": tensor for name, tensor in averaged.module.state_dict().items()} | {
            "averaged.count": averaged.n_averaged
        }
    return to_bytes(state), history


def measure(model, inputs, targets, loss):
    model.eval()
    with torch.no_grad():
        value = loss(model(inputs), targets).item()
    model.train()
    return value


def compare(setting, path):
    """Both, and whether they are one, bit for bit."""
    state, history = ours(setting, path)
    wanted, wanted_history = by_hand(setting)
    assert history == wanted_history
    assert state == wanted
    return state, history


# --- Settings ------------------------------------------------------------------------------------

SGD = partial(torch.optim.SGD, lr=0.05)
MOMENTUM = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = {"optimizer": {"name": "Adam"}, "lr": 0.01}
adam = partial(torch.optim.Adam, lr=0.01)


def head_and_frozen(model):
    """The last layer learns faster, the first not at all."""
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    middle = [parameter for number in (1, 4, 5) for parameter in model[number].parameters()]
    return torch.optim.SGD(
        [{"params": list(model[7].parameters()), "lr": 0.2, "nesterov": True}, {"params": middle}],
        lr=0.05,
        momentum=0.9,
    )


def scaled_head(model):
    """A quarter of 0.6 for the last layer and of 0.1 for the others, in steps of 8 rows that are meant for 32."""
    others = [parameter for number in (0, 1, 4, 5) for parameter in model[number].parameters()]
    return torch.optim.SGD([{"params": list(model[7].parameters()), "lr": 0.15}, {"params": others}], lr=0.025)


def warm_up(made):
    some = [lr_scheduler.LinearLR(made, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(made, 14)]
    return lr_scheduler.SequentialLR(made, some, milestones=[4])


LABEL_SMOOTHING = {"loss": {"arguments": {"label_smoothing": 0.1}}}
NO_DECAY = [{"parameters": pattern, "arguments": {"weight_decay": 0.0}} for pattern in ("*.bias", "*Norm*.weight")]
WARM_UP = [
    {"name": "LinearLR", "arguments": {"start_factor": 0.1, "total_iters": 4}, "per": "step", "length": 4},
    {"name": "CosineAnnealingLR", "per": "step"},
]
PLATEAU = {"name": "ReduceLROnPlateau", "arguments": {"patience": 0, "factor": 0.3, "threshold": 0.2}}


def no_decay_in_order(model, **more):
    """As `NO_DECAY` has them: biases first, then the norms' weights, then the rest."""
    named = dict(model.named_parameters())
    biases = [parameter for name, parameter in named.items() if name.endswith("bias")]
    norms = [named["1.weight"], named["5.weight"]]
    rest = [named[f"{number}.weight"] for number in (0, 4, 7)]
    groups = [{"params": biases, "weight_decay": 0.0}, {"params": norms, "weight_decay": 0.0}, {"params": rest}]
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, **more)


def balanced():
    counts = np.bincount(data().train.targets)
    return nn.CrossEntropyLoss(torch.tensor([ROWS / (CLASSES * count) for count in counts.tolist()]))


SETTINGS = {
    "plain": lambda: Setting({}),
    "nesterov": lambda: Setting(
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "warm-up, then cosine, by steps": lambda: Setting(
        {"schedule": WARM_UP, "momentum": 0.9}, MOMENTUM, warm_up, "step"
    ),
    "sequence of epochs": lambda: Setting(
        {"schedule": [{"name": "constant", "length": 1}, {"name": "ExponentialLR", "arguments": {"gamma": 0.5}}]},
        SGD,
        lambda made: lr_scheduler.SequentialLR(
            made, [lr_scheduler.ConstantLR(made, 1.0), lr_scheduler.ExponentialLR(made, 0.5)], [1]
        ),
    ),
    "one cycle with momentum": lambda: Setting(
        {"schedule": {"name": "OneCycleLR", "per": "step"}, "momentum": 0.9},
        MOMENTUM,
        lambda made: lr_scheduler.OneCycleLR(made, 0.05, total_steps=18),
        "step",
    ),
    "one cycle with Adam's betas": lambda: Setting(
        ADAM | {"schedule": {"name": "OneCycleLR", "per": "step", "arguments": {"max_lr": 0.1}}},
        adam,
        lambda made: lr_scheduler.OneCycleLR(made, 0.1, total_steps=18),
        "step",
    ),
    "a cycle of lr and momentum, accumulated": lambda: Setting(
        {
            "schedule": {
                "name": "CyclicLR",
                "per": "step",
                "arguments": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2},
            },
            "momentum": 0.9,
            "accumulate": 4,
        },
        MOMENTUM,
        lambda made: lr_scheduler.CyclicLR(made, 0.01, 0.1, 2),
        "step",
        accumulate=4,
    ),
    "plateau": lambda: Setting(
        {"schedule": PLATEAU, "epochs": 6, "lr": 0.4},
        partial(torch.optim.SGD, lr=0.4),
        lambda made: lr_scheduler.ReduceLROnPlateau(made, patience=0, factor=0.3, threshold=0.2),
        plateau="validation/loss",
        epochs=6,
    ),
    "plateau of the training loss, stopped early": lambda: Setting(
        {"schedule": PLATEAU | {"metric": "train/loss"}, "epochs": 12, "lr": 0.9, "early_stopping": {"patience": 2}},
        partial(torch.optim.SGD, lr=0.9),
        lambda made: lr_scheduler.ReduceLROnPlateau(made, patience=0, factor=0.3, threshold=0.2),
        plateau="train/loss",
        epochs=12,
        patience=2,
    ),
    "no decay on biases and norms": lambda: Setting(
        {"optimizer": {"name": "AdamW", "groups": NO_DECAY}, "weight_decay": 0.1, "lr": 0.01},
        no_decay_in_order,
        groups=True,
    ),
    "a faster head, a frozen layer": lambda: Setting(
        {
            "momentum": 0.9,
            "optimizer": {
                "groups": [
                    {"parameters": "7.*", "arguments": {"lr": 0.2, "nesterov": True}},
                    {"parameters": "0.*", "frozen": True},
                ]
            },
            "schedule": {"name": "StepLR", "arguments": {"step_size": 1, "gamma": 0.7}},
        },
        head_and_frozen,
        lambda made: lr_scheduler.StepLR(made, 1, 0.7),
        groups=True,
    ),
    "accumulated, the last step of five rows": lambda: Setting(
        {"accumulate": 5, "momentum": 0.9}, MOMENTUM, accumulate=5
    ),
    "accumulated by two, uneven rows": lambda: Setting({"accumulate": 2}, accumulate=2, store={"rows": 43}),
    "clip_norm": lambda: Setting({"clip_norm": 0.3, "momentum": 0.9}, MOMENTUM, clip_norm=0.3),
    "clip_value": lambda: Setting({"clip_value": 0.02}, clip_value=0.02),
    "clip_norm and clip_value, accumulated": lambda: Setting(
        {"clip_norm": 0.1, "clip_value": 0.02, "accumulate": 3}, clip_norm=0.1, clip_value=0.02, accumulate=3
    ),
    "label smoothing": lambda: Setting(LABEL_SMOOTHING, loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "balanced classes": lambda: Setting({"loss": {"class_weights": "balanced"}}, loss=balanced()),
    "class weights and clipping": lambda: Setting(
        {"loss": {"class_weights": [1.0, 2.5, 0.5]}, "clip_norm": 0.2},
        loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.5, 0.5])),
        clip_norm=0.2,
    ),
    "EMA": lambda: Setting({"average": {"name": "ema", "decay": 0.8}, "momentum": 0.9}, MOMENTUM, ema=0.8),
    "EMA from the second epoch on, accumulated": lambda: Setting(
        {"average": {"name": "ema", "decay": 0.8, "start": 2}, "accumulate": 4} | ADAM,
        adam,
        ema=0.8,
        start=2,
        accumulate=4,
    ),
    "EMA of a network without BatchNorm": lambda: Setting(
        {"average": {"name": "ema", "decay": 0.5}, "model": {"factory": f"{NETWORKS}:matrices"}}, ema=0.5, make=matrices
    ),
    "SWA": lambda: Setting({"average": {"name": "swa", "start": 2}, "epochs": 4}, swa=True, start=2, epochs=4),
    "SWA at the end of a step schedule": lambda: Setting(
        {
            "average": {"name": "swa"},
            "schedule": {"name": "CosineAnnealingWarmRestarts", "arguments": {"T_0": 6}, "per": "step"},
        },
        SGD,
        lambda made: lr_scheduler.CosineAnnealingWarmRestarts(made, 6),
        "step",
        swa=True,
    ),
    "whole minibatches only": lambda: Setting({"momentum": 0.9}, MOMENTUM, store={"drop_last": True}),
    "whole minibatches only, accumulated": lambda: Setting({"accumulate": 2}, accumulate=2, store={"drop_last": True}),
    "lr for another batch size": lambda: Setting(
        {"lr": 0.1, "lr_reference_batch": 64, "accumulate": 2}, partial(torch.optim.SGD, lr=0.1 * 16 / 64), accumulate=2
    ),
    "lr for another batch size, also of a group": lambda: Setting(
        {
            "lr": 0.1,
            "lr_reference_batch": 32,
            "optimizer": {"groups": [{"parameters": "7.*", "arguments": {"lr": 0.6}}]},
        },
        scaled_head,
        groups=True,
    ),
    "ends within an epoch": lambda: Setting(
        {"max_steps": 14, "average": {"name": "ema", "decay": 0.8}}, ema=0.8, max_steps=14
    ),
    "all at once": lambda: Setting(
        {
            "optimizer": {"name": "AdamW", "arguments": {"amsgrad": True}, "groups": NO_DECAY},
            "weight_decay": 0.1,
            "lr": 0.01,
            "schedule": WARM_UP,
            "clip_norm": 0.3,
            "clip_value": 0.1,
            "average": {"name": "ema", "decay": 0.9, "start": 2},
            "max_steps": 18,
            **LABEL_SMOOTHING,
        },
        partial(no_decay_in_order, amsgrad=True),
        warm_up,
        "step",
        groups=True,
        clip_norm=0.3,
        clip_value=0.1,
        ema=0.9,
        start=2,
        max_steps=18,
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
    ),
}

# Each class of torch.optim: its arguments, and the network, where it needs one of its own.
OPTIMIZERS = {
    "Adadelta": {"rho": 0.8},
    "Adafactor": {"eps": [1e-10, 1e-3]},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
    "Adam": {"betas": [0.8, 0.95], "amsgrad": True},
    "AdamW": {"eps": 1e-6},
    "Adamax": {},
    "ASGD": {"t0": 5},
    "Muon": {},
    "NAdam": {"momentum_decay": 0.01},
    "RAdam": {"betas": [0.5, 0.6]},
    "RMSprop": {"centered": True},
    "Rprop": {"etas": [0.4, 1.3]},
    "SGD": {"maximize": True},
    "SparseAdam": {},
}
OF_THEIR_OWN = {"Muon": matrices, "SparseAdam": bag}


def with_optimizer(name, **more):
    """A setting of a class of torch.optim."""
    make, arguments = OF_THEIR_OWN.get(name, network), OPTIMIZERS[name]
    train = {
        "optimizer": {"name": name, "arguments": arguments},
        "model": {"factory": f"{NETWORKS}:{make.__name__}"},
        "lr": 0.01,
    } | more
    # Theirs are other defaults than the params': 0.
    own = {"AdamW": {"weight_decay": 0.0}, "Muon": {"weight_decay": 0.0, "momentum": 0.9, "nesterov": True}}.get(
        name, {}
    )
    train |= {"momentum": 0.9, "nesterov": True} if name == "Muon" else {}
    return Setting(train, partial(getattr(torch.optim, name), lr=0.01, **arguments, **own), make=make)


BF16 = {
    "bf16": lambda: Setting({"precision": "bfloat16", "momentum": 0.9}, MOMENTUM, autocast=True, numerics="native"),
    "bf16, accumulated and clipped, averaged": lambda: Setting(
        {"precision": "bfloat16", "accumulate": 4, "clip_norm": 0.3, "average": {"name": "ema", "decay": 0.8}},
        autocast=True,
        accumulate=4,
        clip_norm=0.3,
        ema=0.8,
        numerics="native",
    ),
}

if __name__ == "__main__":
    import tempfile

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        sys.exit("this processor has no bfloat16")
    with tempfile.TemporaryDirectory() as directory:
        for number, make in enumerate(BF16.values()):
            state, _ = compare(make(), Path(directory) / str(number))
            plain = make()
            del plain.train["precision"]
            assert ours(plain, Path(directory) / f"{number} in float32")[0] != state
    print("equal")
