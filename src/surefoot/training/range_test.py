"""The learning-rate range test (Smith, 2015): a few steps with a learning rate that rises until the loss explodes."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from surefoot.base.errors import UserError
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Progress, Trainer

# Each measured over 20-point sweeps on the digits (docs/learning-rate.md).
WIDTH = 0.04  # of the smoothing, as its standard deviation: a share of the steps
EXPLODED = 4  # times the least smoothed loss
STEPS, MEMORIES = 100, 10  # the steps of a test: so many, or so many times what the momentum remembers


class NeverFinite(UserError):
    """The loss isn't finite before any step is taken."""


@dataclass(frozen=True)
class Curve:
    """What a range test saw.

    Args:
        lrs: the learning rate of each step taken.
        losses: of its minibatches, just before the step.
        smoothed: the same, as a weighted mean with those of the steps around it.
        diverging: the learning rate at which the smoothed loss exploded; None: it didn't.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    diverging: float | None

    @property
    def steepest(self) -> float | None:
        """The learning rate at which the smoothed loss falls fastest over the logarithm of it; None: it falls nowhere
        by more than its noise.
        """
        lowest = min(range(len(self.smoothed)), key=lambda step: self.smoothed[step])
        noise = math.dist(self.losses[: lowest + 1], self.smoothed[: lowest + 1]) / math.sqrt(lowest + 1)
        if self.smoothed[0] - self.smoothed[lowest] <= noise:
            return None
        # The learning rate is multiplied by the same at each step, so steps are its logarithm.
        slopes = [self.smoothed[min(step + 1, lowest)] - self.smoothed[max(step - 1, 0)] for step in range(1, lowest)]
        return self.lrs[1 + slopes.index(min(slopes))] if slopes else self.lrs[lowest]

    @property
    def tenth(self) -> float | None:
        """A tenth of the diverging learning rate."""
        return self.diverging / 10 if self.diverging else None

    @property
    def suggested(self) -> float | None:
        """The middle of both, on a logarithmic scale, or the one that there is: it was nearer to the best of a sweep
        than either.
        """
        found = [lr for lr in (self.steepest, self.tenth) if lr]
        return math.prod(found) ** (1 / len(found)) if found else None


def learning_rates(lowest: float, highest: float, steps: int) -> list[float]:
    """From the lowest to the highest, each the same multiple of the one before."""
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def steps_needed(trainer: Trainer) -> int:
    """How many steps show what a learning rate does: the longer a momentum remembers, the later it shows."""
    group = trainer.optimizer.param_groups[0]
    momentum: float = group.get("momentum") or (group.get("betas") or [0.0])[0]
    return max(STEPS, round(MEMORIES / max(1 - momentum, 0.001)))


def range_test(
    trainer: Trainer,
    lr: float,
    lrs: Iterable[float],
    steps: int,
    order: Callable[[int], Tensor | RowOrder | RowOrderAmong],
    steps_per_epoch: int,
) -> Curve:
    """Train from the trainer's state, a step with each learning rate, until the loss explodes.

    A step is as in the run, but for the schedule: momentum keeps its value, and averages aren't taken.

    Args:
        trainer: in the run's first state; it isn't fit for anything afterwards.
        lr: of the run. Groups that have another one keep their ratio to it.
        lrs: the learning rates.
        steps: how many they are.
        order: the rows of an epoch.
        steps_per_epoch: of the run.

    Raises:
        NeverFinite: the first loss isn't finite.
        UserError: the network raises something.
    """
    groups = trainer.optimizer.param_groups
    ratios = [group["lr"] / lr for group in groups]
    trainer = replace(trainer, average=None, columns=[(number, "lr") for number in range(len(groups))])
    weights = _weights(WIDTH * steps)
    taken, losses, smoothed, diverging = list[float](), list[float](), list[float](), None
    for step, value in enumerate(lrs):
        try:
            losses.append(_take_step(trainer, step, [value * ratio for ratio in ratios], order, steps_per_epoch))
        except Diverged as diverged:
            if not step:
                raise NeverFinite(
                    f"the loss isn't finite before any step is taken, which no learning rate helps: {diverged}"
                ) from None
            diverging = value
            break
        taken.append(value)
        if step >= len(weights) // 2:
            smoothed.append(_smooth(losses, len(smoothed), weights))
            if _exploded(smoothed, losses[0]):
                diverging = taken[len(smoothed) - 1]
                break
    while len(smoothed) < len(losses):
        smoothed.append(_smooth(losses, len(smoothed), weights))
        if _exploded(smoothed, losses[0]):
            diverging = min(taken[len(smoothed) - 1], diverging or math.inf)
    return Curve(taken, losses, smoothed, diverging)


def _take_step(
    trainer: Trainer,
    step: int,
    lrs: list[float],
    order: Callable[[int], Tensor | RowOrder | RowOrderAmong],
    steps_per_epoch: int,
) -> float:
    """Take a step with these learning rates; returns the loss just before it."""
    epoch, within = divmod(step, steps_per_epoch)
    size = trainer.rows_per_step
    rows = order(epoch + 1)[within * size : (within + 1) * size]
    progress = trainer.train(rows, [lrs], Progress(), step, epoch + 1)
    return progress.loss_sum / progress.rows


def _exploded(smoothed: Sequence[float], first_loss: float) -> bool:
    """Whether the last of the smoothed losses is far above the least of them."""
    least = min(smoothed)
    # A loss near to 0 may rise by much that is nothing.
    return smoothed[-1] > least + (EXPLODED - 1) * max(abs(least), abs(first_loss) / 10)


def _weights(deviation: float) -> list[float]:
    """A Gaussian's, to three deviations on each side."""
    reach = math.ceil(3 * deviation)
    return [math.exp(-((offset / deviation) ** 2) / 2) for offset in range(-reach, reach + 1)]


def _smooth(losses: Sequence[float], at: int, weights: Sequence[float]) -> float:
    """The weighted mean of the losses around a step, as far as there are some.

    Not an average of those before it, which would lag behind.
    """
    first = at - len(weights) // 2
    near = [
        (weight, losses[first + offset]) for offset, weight in enumerate(weights) if 0 <= first + offset < len(losses)
    ]
    return sum(weight * loss for weight, loss in near) / sum(weight for weight, _ in near)
