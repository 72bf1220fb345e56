"""What features of a step cost, beside a loop written by hand with the same: clipping, accumulation,
averaged weights.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.loops import LR, SEED, prepare
from benchmarks.workload import Workload
from surefoot.data.order import RowOrder
from surefoot.training.loop import Progress, Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.step import StepSettings
from surefoot.training.weight_average import Average

DECAY = 0.999
FEATURES: dict[str, dict[str, Any]] = {
    "none": {},
    "clip_norm": {"clip": 1.0},
    "accumulate 4": {"accumulate": 4},
    "EMA": {"ema": True},
    "all three": {"clip": 1.0, "accumulate": 4, "ema": True},
}


def time_features(workload: Workload, directory: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds an epoch of ours and of the loop by hand, one after another in each round, after a round to warm up."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, settings in FEATURES.items():
        contenders = {"ours": _ours(workload, directory, **settings), "hand": _by_hand(workload, directory, **settings)}
        found[name] = {contender: [] for contender in contenders}
        for number in range(rounds + 1):
            for contender, epoch in contenders.items():
                torch.set_deterministic_debug_mode("error" if contender == "ours" else "default")
                start = time.perf_counter()
                epoch(number)
                if number:
                    found[name][contender].append(time.perf_counter() - start)
    return found


def _ours(
    workload: Workload, directory: Path, accumulate: int = 1, clip: float | None = None, ema: bool = False
) -> Callable[[int], object]:
    training = prepare("ours", workload, directory)
    few = Rows(training.inputs[:10], training.targets[:10])
    average = Average(training.model, "ema", DECAY, 1) if ema else None
    rows, size = len(training.targets), training.batch_size
    trainer = Trainer(
        training.model,
        training.optimizer,
        Rows(training.inputs, training.targets),
        few,
        size,
        SEED,
        step=StepSettings(accumulate, clip),
        average=average,
    )
    steps = -(-rows // (size * accumulate))
    return lambda epoch: trainer.train(RowOrder(rows, SEED, epoch), [[LR]] * steps, Progress(), epoch * steps)


def _by_hand(
    workload: Workload, directory: Path, accumulate: int = 1, clip: float | None = None, ema: bool = False
) -> Callable[[int], object]:
    training = prepare("bare", workload, directory)
    model, optimizer = training.model, training.optimizer
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY)) if ema else None

    def train(_: int) -> None:
        batches = torch.randperm(len(training.targets)).split(training.batch_size)
        for first in range(0, len(batches), accumulate):
            optimizer.zero_grad()
            some = batches[first : first + accumulate]
            for rows in some:
                loss = training.loss_function(model(training.inputs[rows]), training.targets[rows]) / len(some)
                loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if average:
                average.update_parameters(model)

    return train
