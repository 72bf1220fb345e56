"""Losses by task and name, class weights, and what is measured."""

import pytest
import torch
from torch import nn

from surefoot.base.errors import UserError
from surefoot.training.objective import CLASSIFICATION, Objective, make_objective
from surefoot.training.preflight import check_loss

LOGITS, CLASSES = (
    torch.tensor([[0.5, 1.0, -2.0], [1.0, 0.0, 0.3], [0.0, 2.0, 0.1], [1.0, 0.0, 3.0]]),
    torch.tensor([1, 0, 0, 2]),
)
NUMBERS, TARGETS = torch.tensor([[0.5], [-1.0], [2.0]]), torch.tensor([1.0, 0.0, 0.0])


def weird_loss(power=1.0):
    return lambda outputs, targets: (outputs - targets).abs().pow(power).sum()


def learned():
    return nn.Linear(1, 1)


def make(task="classification", name="auto", arguments=None, class_weights=None, class_counts=(2, 1, 1)):
    return make_objective(task, name, arguments or {}, class_weights, class_counts)


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "loss"),
    [
        ("classification", LOGITS, CLASSES, nn.CrossEntropyLoss()(LOGITS, CLASSES)),
        ("binary", NUMBERS, TARGETS, nn.BCEWithLogitsLoss()(NUMBERS[:, 0], TARGETS)),
        ("regression", NUMBERS, TARGETS, nn.MSELoss()(NUMBERS[:, 0], TARGETS)),
    ],
)
def test_the_loss_fits_the_task(task, outputs, targets, loss):
    aim = make(task)
    assert torch.equal(aim.loss(outputs, targets), loss)
    check_loss(aim, outputs, targets)


def test_by_name_with_arguments():
    aim = make("regression", "HuberLoss", {"delta": 0.1})
    assert torch.equal(aim.loss(NUMBERS, TARGETS), nn.HuberLoss(delta=0.1)(NUMBERS[:, 0], TARGETS))


def test_of_the_users_own():
    aim = make("regression", "tests.unit.training.test_objective:weird_loss", {"power": 2.0})
    assert aim.loss(NUMBERS, TARGETS).item() == pytest.approx(0.25 + 1 + 4)


def test_what_is_measured():
    assert CLASSIFICATION.measure(LOGITS, CLASSES) == {"accuracy": 0.75}
    assert make("binary").measure(NUMBERS, TARGETS) == {"accuracy": pytest.approx(2 / 3)}
    assert make("regression").measure(NUMBERS, TARGETS) == {"mae": pytest.approx((0.5 + 1 + 2) / 3)}


def test_errors_are_measured_in_the_targets_own_unit():
    aim = make_objective("regression", "auto", {}, None, (), unit=1000.0)
    assert aim.measure(NUMBERS, TARGETS) == {"mae": pytest.approx(1000 * (0.5 + 1 + 2) / 3)}
    assert torch.equal(aim.loss(NUMBERS, TARGETS), nn.MSELoss()(NUMBERS[:, 0], TARGETS))


@pytest.mark.parametrize("name", ["PoissonNLLLoss", "BCEWithLogitsLoss", "SoftMarginLoss"])
def test_a_loss_that_numbers_below_0_are_not_for_is_refused_where_they_are_scaled(name):
    make_objective("regression", name, {}, None, ())
    with pytest.raises(
        UserError, match=f"train.loss.name: {name} isn't for a scaled target, .*: set prepare.normalize_target: none"
    ):
        make_objective("regression", name, {}, None, (), unit=2.0)


def test_balanced_weights_give_each_class_the_same_share():
    aim = make(class_weights="balanced", class_counts=(1, 2, 5))
    expected = nn.CrossEntropyLoss(weight=torch.tensor([8 / 3, 8 / 6, 8 / 15]))
    assert torch.equal(aim.loss(LOGITS, CLASSES), expected(LOGITS, CLASSES))


def test_weights_in_binary_count_against_each_other():
    aim = make("binary", class_weights=[2.0, 6.0], class_counts=(3, 1))
    assert torch.equal(
        aim.loss(NUMBERS, TARGETS), nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))(NUMBERS[:, 0], TARGETS)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"name": "CrossEntropyLos"},
            "train.loss.name: torch.nn has no loss 'CrossEntropyLos'; it has AdaptiveLogSoftmaxWithLoss, BCELoss",
        ),
        ({"name": "Linear"}, "torch.nn has no loss 'Linear'"),
        ({"arguments": {"label_smothing": 0.1}}, "train.loss: CrossEntropyLoss(label_smothing=0.1) fails: TypeError"),
        ({"name": "no.such:loss"}, "train.loss.name: no.such:loss: can't import no.such"),
        ({"name": "tests.unit.training.test_objective:learned"}, "has parameters of its own"),
        ({"class_weights": [1.0, 2.0]}, "2 weights for 3 classes"),
        ({"class_weights": "balanced", "name": "MSELoss"}, "MSELoss takes none"),
        ({"class_weights": "balanced", "task": "regression", "class_counts": ()}, "there are no classes in regression"),
    ],
)
def test_a_wrong_loss_is_refused(given, message):
    with pytest.raises(UserError) as refusal:
        make(**given)
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        (
            make(name="MSELoss"),
            "train.loss: it fails on outputs of shape (4, 3) and targets of shape (4,) and type int64: RuntimeError",
        ),
        (make(arguments={"reduction": "none"}), "it gives shape (4,); one number is needed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_does_not_fit_is_refused_with_both_shapes(aim, message):
    with pytest.raises(UserError) as refusal:
        check_loss(aim, LOGITS, CLASSES)
    assert message in str(refusal.value)


def test_loss_that_would_spread_targets_over_outputs():
    """With as many rows as classes torch only warns."""
    with pytest.raises(UserError, match="needs outputs and targets of one shape"):
        check_loss(Objective("classification", nn.MSELoss()), torch.zeros(3, 3), torch.zeros(3))
