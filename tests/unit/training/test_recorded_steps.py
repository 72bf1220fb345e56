"""Recorded steps against eager ones, bit for bit; recorded_cases.py has what is trained."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from networks.mlp import mlp
from surefoot.base.errors import Stopped, UserError
from surefoot.data.order import RowOrder
from surefoot.training import minibatches
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Progress, Trainer
from surefoot.training.minibatches import Rows
from surefoot.training.recorded import executor, python_state, recorded_trainer, step_kind, tape
from surefoot.training.recorded.python_state import PythonState
from surefoot.training.recorded.recorded_trainer import RecordedTrainer
from surefoot.training.step import StepSettings
from tests.helpers import PROJECT
from tests.unit.training.recorded_cases import (
    ALL,
    EAGER,
    EPOCHS,
    FLAT,
    NETWORKS,
    ROWS,
    SEED,
    SIZE,
    WORDS,
    Case,
    Own,
    both_ways,
    differences,
    train,
)

MLP = NETWORKS["mlp"]


@pytest.fixture(autouse=True, scope="module")
def _soon():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_trainer, "EAGER_FIRST", 1)
        patch.setattr(recorded_trainer, "EAGER_FIRST_ALONE", 1)
        yield


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
def test_recorded_steps_give_the_bits_of_eager_ones(case):
    assert both_ways(case) == ("recorded", [])


@pytest.mark.parametrize(("case", "reason"), EAGER.values(), ids=EAGER)
@pytest.mark.filterwarnings("ignore:.*sparse:UserWarning")
def test_what_cannot_be_recorded_stays_eager_and_says_why(case, reason):
    way, wrong = both_ways(case)
    assert wrong == []
    assert way.startswith("eager: ")
    assert reason in way


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
def test_what_is_compiled_has_the_bits_of_eager_steps():
    case = Case(lambda: Own(lambda self, inputs: self.inner(inputs), inner=compiled_linear()))
    assert both_ways(case)[1] == []


def compiled_linear():
    return torch.compile(nn.Linear(6, 3), backend="eager")


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 5), max_size=2),
    dropout=st.sampled_from([0.0, 0.3]),
    optimizer=st.sampled_from(
        [
            ("SGD", {}),
            ("SGD", {"momentum": 0.9, "nesterov": True}),
            ("SGD", {"momentum": 0.5, "dampening": 0.2, "weight_decay": 0.05}),
            ("Adam", {"weight_decay": 0.05, "amsgrad": True}),
            ("AdamW", {"betas": (0.8, 0.9), "eps": 0.05}),
        ]
    ),
    step=st.builds(
        StepSettings,
        accumulate=st.integers(1, 3),
        clip_norm=st.sampled_from([None, 0.05, 1.0]),
        clip_value=st.sampled_from([None, 0.05]),
    ),
    average=st.sampled_from([None, "ema", "swa"]),
    lrs=st.lists(st.sampled_from([0.0, 0.05, 0.02, 0.1]), min_size=1, max_size=4),
    weights=st.sampled_from([None, (1.0, 0.05, 2.0), "balanced"]),
)
def test_whatever_is_asked_for_the_bits_are_those_of_eager_steps(
    sizes, dropout, optimizer, step, average, lrs, weights
):
    case = Case(
        lambda: mlp((6,), 3, sizes, dropout),
        optimizer=optimizer[0],
        arguments=optimizer[1],
        settings=step,
        average=average,
        class_weights=weights,
        scheduled=lambda number: [lrs[number // 12 % len(lrs)]],
    )
    assert both_ways(case)[1] == []


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ("native", ["mlp", "cnn, BatchNorm", "lstm", "attention", "adam", "accumulate", "bfloat16", "bfloat16, cnn"]),
        ("avx2", ["mlp", "cnn, BatchNorm", "lstm", "attention"]),
    ],
)
def test_with_other_numerics_the_bits_are_those_of_eager_steps(profile, names):
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.recorded_cases", profile, *names],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{name}: recorded; the same bits" for name in names]


def test_shares_that_part_after_a_while_are_those_of_their_step():
    """Of two classes as good as one, and a rare one that weighs more."""
    rows, steps = 160, 10
    inputs = torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(rows) % 2
    targets[150] = 2
    case = Case(
        lambda: mlp((6,), 3, [5], 0.5),
        Rows(inputs, targets),
        settings=StepSettings(accumulate=2),
        class_weights=(1, 1, 5),
    )
    trainers = [case.trainer(kind) for kind in (Trainer, RecordedTrainer)]
    found = [trainer.train(torch.arange(rows), [[0.05]] * steps, Progress(), 0) for trainer in trainers]
    assert found[0] == found[1]
    assert differences(*trainers) == []
    assert trainers[1].way == "recorded"


class CountsValidations(nn.Module):
    """A network whose training depends on how often it was validated."""

    def __init__(self):
        super().__init__()
        self.linear, self.validations = nn.Linear(6, 3), 0

    def forward(self, inputs):
        self.validations += not self.training
        return self.linear(inputs) * 0.9**self.validations


def test_what_a_validation_changes_is_seen():
    case, found = Case(CountsValidations), []
    trainers = [case.trainer(kind) for kind in (Trainer, RecordedTrainer)]
    for trainer in trainers:
        for epoch in range(1, 4):
            order, before = torch.arange(24).repeat(4), (epoch - 1) * 12
            found.append(trainer.train(order, [[0.05]] * 12, Progress(), before, epoch))
            found.append(trainer.end_epoch(epoch, before + 12))
    assert found[:6] == found[6:]
    assert differences(*trainers) == []
    assert trainers[1].way == "eager: validation changes CountsValidations.validations"


# --- From one way to the other ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "cnn, BatchNorm", "adam", "ema, BatchNorm, all"])
def test_a_state_of_one_way_goes_on_the_other_way(name):
    case = ALL[name]
    whole = case.trainer()
    expected = train(whole, case)
    state, found = case.trainer().state(), []
    for epoch in range(1, EPOCHS + 1):
        trainer = case.trainer(RecordedTrainer if epoch % 2 else Trainer)
        trainer.load({name: tensor.clone() for name, tensor in state.items()})
        found += train(trainer, case, epoch, epoch)
        state = trainer.state()
    assert found == expected
    assert differences(whole, trainer) == []


def test_what_is_loaded_in_between_is_what_steps_go_on_from():
    trainer, other = ALL["adam"].trainer(RecordedTrainer), ALL["adam"].trainer()
    train(other, ALL["adam"], 1, 2)
    train(trainer, ALL["adam"])
    assert trainer.way == "recorded"
    trainer.load({name: tensor.clone() for name, tensor in other.state().items()})
    slower = replace(ALL["adam"], scheduled=lambda step: [0.01])
    assert train(trainer, slower, 3) == train(other, slower, 3)
    assert differences(trainer, other) == []
    assert trainer.way == "recorded"


# --- What isn't finite, and what fails ----------------------------------------------------------


def poisoned(case, value, row):
    """The same training, with a value in a row that is first seen in the last epoch."""
    inputs = case.rows.inputs.clone()
    inputs[row] = value
    return replace(case, rows=Rows(inputs, case.rows.targets))


def how_it_ends(kind, case, spoilt):
    """What a training says that was trained well and goes on on spoilt rows; and how it took its steps."""
    trainer = case.trainer(kind)
    train(trainer, case, 1, EPOCHS - 1)
    trainer.training = spoilt.rows
    with pytest.raises((Diverged, UserError)) as caught:
        train(trainer, spoilt, EPOCHS, EPOCHS)
    return type(caught.value), str(caught.value), getattr(trainer, "way", None)


@pytest.mark.parametrize("name", ["mlp", "cnn, BatchNorm", "residual", "accumulate", "clip_norm"])
@pytest.mark.parametrize(("value", "row"), [(math.nan, 0), (math.inf, 17)])
def test_a_value_that_is_not_finite_is_named_as_eager_steps_name_it(name, value, row):
    case = ALL[name]
    spoilt = poisoned(case, value, row)
    eager, recorded = (how_it_ends(kind, case, spoilt) for kind in (Trainer, RecordedTrainer))
    assert recorded[:2] == eager[:2]
    assert recorded[0] is Diverged
    assert "at step " in recorded[1]
    assert recorded[2] == "recorded"


def test_a_gradient_that_is_not_finite_is_named_as_eager_steps_name_it():
    case = Case(MLP.make, optimizer="SGD", arguments={}, loss="MSELoss", rows=ALL["MSELoss"].rows)
    case = replace(case, make=ALL["MSELoss"].make, scheduled=lambda step: [0.05])
    spoilt = replace(case, rows=Rows(case.rows.inputs * 1e18, case.rows.targets))
    eager, recorded = (how_it_ends(kind, case, spoilt) for kind in (Trainer, RecordedTrainer))
    assert recorded[:2] == eager[:2]
    assert recorded[2] == "recorded"


def test_what_fails_in_the_middle_fails_as_eagerly():
    case = NETWORKS["embedding"]
    inputs = WORDS.inputs.clone()
    inputs[17] = 20  # there are 20 words, from 0
    spoilt = replace(case, rows=Rows(inputs, WORDS.targets))
    eager, recorded = (how_it_ends(kind, case, spoilt) for kind in (Trainer, RecordedTrainer))
    assert recorded[:2] == eager[:2]
    assert recorded[0] is UserError
    assert recorded[2] == "recorded"


def test_a_signal_in_the_middle_stops_the_training(monkeypatch):
    def stop(*_):
        raise Stopped(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        trainer, multiply = MLP.trainer(RecordedTrainer), np.matmul
        train(trainer, MLP)
        assert trainer.way == "recorded"

        def multiply_and_signal(*arguments, **more):
            monkeypatch.setattr(np, "matmul", multiply)  # once
            os.kill(os.getpid(), signal.SIGTERM)
            return multiply(*arguments, **more)

        monkeypatch.setattr(np, "matmul", multiply_and_signal)
        with pytest.raises(Stopped):
            train(trainer, MLP)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


# --- Which steps are recorded, and which aren't --------------------------------------------------


def test_without_the_executor_all_steps_are_eager(monkeypatch):
    def missing(source):
        raise RuntimeError("no such thing\nand more")

    executor.executor_fault.cache_clear()
    monkeypatch.setattr(torch.jit, "CompilationUnit", missing)
    way, wrong = both_ways(MLP)
    executor.executor_fault.cache_clear()
    assert way == f"eager: torch {torch.__version__} doesn't run programs: no such thing"
    assert wrong == []


def test_a_step_of_too_many_operations_stays_eager(monkeypatch):
    monkeypatch.setattr(tape, "MOST_OPERATIONS", 20)
    assert both_ways(MLP) == ("eager: it has more than 20 operations", [])


def test_a_large_network_stays_eager(monkeypatch):
    monkeypatch.setattr(recorded_trainer, "MOST_BYTES", {"cpu": 200})
    assert both_ways(MLP) == ("eager: the network has 0 MB, beside whose arithmetic Python takes no time", [])


def test_a_network_that_keeps_very_much_in_python_stays_eager(monkeypatch):
    monkeypatch.setattr(python_state, "MOST", 1000)
    case = Case(lambda: Own(lambda self, inputs: self.linear(inputs), words=[[number] for number in range(1000)]))
    assert both_ways(case) == ("eager: the network keeps more in Python than can be looked at", [])


class Grows(nn.Module):
    """A network that uses its second layer for the first time in some step."""

    def __init__(self, start):
        super().__init__()
        self.first, self.second, self.start = nn.Linear(6, 3), nn.Linear(6, 3), start
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls.add_(1)
        return self.first(inputs) + (self.second(inputs) if self.calls.item() > self.start else 0)


@pytest.mark.parametrize("start", range(1, 8))
def test_a_recording_leaves_nothing_in_the_optimizer(start):
    way, wrong = both_ways(Case(lambda: Grows(start)))
    assert wrong == []
    assert "reads a value" in way


def test_few_steps_are_not_recorded(monkeypatch):
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST", 30)
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST_ALONE", 30)
    assert both_ways(MLP) == (None, [])


def test_a_program_that_gives_other_bits_is_not_used(monkeypatch):
    real = executor.steps_source

    def wrong(*arguments):
        return real(*arguments).replace("aten.relu(", "aten.sigmoid(")

    monkeypatch.setattr(executor, "steps_source", wrong)
    assert both_ways(MLP) == ("eager: its program gives other bits", [])


@pytest.fixture(scope="module")
def of_a_library():
    """Operations of a library: torch knows nothing of what their numbers follow from."""
    library = torch.library.Library("surefoot_tests", "DEF")
    library.define("longest(Tensor rows) -> int")
    library.define("turn() -> int")
    library.impl("longest", lambda rows: 1 + int(rows.isnan().any()), "CompositeExplicitAutograd")
    library.impl("turn", lambda: 1, "CompositeExplicitAutograd")
    yield torch.ops.surefoot_tests
    library._destroy()


class TakesNumber(nn.Module):
    """Multiplies by a number that something gives."""

    def __init__(self, number):
        super().__init__()
        self.number, self.last = number, mlp([6], 3, [4])

    def forward(self, inputs):
        return self.last(inputs) * self.number(inputs)


@pytest.mark.parametrize("name", ["longest", "turn"])
def test_a_number_of_an_operation_of_a_library_is_a_value(of_a_library, name):
    def number(inputs):
        return of_a_library.longest(inputs) if name == "longest" else of_a_library.turn()

    way, wrong = both_ways(replace(MLP, make=lambda: TakesNumber(number)))
    assert "reads a value of a tensor in Python" in way
    assert wrong == []


class Changes(nn.Module):
    """A network that depends on what nothing can see; `kept` outlives a step, and is no buffer."""

    def __init__(self):
        super().__init__()
        self.linear, self.kept = nn.Linear(6, 3), torch.zeros(())

    def forward(self, inputs):
        self.kept += 0.01
        return self.linear(inputs) * os.get_terminal_size().columns + self.kept


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_call_whose_last_step_comes_out_otherwise_is_taken_again_eagerly(momentum, monkeypatch):
    monkeypatch.setattr(recorded_trainer, "CHECKED_AGAIN", 2)
    case, found = Case(Changes, arguments={"momentum": momentum}), []
    trainers = [case.trainer(kind) for kind in (Trainer, RecordedTrainer)]
    for trainer in trainers:
        for epoch in range(1, 5):
            size = os.terminal_size((1 if epoch < 3 else 2, 1))
            monkeypatch.setattr(os, "get_terminal_size", lambda size=size: size)
            found.append(trainer.train(torch.arange(ROWS).repeat(2), [[0.05]] * 8, Progress(), 8 * epoch - 8, epoch))
            if epoch == 2 and trainer is trainers[1]:
                assert trainer.way == "recorded"
    assert found[:4] == found[4:]
    assert differences(*trainers) == []
    assert torch.equal(trainers[0].model.kept, trainers[1].model.kept)
    assert trainers[1].way == "eager: its program gives other bits in step 23"


def test_what_is_not_finite_since_an_unchecked_step_is_named_as_eager_steps_name_it(monkeypatch):
    monkeypatch.setattr(recorded_trainer, "CHECKED_AGAIN", 2)
    case, said = Case(Changes), []
    for kind in (Trainer, RecordedTrainer):
        trainer = case.trainer(kind)
        monkeypatch.setattr(os, "get_terminal_size", lambda: os.terminal_size((1, 1)))
        train(trainer, case)
        monkeypatch.setattr(os, "get_terminal_size", lambda: os.terminal_size((math.nan, 1)))
        with pytest.raises(Diverged) as caught:
            trainer.train(torch.arange(ROWS), [[0.05]] * 4, Progress(), 32)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "at step 1," in said[0]


def test_a_step_is_checked_again_from_time_to_time(monkeypatch):
    monkeypatch.setattr(recorded_trainer, "CHECKED_AGAIN", 20)
    trainer, checked, real = MLP.trainer(RecordedTrainer), [], Trainer.train
    train(trainer, MLP)
    assert trainer.way == "recorded"

    def counted(self, order, scheduled, before, steps_before, *more):
        checked.append(steps_before)
        return real(self, order, scheduled, before, steps_before, *more)

    monkeypatch.setattr(Trainer, "train", counted)
    order = torch.arange(48).repeat(SIZE) % ROWS
    for call in range(3):
        trainer.train(order, [[0.05]] * 48, Progress(), 48 * call)
    assert checked == [47, 95, 143]
    assert trainer.way == "recorded"


def test_a_kind_with_one_step_in_a_call_is_recorded_late(monkeypatch):
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST_ALONE", EPOCHS + 1)
    recorded, real, trainer = [], recorded_trainer.record, MLP.trainer(RecordedTrainer)

    def noted(*arguments):
        recorded.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(recorded_trainer, "record", noted)
    train(trainer, MLP)
    assert len(recorded) == 2
    train(trainer, MLP)
    assert len(recorded) == 4


def test_a_program_that_always_fails_is_given_up(monkeypatch):
    trainer, tried = MLP.trainer(RecordedTrainer), []
    train(trainer, MLP)
    assert trainer.way == "recorded"

    def fail(*arguments):
        tried.append(1)
        raise RuntimeError("no room")

    monkeypatch.setattr(recorded_trainer, "run_stretch", fail)
    train(trainer, MLP)
    assert trainer.way == "eager: its program fails: no room"
    assert len(tried) == 2 * step_kind.TRIES  # two kinds


def test_a_state_from_before_the_average_began_may_be_loaded():
    case = ALL["ema"]
    trainer, other = case.trainer(RecordedTrainer), case.trainer()
    first = {name: tensor.clone() for name, tensor in trainer.state().items()}
    train(trainer, case)
    trainer.load(first)
    assert train(trainer, case) == train(other, case)
    assert differences(trainer, other) == []
    assert all(kind.reason is None for kind in trainer._kinds.values())


def test_most_steps_are_taken_without_python(monkeypatch):
    taken = []
    real = Trainer.train

    def counted(self, order, *arguments, **more):
        taken.append(len(order))
        return real(self, order, *arguments, **more)

    monkeypatch.setattr(Trainer, "train", counted)
    trainer = MLP.trainer(RecordedTrainer)
    train(trainer, MLP)
    assert trainer.way == "recorded"
    before = len(taken)
    train(trainer, MLP)
    assert taken[before:] == []


def test_a_watcher_sees_each_minibatch_go_by():
    case, seen = ALL["accumulate"], []

    def watch(batches):
        for batch in batches:
            seen.append(batch)
            yield batch

    trainer = case.trainer(RecordedTrainer)
    train(trainer, case)
    assert trainer.way == "recorded"
    order = torch.arange(ROWS)
    steps = -(-ROWS // trainer.rows_per_step)
    trainer.train(order, [[0.05]] * steps, Progress(), 0, 1, watch)
    assert len(seen) == -(-ROWS // SIZE)


# --- Rows wherever they lie ----------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 300, 1 << 20])
@pytest.mark.parametrize("kind", ["in memory", "bytes, scaled", "read from a file", "blocks"])
def test_rows_may_lie_anywhere(kind, chunk_bytes, monkeypatch, tmp_path):
    monkeypatch.setattr(minibatches, "CHUNK_BYTES", chunk_bytes)
    inputs, targets, scale = FLAT.inputs.numpy(), FLAT.targets.numpy(), None
    if kind == "bytes, scaled":
        inputs, scale = (inputs * 40 + 128).astype(np.uint8), {"subtract": [128.0], "divide": [40.0]}
    if kind == "read from a file":
        monkeypatch.setattr(minibatches, "MAPPED_BYTES", 0)
        np.save(tmp_path / "inputs.npy", inputs)
        inputs = np.load(tmp_path / "inputs.npy", mmap_mode="c")
    rows = Rows.stored(inputs, targets, scale)
    blocks = {"block": 10, "window": 2} if kind == "blocks" else {}
    trainers = [MLP.trainer(each) for each in (Trainer, RecordedTrainer)]
    found = []
    for trainer in trainers:
        trainer.training = rows
        found.append(
            [
                trainer.train(RowOrder(ROWS, SEED, epoch, **blocks), [[0.05]] * 4, Progress(), (epoch - 1) * 4, epoch)
                for epoch in range(1, EPOCHS + 1)
            ]
        )
    assert found[0] == found[1]
    assert differences(*trainers) == []
    assert trainers[1].way == "recorded"


# --- What a network keeps in Python ---------------------------------------------------------------


class Number:
    """A number in something."""

    number = 0


class Numbers(list):
    """A list with a number."""

    number = 0


class Keeper:
    """Something that a network may keep."""

    shared = 0

    def __init__(self):
        self.number, self.several, self.random = 0, {"a": [1, {2}]}, np.random.default_rng(0)
        self.kept, self.listed = {Number()}, Numbers()


def count(keeper):
    keeper.number += 1


def count_deep_down(keeper):
    keeper.several["a"][1].add(3)


def count_in_the_class(keeper):
    Keeper.shared += 1


def draw(keeper):
    keeper.random.random()


def count_in_a_set(keeper):
    next(iter(keeper.kept)).number += 1


def count_on_a_list(keeper):
    keeper.listed.number += 1


@pytest.mark.parametrize("change", [count, count_deep_down, count_in_the_class, count_in_a_set, count_on_a_list, draw])
def test_what_changes_in_python_is_seen(change):
    keeper = Keeper()
    before = PythonState(keeper)
    assert before.changed(PythonState(keeper)) is None
    change(keeper)
    assert before.changed(PythonState(keeper)).startswith("Keeper")
