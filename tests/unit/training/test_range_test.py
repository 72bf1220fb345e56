import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.base.errors import UserError
from surefoot.training.loop import Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.network import to_bytes
from surefoot.training.objective import Objective
from surefoot.training.range_test import STEPS, Curve, learning_rates, range_test, steps_needed
from surefoot.training.step import StepSettings
from surefoot.training.weight_average import Average

CURVATURES = torch.tensor([1.0, 4.0, 10.0])
LARGEST = 2 / 10  # lr above which gradient descent on this quadratic diverges
ROWS = 64
SQUARED = Objective("regression", lambda outputs, targets: ((outputs[:, 0] - targets) ** 2).mean() / 2)


def quadratic(momentum=0.0, scale=1.0, **settings):
    """Linear regression whose loss is a quadratic with these curvatures, in each minibatch."""
    torch.manual_seed(0)
    whole = torch.linalg.qr(torch.randn(ROWS, 3))[0] * math.sqrt(ROWS) * CURVATURES.sqrt()
    whole = whole.contiguous()
    model = nn.Linear(3, 1, bias=False)
    rows = Rows(whole, scale * (whole @ torch.tensor([1.0, -2.0, 3.0])))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum)
    return Trainer(model, optimizer, rows, rows, ROWS, 0, SQUARED, **settings)


def _tested(trainer, lowest=1e-4, highest=10.0, steps=100, lr=0.01):
    return range_test(trainer, lr, learning_rates(lowest, highest, steps), steps, lambda epoch: torch.arange(ROWS), 1)


def test_learning_rates_are_multiples():
    lrs = learning_rates(1e-6, 10, 100)
    assert len(lrs) == 100
    assert lrs[0] == 1e-6
    assert lrs[-1] == pytest.approx(10)
    assert np.diff(np.log(lrs)) == pytest.approx(math.log(1e7) / 99)


def test_a_quadratic():
    """Where it diverges is known."""
    curve = _tested(quadratic())
    assert LARGEST / 2 < curve.diverging < 10 * LARGEST
    assert curve.tenth == curve.diverging / 10
    assert LARGEST / 100 < curve.steepest < LARGEST
    assert min(curve.steepest, curve.tenth) < curve.suggested < max(curve.steepest, curve.tenth)
    assert curve.suggested == pytest.approx(math.sqrt(curve.steepest * curve.tenth))
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) < 100


def test_momentum_wants_a_smaller_lr():
    assert _tested(quadratic(0.9)).suggested < _tested(quadratic()).suggested


def test_the_scale_of_the_loss_plays_no_part():
    assert _tested(quadratic(scale=100.0)).diverging == pytest.approx(_tested(quadratic()).diverging, rel=0.3)


def test_again_it_is_the_same():
    assert _tested(quadratic(0.9)) == _tested(quadratic(0.9))


def test_the_steps_are_those_of_the_run():
    """The same losses as training by hand with these learning rates, with all that belongs to a step; an average isn't
    taken.
    """
    trainer = quadratic(0.9, step=StepSettings(clip_norm=0.5))
    trainer.average = Average(trainer.model, "ema", decay=0.9, start=1)
    before = to_bytes(trainer.average.state())
    curve = _tested(trainer, steps=30)
    assert to_bytes(trainer.average.state()) == before
    other = quadratic()
    optimizer = torch.optim.SGD(other.model.parameters(), lr=0.01, momentum=0.9)
    for lr, loss in zip(curve.lrs, curve.losses, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        value = SQUARED.loss(other.model(other.training.inputs), other.training.targets)
        assert value.item() == loss
        value.backward()
        nn.utils.clip_grad_norm_(other.model.parameters(), 0.5)
        optimizer.step()


def test_each_epoch_has_its_rows():
    trainer = quadratic()
    trainer.batch_size = 40
    seen = []

    def order(epoch):
        seen.append(epoch)
        return torch.arange(ROWS).roll(epoch)

    curve = range_test(trainer, 0.01, learning_rates(1e-9, 1e-8, 20), 20, order, 2)
    assert seen == [1 + step // 2 for step in range(20)]
    assert curve.losses[0] != curve.losses[1]
    assert curve.diverging is None


def test_groups_keep_their_ratio():
    trainer = quadratic()
    other = nn.Parameter(torch.zeros(1))
    trainer.optimizer.add_param_group({"params": [other], "lr": 0.03})
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    curve = _tested(trainer, steps=20)
    assert [lrs[0] for lrs in seen] == curve.lrs
    assert all(other == pytest.approx(3 * lr) for lr, other in seen)


def test_a_loss_that_becomes_infinite_ends_it():
    trainer = quadratic(scale=1e15)
    curve = _tested(trainer, lowest=1e-2, highest=1e9, steps=20)
    assert curve.diverging is not None
    assert all(map(math.isfinite, curve.losses))


def test_a_loss_that_is_not_finite_from_the_first():
    trainer = quadratic()
    trainer.model.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="before any step is taken"):
        _tested(trainer)


def test_losses_below_zero():
    shifted = Objective("regression", lambda outputs, targets: SQUARED.loss(outputs, targets) - 5000)
    trainer = quadratic()
    trainer.objective = shifted
    curve = _tested(trainer)
    assert max(curve.losses[: len(curve.losses) // 2]) < 0
    assert curve.steepest == pytest.approx(_tested(quadratic()).steepest, rel=0.5)
    assert curve.diverging > LARGEST


@pytest.mark.parametrize(
    ("smoothed", "steepest"), [([3.0, 3.0, 3.0], None), ([1.0, 2.0, 9.0], None), ([4.0, 3.9, 2.0, 1.0, 8.0], 2.0)]
)
def test_the_steepest(smoothed, steepest):
    curve = Curve([float(n) for n in range(len(smoothed))], smoothed, smoothed, None)
    assert curve.steepest == steepest
    assert curve.suggested == steepest


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), STEPS),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), STEPS),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.99), 1000),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=1.5), 10_000),
        (lambda p: torch.optim.Adam(p, 0.1, betas=(0.98, 0.999)), 500),
        (lambda p: torch.optim.Adagrad(p, 0.1), STEPS),
    ],
)
def test_a_longer_momentum_needs_more_steps(make, steps):
    trainer = quadratic()
    trainer.optimizer = make(trainer.model.parameters())
    assert steps_needed(trainer) == steps
