"""A step of several minibatches is the step of one minibatch of all their rows."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from surefoot.training import loop
from surefoot.training.minibatches import Rows
from surefoot.training.objective import Objective, make_objective
from surefoot.training.step import StepSettings
from tests.unit.run.chains import trainer

CLASSES, INPUTS = 4, 3
WEIGHTS = [9.0, 0.1, 2.5, 1.0]


def a_factorys(**arguments):
    return nn.CrossEntropyLoss(torch.tensor(WEIGHTS), **arguments)


class OfItsOwn(nn.CrossEntropyLoss):
    """Has weights, and is a mean over rows."""

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, self.weight, reduction="none").mean()


def of_its_own():
    return OfItsOwn(torch.tensor(WEIGHTS))


HERE = "tests.unit.training.test_accumulation"
# Each: the task, the loss with its arguments, and class weights.
LOSSES = {
    "no weights": ("classification", "auto", {}, None),
    "weights": ("classification", "auto", {}, WEIGHTS),
    "balanced": ("classification", "auto", {}, "balanced"),
    "smoothed labels": ("classification", "CrossEntropyLoss", {"label_smoothing": 0.3}, WEIGHTS),
    "a class that is ignored": ("classification", "CrossEntropyLoss", {"ignore_index": 2}, None),
    "a class that is ignored, and weights": ("classification", "CrossEntropyLoss", {"ignore_index": 2}, WEIGHTS),
    "a sum": ("classification", "CrossEntropyLoss", {"reduction": "sum"}, WEIGHTS),
    "likelihood": ("classification", "NLLLoss", {}, WEIGHTS),
    "margins": ("classification", "MultiMarginLoss", {}, WEIGHTS),
    "a factory's": ("classification", f"{HERE}:a_factorys", {}, None),
    "a class of the user's": ("classification", f"{HERE}:of_its_own", {}, None),
    "binary": ("binary", "auto", {}, [1.0, 7.0]),
    "numbers": ("regression", "auto", {}, None),
    "numbers, a sum": ("regression", "HuberLoss", {"reduction": "sum", "delta": 0.5}, None),
}


def rows_of(task, labels):
    inputs = torch.randn(len(labels), INPUTS, generator=torch.Generator().manual_seed(len(labels)))
    return Rows(
        inputs,
        labels if task == "classification" else (labels.float() if task == "regression" else (labels % 2).float()),
    )


def after_a_step(task, aim, rows, size, accumulate):
    """The loss that is reported, and the weights after one step of lr 1 along the gradient."""
    torch.manual_seed(0)
    model = nn.Linear(INPUTS, CLASSES if task == "classification" else 1)
    made = trainer(model, {}, rows, rows, size, seed=0, objective=aim, step=StepSettings(accumulate))
    progress = made.train(torch.arange(len(rows.targets)), [[1.0]], loop.Progress(), 0)
    assert progress.rows == len(rows.targets)
    return [progress.loss_sum / progress.rows, *model.weight.detach().ravel().tolist(), *model.bias.detach().tolist()]


@pytest.mark.parametrize("name", LOSSES)
@given(st.lists(st.sampled_from([0, 1, 3]), min_size=2, max_size=30), st.integers(1, 8), st.integers(0, 2**32))
def test_is_the_larger_minibatch(name, labels, size, seed):
    task, loss, arguments, weights = LOSSES[name]
    # In each minibatch one row that isn't ignored.
    drawn = torch.randint(2, (len(labels),), generator=torch.Generator().manual_seed(seed)) > 0
    drawn[::size] = False
    labels = torch.where(drawn, torch.tensor(2), torch.tensor(labels))
    counts = (torch.bincount(labels, minlength=CLASSES) + 1).tolist() if task != "regression" else []
    aim = make_objective(task, loss, arguments, weights, counts[: 2 if task == "binary" else None])
    rows = rows_of(task, labels)
    large = after_a_step(task, aim, rows, len(labels), 1)
    assert after_a_step(task, aim, rows, size, len(labels)) == pytest.approx(large, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 3], [1, 1, 1, 1, 0]])
def test_weighing_by_rows_would_be_another_step(labels):
    """The property could be false."""
    aim, rows = (
        make_objective("classification", "auto", {}, WEIGHTS, [1] * CLASSES),
        rows_of("classification", torch.tensor(labels)),
    )
    large = after_a_step("classification", aim, rows, 5, 1)
    by_rows = replace(aim, share=Objective.share)
    assert after_a_step("classification", by_rows, rows, 2, 3)[1:] != pytest.approx(large[1:], rel=0.01)
