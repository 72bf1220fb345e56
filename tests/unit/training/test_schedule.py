"""What a schedule sets at each step, against torch's own scheduler driven by hand on an optimizer that trains."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from surefoot.base.errors import UserError
from surefoot.training.schedule import Schedule, epochs_of_schedule
from tests.unit.training import schedules_for_tests

EPOCHS, STEPS = 5, 4
FUNCTIONS = "tests.unit.training.schedules_for_tests"


def part(name, arguments=None, per="epoch", length=None, metric=None):
    """A part of `train.schedule`, as the params give it."""
    return {"name": name, "arguments": arguments or {}, "per": per, "length": length, "metric": metric}


def optimizer(name, groups=1, **arguments):
    """One that trains; the second group has values of its own."""
    own = [{}, {"lr": 0.02, **({"betas": (0.7, 0.95)} if name == "Adam" else {"momentum": 0.5})}]
    given = [{"params": [nn.Parameter(torch.ones(2, 3))], **own[number]} for number in range(groups)]
    return getattr(torch.optim, name)(given, lr=0.1, **arguments)


OPTIMIZERS = {
    "SGD": partial(optimizer, "SGD", momentum=0.9),
    "SGD, two groups": partial(optimizer, "SGD", 2, momentum=0.9, nesterov=True),
    "Adam": partial(optimizer, "Adam"),
    "Adam, two groups": partial(optimizer, "Adam", 2, betas=(0.8, 0.99)),
}


def values(made, cycled):
    """What an optimizer has now: the lr of each group, then the momentum of each, where it is cycled."""
    found = [group["lr"] for group in made.param_groups]
    if cycled:
        found += [group["betas"][0] if "betas" in group else group["momentum"] for group in made.param_groups]
    return found


def by_hand(made, scheduler, per, *, epochs=EPOCHS, steps=STEPS, max_steps=math.inf, cycled=False, metrics=()):
    """The loop of the tutorials, with what the optimizer had at each step, epoch by epoch."""
    found, taken, total = [], 0, min(epochs * steps, max_steps)
    for epoch in range(epochs):
        rows = []
        for _ in range(steps):
            if taken == total:
                break
            rows.append(values(made, cycled))
            for group in made.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            made.step()
            taken += 1
            if scheduler and per == "step" and taken < total:
                scheduler.step()
        if rows:
            found.append(rows)
        if scheduler and per == "epoch" and taken < total:
            scheduler.step(*metrics[epoch : epoch + 1])
    return found


def ours(schedule, metrics=None):
    """The same by `Schedule`."""
    if metrics is None:
        return [rows.tolist() for rows in epochs_of_schedule(schedule)]
    found, last = [], None
    for metric in [*metrics, None]:
        rows = schedule.next_epoch(last)
        if not len(rows):
            break
        found.append(rows.tolist())
        last = {schedule.metric: metric}
    return found


# --- Each class of torch.optim.lr_scheduler ------------------------------------------------------


@dataclass
class Case:
    """Arguments as the params have them; the same for torch, where those differ; whether momentum is cycled."""

    name: str
    arguments: dict = field(default_factory=dict)
    torch: dict | None = None
    cycled: bool = False
    make: object = None  # of (optimizer): where more is to be built by hand


def chained(made):
    return lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(made, 0.5, 2), lr_scheduler.ExponentialLR(made, 0.9)])


def sequential(made):
    some = [lr_scheduler.LinearLR(made, 0.1, 1.0, 2), lr_scheduler.CosineAnnealingLR(made, 9)]
    return lr_scheduler.SequentialLR(made, some, milestones=[2])


CYCLIC = {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3}
PARTS = [
    {"name": "ConstantLR", "arguments": {"factor": 0.5, "total_iters": 2}},
    {"name": "ExponentialLR", "arguments": {"gamma": 0.9}},
]
PARTS_IN_SEQUENCE = [
    {"name": "LinearLR", "arguments": {"start_factor": 0.1, "end_factor": 1.0, "total_iters": 2}},
    {"name": "CosineAnnealingLR", "arguments": {"T_max": 9}},
]
CASES = {
    "ChainedScheduler": Case("ChainedScheduler", {"schedulers": PARTS}, make=chained),
    "ConstantLR": Case("ConstantLR", {"factor": 0.25, "total_iters": 3}),
    "CosineAnnealingLR": Case("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.001}),
    "CosineAnnealingWarmRestarts": Case("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
    "CyclicLR": Case("CyclicLR", {**CYCLIC, "base_momentum": 0.7}, cycled=True),
    "CyclicLR, momentum as it is": Case(
        "CyclicLR", {**CYCLIC, "mode": "exp_range", "gamma": 0.99, "cycle_momentum": False}
    ),
    "CyclicLR by a function": Case(
        "CyclicLR",
        {**CYCLIC, "scale_fn": f"{FUNCTIONS}:constant", "scale_mode": "iterations"},
        {**CYCLIC, "scale_fn": schedules_for_tests.constant, "scale_mode": "iterations"},
        cycled=True,
    ),
    "ExponentialLR": Case("ExponentialLR", {"gamma": 0.8}),
    "LambdaLR": Case("LambdaLR", {"lr_lambda": f"{FUNCTIONS}:falls"}, {"lr_lambda": schedules_for_tests.falls}),
    "LinearLR": Case("LinearLR", {"start_factor": 0.1, "total_iters": 3}),
    "MultiplicativeLR": Case(
        "MultiplicativeLR", {"lr_lambda": f"{FUNCTIONS}:shrinks"}, {"lr_lambda": schedules_for_tests.shrinks}
    ),
    "MultiStepLR": Case("MultiStepLR", {"milestones": [2, 3, 11], "gamma": 0.3}),
    "OneCycleLR": Case("OneCycleLR", {"max_lr": 0.4, "total_steps": 20}, cycled=True),
    "OneCycleLR, momentum as it is": Case(
        "OneCycleLR", {"max_lr": 0.4, "epochs": 5, "steps_per_epoch": 4, "three_phase": True, "cycle_momentum": False}
    ),
    "PolynomialLR": Case("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    "SequentialLR": Case("SequentialLR", {"schedulers": PARTS_IN_SEQUENCE, "milestones": [2]}, make=sequential),
    "StepLR": Case("StepLR", {"step_size": 2, "gamma": 0.5}),
}


def test_there_is_no_class_that_is_not_tried_here():
    bases = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)
    classes = {
        name
        for name, kind in vars(lr_scheduler).items()
        if isinstance(kind, type) and issubclass(kind, bases) and not name.startswith("_")
    }
    assert classes - {"LRScheduler"} == {case.name for case in CASES.values()} | {"ReduceLROnPlateau"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("max_steps", [None, 14])
def test_each_class_gives_what_it_gives_by_hand(case, make, per, max_steps):
    schedule = Schedule([part(case.name, case.arguments, per)], make(), EPOCHS, STEPS, max_steps)
    made = make()
    scheduler = (
        case.make(made) if case.make else getattr(lr_scheduler, case.name)(made, **(case.torch or case.arguments))
    )
    wanted = by_hand(made, scheduler, per, max_steps=max_steps or math.inf, cycled=case.cycled)
    assert ours(schedule) == wanted
    assert len({tuple(row) for rows in wanted for row in rows}) > 1
    assert schedule.metric is None
    groups, momentum = range(len(made.param_groups)), "betas" if "betas" in made.param_groups[0] else "momentum"
    assert schedule.columns == [(number, "lr") for number in groups] + [
        (number, momentum) for number in groups if case.cycled
    ]


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_a_function_of_ones_own_gives_a_multiple_of_each_groups_lr(per):
    schedule = Schedule([part(f"{FUNCTIONS}:falls", {"slope": 3}, per)], OPTIMIZERS["SGD, two groups"](), EPOCHS, STEPS)
    made = OPTIMIZERS["SGD, two groups"]()
    assert ours(schedule) == by_hand(made, lr_scheduler.LambdaLR(made, lambda n: schedules_for_tests.falls(n, 3)), per)


def test_a_function_for_each_group():
    functions = [f"{FUNCTIONS}:falls", f"{FUNCTIONS}:constant"]
    schedule = Schedule([part("LambdaLR", {"lr_lambda": functions})], OPTIMIZERS["SGD, two groups"](), EPOCHS, STEPS)
    made = OPTIMIZERS["SGD, two groups"]()
    scheduler = lr_scheduler.LambdaLR(made, [schedules_for_tests.falls, schedules_for_tests.constant])
    assert ours(schedule) == by_hand(made, scheduler, "epoch")


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_constant_is_constant(per):
    schedule = Schedule([part("constant", per=per)], OPTIMIZERS["Adam, two groups"](), EPOCHS, STEPS)
    assert ours(schedule) == [[[0.1, 0.02]] * STEPS] * EPOCHS == by_hand(OPTIMIZERS["Adam, two groups"](), None, per)


def test_the_optimizer_that_is_given_is_not_touched():
    made = OPTIMIZERS["SGD, two groups"]()
    before = repr(made.state_dict()), [group["params"][0].tolist() for group in made.param_groups]
    ours(Schedule([part("OneCycleLR", per="step")], made, EPOCHS, STEPS))
    assert (repr(made.state_dict()), [group["params"][0].tolist() for group in made.param_groups]) == before


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adafactor", "Adagrad", "ASGD", "Muon", "NAdam", "RMSprop", "Rprop", "SparseAdam"]
)
def test_each_kind_of_optimizer_can_be_driven(name):
    def make():
        return getattr(torch.optim, name)([nn.Parameter(torch.ones(2, 3))], lr=0.1)

    made = make()
    scheduler = lr_scheduler.StepLR(made, 2)
    wanted = [[0.1] if epoch < 2 else [0.1 * 0.1] for epoch in range(3)]
    assert ours(Schedule([part("StepLR", {"step_size": 2})], make(), 3, 1)) == [[row] for row in wanted]
    assert scheduler.get_last_lr() == [0.1]


# --- What is left out ----------------------------------------------------------------------------


LENGTHS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.none() | st.integers(1, 24))


@settings(max_examples=60)
@given(
    LENGTHS,
    st.sampled_from(["epoch", "step"]),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from(["CosineAnnealingLR", "OneCycleLR"]),
)
def test_lengths_and_the_highest_lr_are_those_of_the_run(sizes, per, kind, name):
    number, steps, max_steps = sizes
    total = min(number * steps, max_steps or number * steps)
    length = total if per == "step" else -(-total // steps)
    schedule = Schedule([part(name, per=per)], OPTIMIZERS[kind](), number, steps, max_steps)
    made = OPTIMIZERS[kind]()
    if name == "OneCycleLR":
        scheduler = lr_scheduler.OneCycleLR(made, [group["lr"] for group in made.param_groups], total_steps=length)
    else:
        scheduler = lr_scheduler.CosineAnnealingLR(made, length)
    wanted = by_hand(made, scheduler, per, epochs=number, steps=steps, max_steps=total, cycled=name == "OneCycleLR")
    found = ours(schedule)
    assert found == wanted
    assert sum(map(len, found)) == total
    assert [len(rows) for rows in found] == [min(steps, total - first) for first in range(0, total, steps)]


def test_a_length_that_is_given_stays():
    schedule = Schedule([part("CosineAnnealingLR", {"T_max": 2})], OPTIMIZERS["SGD"](), 3, 1)
    assert ours(schedule) == [[[0.1]], [[0.05]], [[0.0]]]


@settings(max_examples=30)
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from(["epoch", "step"]))
def test_another_budget_changes_no_step_that_both_have(one, other, per):
    name, arguments = "CosineAnnealingLR", {"T_max": 20}
    a, b = (
        np.concatenate(ours(Schedule([part(name, arguments, per)], OPTIMIZERS["SGD"](), 6, 4, most)))
        for most in (one, other)
    )
    shared = min(one, other)
    assert a[:shared].tolist() == b[:shared].tolist()
    assert (len(a), len(b)) == (one, other)


# --- One after the other -------------------------------------------------------------------------


POOL = {
    "constant": ({}, lambda made, length: lr_scheduler.LambdaLR(made, lambda _: 1)),
    "LinearLR": (
        {"start_factor": 0.1, "total_iters": 3},
        lambda made, length: lr_scheduler.LinearLR(made, 0.1, total_iters=3),
    ),
    "CosineAnnealingLR": ({}, lambda made, length: lr_scheduler.CosineAnnealingLR(made, length)),
    "ExponentialLR": ({"gamma": 0.7}, lambda made, length: lr_scheduler.ExponentialLR(made, 0.7)),
    "OneCycleLR": (
        {},
        lambda made, length: lr_scheduler.OneCycleLR(
            made, [group["lr"] for group in made.param_groups], total_steps=length
        ),
    ),
    "StepLR": ({"step_size": 1}, lambda made, length: lr_scheduler.StepLR(made, 1)),
    f"{FUNCTIONS}:falls": ({}, lambda made, length: lr_scheduler.LambdaLR(made, schedules_for_tests.falls)),
}


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(POOL)), st.integers(1, 5)), min_size=2, max_size=4),
    st.booleans(),
    st.data(),
)
def test_a_list_is_a_sequence_with_milestones(some, open_end, data):
    per, kind = data.draw(st.sampled_from(["epoch", "step"])), data.draw(st.sampled_from(sorted(OPTIMIZERS)))
    whole = sum(length for _, length in some)
    steps = 3 if per == "epoch" else data.draw(st.integers(1, whole))
    number = whole if per == "epoch" else -(-whole // steps)
    max_steps = whole * steps if per == "epoch" else whole
    parts = [part(name, POOL[name][0], per, length) for name, length in some]
    if open_end:
        parts[-1]["length"] = None
    schedule = Schedule(parts, OPTIMIZERS[kind](), number, steps, max_steps)
    made = OPTIMIZERS[kind]()
    schedulers = [POOL[name][1](made, length) for name, length in some]
    scheduler = lr_scheduler.SequentialLR(
        made, schedulers, milestones=np.cumsum([length for _, length in some])[:-1].tolist()
    )
    cycled = any(name == "OneCycleLR" for name, _ in some)
    assert ours(schedule) == by_hand(
        made, scheduler, per, epochs=number, steps=steps, max_steps=max_steps, cycled=cycled
    )


# --- By feedback ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.sampled_from(["validation/loss", "validation/accuracy", "train/loss"]),
    st.fixed_dictionaries(
        {"patience": st.integers(0, 2), "factor": st.sampled_from([0.1, 0.5])},
        optional={"cooldown": st.just(1), "mode": st.just("max")},
    ),
    st.sampled_from(["SGD", "Adam, two groups"]),
)
def test_a_plateau_follows_its_metric(metrics, metric, arguments, kind):
    schedule = Schedule([part("ReduceLROnPlateau", arguments, metric=metric)], OPTIMIZERS[kind](), len(metrics), 2)
    made = OPTIMIZERS[kind]()
    mode = {"mode": "max" if metric == "validation/accuracy" else "min"}
    scheduler = lr_scheduler.ReduceLROnPlateau(made, **(mode | arguments))
    assert ours(schedule, metrics) == by_hand(made, scheduler, "epoch", epochs=len(metrics), steps=2, metrics=metrics)
    assert schedule.metric == metric


def test_a_plateau_looks_at_the_validation_loss():
    schedule = Schedule([part("ReduceLROnPlateau", {"patience": 0})], OPTIMIZERS["SGD"](), 4, 2, 7)
    assert schedule.metric == "validation/loss"
    assert ours(schedule, [1.0, 2.0, 0.5, 0.6]) == [[[0.1]] * 2, [[0.1]] * 2, [[0.1 * 0.1]] * 2, [[0.1 * 0.1]]]


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [part("CosineAnealingLR")],
            (
                "train.schedule.name: torch.optim.lr_scheduler has no schedule 'CosineAnealingLR'; did you mean"
                " CosineAnnealingLR?"
            ),
        ),
        ([part("constant", {"factor": 1})], "train.schedule.arguments: `constant` takes none"),
        (
            [part("StepLR")],
            (
                "train.schedule: StepLR() fails: TypeError: StepLR.__init__() missing 1 required positional argument:"
                " 'step_size'"
            ),
        ),
        (
            [part("StepLR", {"step": 3})],
            (
                "train.schedule: StepLR(step=3) fails: TypeError: StepLR.__init__() got an unexpected keyword argument"
                " 'step'"
            ),
        ),
        (
            [part("LinearLR", {"start_factor": 0})],
            "LinearLR(start_factor=0) fails: ValueError: Starting multiplicative factor",
        ),
        (
            [part("OneCycleLR", {"total_steps": 3})],
            "train.schedule: OneCycleLR fails: ValueError: Tried to step 4 times",
        ),
        ([part("StepLR", {"step_size": 0})], "train.schedule: StepLR fails: ZeroDivisionError"),
        ([part("LambdaLR", {"lr_lambda": "x:y"})], "train.schedule.arguments.lr_lambda: x:y: can't import x"),
        ([part("LambdaLR", {"lr_lambda": 3})], "train.schedule.arguments.lr_lambda: 3: `module:function` is needed"),
        ([part("LambdaLR", {"lr_lambda": [f"{FUNCTIONS}:falls"] * 2})], "LambdaLR(lr_lambda="),
        (
            [part(f"{FUNCTIONS}:nothing")],
            f"train.schedule.name: {FUNCTIONS}:nothing: module {FUNCTIONS} has no 'nothing'",
        ),
        ([part(f"{FUNCTIONS}:fails")], "ValueError: no such step ("),
        ([part(f"{FUNCTIONS}:gives_nothing")], "fails: TypeError: "),
        (
            [part(f"{FUNCTIONS}:infinite_at_first")],
            f"train.schedule: {FUNCTIONS}:infinite_at_first gives values that aren't numbers: [inf]",
        ),
        (
            [part("ExponentialLR", {"gamma": 1e200}, "step")],
            "train.schedule: ExponentialLR gives values that aren't numbers: [inf]",
        ),
        ([part("ExponentialLR", {"gamma": "fast"})], "train.schedule: ExponentialLR fails: TypeError"),
        (
            [part("ChainedScheduler", {"schedulers": [{"arguments": {}}]})],
            "train.schedule.arguments.schedulers.0: a schedule has a `name` and `arguments`",
        ),
        (
            [part("ChainedScheduler", {"schedulers": ["StepLR"]})],
            "train.schedule.arguments.schedulers.0: a schedule has a `name` and `arguments`",
        ),
        (
            [part("ChainedScheduler", {"schedulers": [{"name": "StepLR", "steps": 2}]})],
            "train.schedule.arguments.schedulers.0: a schedule has a `name`",
        ),
        (
            [part("ChainedScheduler", {"schedulers": [{"name": "constant"}]})],
            "lr_scheduler has no schedule 'constant'; did you mean ConstantLR?",
        ),
        ([part("ChainedScheduler", {"schedulers": []})], "ChainedScheduler() fails: ValueError"),
        (
            [part("ChainedScheduler", {"schedulers": [{"name": "StepLR"}]})],
            "train.schedule.arguments.schedulers.0: StepLR() fails",
        ),
        ([part("ReduceLROnPlateau", length=2), part("constant")], "train.schedule: SequentialLR("),
        ([part("constant", length=2), part("ReduceLROnPlateau")], "does not support `ReduceLROnPlateau`"),
        ([part("constant", length=2), part("StepLR")], "train.schedule.1: StepLR() fails"),
        (
            [part("constant", length=2), part("Step")],
            "train.schedule.1.name: torch.optim.lr_scheduler has no schedule 'Step'; did you mean StepLR?",
        ),
        (
            [part("constant", None, "step", 20), part("constant", None, "step")],
            "train.schedule: lengths of 20 steps do not fit the run, which has 20",
        ),
        (
            [part("constant", None, "step", 9), part("constant", None, "step", 9)],
            "lengths of 18 steps do not fit the run, which has 20",
        ),
        (
            [part("constant", None, "step", 9), part("constant", None, "step", 12)],
            "lengths of 21 steps do not fit the run, which has 20",
        ),
    ],
)
def test_what_cannot_be_is_refused(parts, message):
    with pytest.raises(UserError) as caught:
        ours(Schedule(parts, OPTIMIZERS["SGD"](), EPOCHS, STEPS))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cycle_of_momentum_needs_one():
    with pytest.raises(
        UserError, match="optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
    ):
        Schedule([part("OneCycleLR")], optimizer("Adagrad"), 2, 2)
    schedule = Schedule([part("OneCycleLR", {"cycle_momentum": False})], optimizer("Adagrad"), 2, 2)
    assert schedule.columns == [(0, "lr")]
