import math

import pytest
import torch
from torch import nn

from surefoot.data.order import RowOrder
from surefoot.training import loop
from surefoot.training import minibatches as sources
from surefoot.training.minibatches import Rows
from surefoot.training.network import to_bytes
from surefoot.training.numerics import seed_step
from surefoot.training.objective import Objective
from tests.unit.run import chains

ROWS, SHAPE, CLASSES = 45, (1, 2, 3), 3


def make_rows(seed, rows=ROWS):
    seed_step(seed, 99)
    return Rows(torch.randn(rows, *SHAPE), torch.randint(CLASSES, (rows,)))


def make_model():
    seed_step(3, 0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES)
    )


def order(epoch, drop_last=False, size=8):
    return torch.from_numpy(RowOrder(ROWS, 3, epoch).indices()[: ROWS - ROWS % size if drop_last else ROWS])


def make_trainer(optimizer_options, size=8):
    options = {name: value for name, value in optimizer_options.items() if name != "lr"}
    return chains.trainer(make_model(), options, make_rows(0), make_rows(1, 20), size, seed=3)


def run(optimizer_options, *, epochs=3, size=8, drop_last=False, trainer=None, watch=lambda batches: batches):
    trainer = trainer or make_trainer(optimizer_options, size)
    results, step = [], 0
    for epoch in range(1, epochs + 1):
        rows = order(epoch, drop_last, size)
        steps = -(-len(rows) // size)
        progress = trainer.train(rows, [[optimizer_options["lr"]]] * steps, loop.Progress(), step, epoch, watch)
        assert progress.steps == steps
        step += steps
        metrics = {
            "train/loss": progress.loss_sum / progress.rows,
            **trainer.end_epoch(epoch, step),
            "lr": optimizer_options["lr"],
        }
        results.append((metrics, progress.rows, to_bytes(trainer.model.state_dict())))
    return results


def by_hand(optimizer_options, *, epochs=3, size=8, drop_last=False):
    """The loop of the tutorials, with nothing of ours in it but order and seeds."""
    model, loss_function = make_model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), **optimizer_options)
    training, validation = make_rows(0), make_rows(1, 20)
    results, step = [], 0
    for epoch in range(1, epochs + 1):
        model.train()
        total = count = 0
        for rows in order(epoch, drop_last, size).split(size):
            step += 1
            seed_step(3, step)
            optimizer.zero_grad()
            loss = loss_function(model(training.inputs[rows]), training.targets[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            count += len(rows)
        model.eval()
        with torch.no_grad():
            logits = model(validation.inputs)
        metrics = {
            "train/loss": total / count,
            "validation/loss": loss_function(logits, validation.targets).item(),
            "validation/accuracy": (logits.argmax(1) == validation.targets).double().mean().item(),
            "lr": optimizer_options["lr"],
        }
        results.append((metrics, count, to_bytes(model.state_dict())))
    return results


@pytest.mark.parametrize(
    "optimizer_options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        {"lr": 0.1, "weight_decay": 0.01},
        {"lr": 0.05, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1},
    ],
    ids=lambda options: " ".join(options),
)
@pytest.mark.parametrize(("size", "drop_last"), [(8, False), (8, True), (45, False), (64, False)])
@pytest.mark.parametrize("chunk_bytes", [1, 4 << 20])
def test_the_loop_equals_one_written_by_hand_bit_for_bit(monkeypatch, optimizer_options, size, drop_last, chunk_bytes):
    monkeypatch.setattr(sources, "CHUNK_BYTES", chunk_bytes)
    options = {"size": size, "drop_last": drop_last}
    assert run(optimizer_options, **options) == by_hand(optimizer_options, **options)


def test_what_a_stranger_draws_between_steps_changes_nothing():
    def watch(batches):
        for batch in batches:
            torch.rand(3)
            yield batch

    assert run({"lr": 0.1}, watch=watch) == run({"lr": 0.1})


def test_watch_sees_every_minibatch():
    seen = []

    def watch(batches):
        for inputs, targets in batches:
            seen.append(len(targets))
            yield inputs, targets

    run({"lr": 0.1}, epochs=2, watch=watch)
    assert seen == [8, 8, 8, 8, 8, 5] * 2


def test_each_step_has_its_own_learning_rate():
    trainer, lrs = make_trainer({}), [0.1, 0.2, 0.0, 0.4, 0.5, 0.6]
    trainer.train(order(1), [[lr] for lr in lrs], loop.Progress(), 0)
    model, training = make_model(), make_rows(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for step, (rows, lr) in enumerate(zip(order(1).split(8), lrs, strict=True), 1):
        seed_step(3, step)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(training.inputs[rows]), training.targets[rows]).backward()
        optimizer.step()
    assert to_bytes(trainer.model.state_dict()) == to_bytes(model.state_dict())


class Breaks:
    """A loss that is `value` when it is asked for the n-th time, and what it should be otherwise."""

    def __init__(self, value, call):
        self.value, self.call, self.calls = value, call, 0

    def __call__(self, logits, targets):
        self.calls += 1
        loss = nn.functional.cross_entropy(logits, targets)
        return loss * self.value if self.calls == self.call else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_before_its_step(value):
    trainer = make_trainer({})
    # 6 minibatches and a validation in an epoch: the tenth call is the third step of the second epoch.
    breaks = Breaks(value, 10)
    trainer.objective = Objective("classification", breaks)
    with pytest.raises(
        loop.Diverged, match=rf"^the loss became {value} at step 3, with lr 0.1; it began in the loss itself"
    ):
        run({"lr": 0.1}, trainer=trainer)
    assert breaks.calls == 10
    assert all(tensor.isfinite().all() for tensor in trainer.model.state_dict().values())


def test_a_validation_loss_that_is_not_finite_stops_too():
    trainer = make_trainer({})
    trainer.objective = Objective("classification", Breaks(math.nan, 7))
    with pytest.raises(
        loop.Diverged,
        match=r"^the loss became nan in the validation after it, with lr 0.1; it began in the loss itself",
    ):
        run({"lr": 0.1}, trainer=trainer)
