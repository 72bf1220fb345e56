"""Steps by a CUDA graph against eager ones, bit for bit.

Without a GPU a graph is played on the CPU by the operations that it would be captured from.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from surefoot.training import minibatches, on_cuda
from surefoot.training.on_cuda import fuse
from surefoot.training.recorded import cuda_graph, program, recorded_trainer, stretch
from surefoot.training.recorded.cuda_graph import split_by_device
from surefoot.training.recorded.merging import Number, Step, Unrecordable
from surefoot.training.recorded.recorded_trainer import RecordedTrainer
from surefoot.training.recorded.tape import Name, Operation
from tests.helpers import PROJECT
from tests.unit.training.recorded_cases import (
    ALL,
    BF16,
    NETWORKS,
    OPTIMIZERS,
    SIZE,
    Words,
    both_ways,
    differences,
    train,
)

aten = torch.ops.aten
FUSED = [name for name, case in ALL.items() if case.optimizer in ("SGD", "Adam", "AdamW") and name != "foreach"]
# Where something else than the rate is scheduled.
OTHER_NUMBERS = {"momentum scheduled", "betas scheduled", "beta grows late"}
# Networks that keep tensors on the CPU, which is their mistake on a GPU.
OF_THE_CPU = {"random numbers", "a view of a buffer"}


@pytest.fixture(autouse=True, scope="module")
def _soon():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_trainer, "EAGER_FIRST", 1)
        patch.setattr(recorded_trainer, "EAGER_FIRST_ALONE", 1)
        yield


@pytest.fixture
def captured(monkeypatch):
    """Plays graphs on the CPU; the list grows by each that is captured."""
    runs = []

    def play(run):
        runs.append(run)
        run()  # as once before it is captured
        return run

    monkeypatch.setattr(program, "compile_step", cuda_graph.GraphedStep)
    monkeypatch.setattr(cuda_graph, "capture", play)
    return runs


# On the CPU an LSTM's backward pass can't be called with what the forward pass noted.
@pytest.mark.parametrize("name", [name for name in FUSED if name != "lstm"])
def test_a_graph_gives_the_bits_of_eager_steps(captured, name):
    way, wrong = both_ways(replace(ALL[name], fused=True))
    assert wrong == []
    assert (way == "recorded") == (name not in OTHER_NUMBERS), way


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_graph_gives_the_bits_of_eager_steps():
    names = [*(name for name in ALL if name not in OF_THE_CPU), *BF16]
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.recorded_cases", "cuda", *names],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert [name for name in names if not said[name].endswith("; the same bits")] == []
    eager = {name for name in names if said[name] != "recorded; the same bits"}
    assert eager == OTHER_NUMBERS | {name for name in OPTIMIZERS if name not in FUSED}


def test_rows_are_brought_once_and_one_graph_takes_all_epochs(captured, monkeypatch):
    writes = {}
    real = cuda_graph.GraphedStep._bring

    def bring(self, *rows):
        real(self, *rows)
        writes.setdefault(self, []).append(self._inputs._version)

    monkeypatch.setattr(cuda_graph.GraphedStep, "_bring", bring)
    case = replace(NETWORKS["mlp"], fused=True)
    trainer = case.trainer(RecordedTrainer)
    train(trainer, case)
    assert trainer.way == "recorded"
    assert len(captured) == len(writes) == 2  # for whole minibatches, and for the last one of an epoch
    assert all(len(each) > 2 and set(each) == {1} for each in writes.values())


def test_more_steps_than_there_is_room_for_are_taken_in_parts(captured, monkeypatch):
    monkeypatch.setattr(cuda_graph, "AT_ONCE", 2)
    assert both_ways(replace(OPTIMIZERS["falling"], fused=True)) == ("recorded", [])


def test_rows_that_are_read_in_parts(captured, monkeypatch):
    """As from a file, or where there are too many of them for a GPU."""
    monkeypatch.setattr(stretch, "device_of", lambda model: torch.device("cuda"))
    monkeypatch.setattr(stretch, "MOST_ON_GPU", 0)
    monkeypatch.setattr(stretch, "CHUNK_ON_GPU", 2 * 8 * (6 * 4 + 8))  # of two minibatches
    assert both_ways(replace(NETWORKS["dropout"], fused=True)) == ("recorded", [])


def test_a_graph_that_cannot_be_captured_leaves_steps_eager(captured, monkeypatch):
    def fail(run):
        run()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(cuda_graph, "capture", fail)
    assert both_ways(replace(NETWORKS["dropout"], fused=True)) == (
        "eager: its program fails: operation not permitted when stream is capturing",
        [],
    )


def test_graphs_are_captured_anew_after_one_that_failed(captured, monkeypatch):
    """Its failure gives the generator another state, from which the others don't draw."""
    sizes = []

    def play(run):
        sizes.append(sum(run.__self__._step.sizes))
        run()
        if sizes[-1] < SIZE:
            raise RuntimeError("no room")
        return run

    monkeypatch.setattr(cuda_graph, "capture", play)
    monkeypatch.setattr(cuda_graph, "AT_ONCE", 2)  # the place of the next step may be behind the last one
    assert both_ways(replace(NETWORKS["dropout"], fused=True))[1] == []
    failed = [place for place, size in enumerate(sizes) if size < SIZE]
    assert SIZE in sizes[: failed[0]]
    assert SIZE in sizes[failed[0] :]


@pytest.mark.parametrize(("peak", "way"), [(30, "recorded"), (40, "eager: a graph beside eager steps may need")])
def test_a_graph_that_may_have_no_room_is_not_made(captured, monkeypatch, peak, way):
    for name, value in {
        "is_initialized": True,
        "max_memory_allocated": peak * 10**9,
        "mem_get_info": (80 * 10**9, 141 * 10**9),
        "memory_reserved": 20 * 10**9,
        "get_rng_state": torch.zeros(1),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    said, wrong = both_ways(replace(NETWORKS["mlp"], fused=True))
    assert said.startswith(way)
    assert wrong == []


# --- What is on which device ---------------------------------------------------------------------


def step_of(*operations):
    """A step on a GPU (in name), with a count on the CPU."""
    fixed = {Name("x0"): torch.empty(2, device="meta"), Name("t0"): torch.tensor(0)}
    return Step(operations, fixed, [], [2], [], [], draws=False, counter=None)


COUNT = Operation(aten.add_.Tensor, (Name("t0"), 1), {}, (Name("t0"),), gives_list=False)
COPY = Operation(aten._to_copy.default, (Name("t0"),), {"device": torch.device("meta")}, (Name("v1_0"),), False)
DOUBLE = Operation(aten.add.Tensor, (Name("x0"), Name("x0")), {}, (Name("v2_0"),), gives_list=False)


def test_what_counts_on_the_cpu_is_done_there_and_a_copy_that_nobody_takes_is_not_made():
    assert split_by_device(step_of(COUNT, COPY, DOUBLE)) == ([DOUBLE], [COUNT])


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (replace(DOUBLE, arguments=(Name("x0"), Name("v1_0"))), "aten::add takes a tensor from the CPU"),
        (replace(DOUBLE, arguments=(Name("x0"), Name("t0"))), "aten::add computes on the CPU"),
        (replace(COUNT, arguments=(Name("t0"), Number(0))), "aten::add_ computes on the CPU"),
        (Operation(aten.rand.default, ((2,),), {}, (Name("v2_0"),), False), "aten::rand computes on the CPU"),
        (
            Operation(aten._to_copy.default, (Name("x0"),), {"device": torch.device("cpu")}, (Name("v2_0"),), False),
            "aten::_to_copy computes on the CPU",
        ),
    ],
)
def test_what_goes_between_the_devices_is_refused(operation, reason):
    with pytest.raises(Unrecordable, match=reason):
        split_by_device(step_of(COUNT, COPY, operation))


# --- What is otherwise on a GPU ----------------------------------------------------------------------


def test_each_minibatch_lies_in_memory_of_its_own(monkeypatch):
    """As a part of several it would begin somewhere, on which a GPU's kernels depend: a run that went on within an
    epoch had other bits.
    """
    rows, starts = torch.arange(24.0)[:, None], []
    for size in (minibatches.CHUNK_BYTES, on_cuda.CHUNK_BYTES):
        monkeypatch.setattr(minibatches, "CHUNK_BYTES", size)
        given = minibatches.minibatches(rows, rows, torch.arange(24), 5)
        starts.append([inputs.storage_offset() for inputs, _ in given])
    assert starts == [[0, 5, 10, 15, 0], [0] * 5]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_a_on_cuda_reads_its_rate_from_a_tensor_and_keeps_it_as_a_number(kind):
    seen = []
    trainer = replace(NETWORKS["mlp"], optimizer=kind, arguments={}, fused=True).trainer()
    optimizer = trainer.optimizer
    optimizer.register_step_pre_hook(lambda *_: seen.append(type(optimizer.param_groups[0]["lr"])))
    train(trainer, NETWORKS["mlp"], last=1)
    assert set(seen) == {torch.Tensor}
    assert all(group["fused"] and group["lr"] == 0.05 for group in optimizer.param_groups)


def test_a_rate_stays_a_number_after_a_step_that_failed():
    trainer = replace(NETWORKS["mlp"], arguments={}, fused=True).trainer()
    optimizer = trainer.optimizer
    fails = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    fails.remove()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05]
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_complex_weights_are_moved_as_they_were():
    model = nn.Linear(2, 2, dtype=torch.complex64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fuse(optimizer, model)
    assert optimizer.param_groups[0]["fused"] is None


def test_a_fused_training_goes_on_from_its_state_with_the_same_bits():
    case = replace(OPTIMIZERS["adamw, two groups"], fused=True)
    whole, first, second = case.trainer(), case.trainer(), case.trainer()
    train(whole, case)
    train(first, case, last=3)
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    train(second, case, first=4)
    assert differences(whole, second) == []


@pytest.mark.parametrize(
    "case",
    [
        OPTIMIZERS["foreach"],
        OPTIMIZERS["rmsprop"],
        replace(NETWORKS["mlp"], arguments={"fused": False}),
        replace(NETWORKS["embedding"], make=lambda: Words(sparse=True), arguments={}),
    ],
    ids=["foreach", "no such kernel", "not fused", "sparse"],
)
def test_an_optimizer_stays_as_it_is_where_its_kernels_were_chosen_or_there_is_none(case):
    plain, asked = case.trainer(), case.trainer()
    fuse(asked.optimizer, asked.model)
    settings = [{**group, "params": None} for group in asked.optimizer.param_groups]
    assert settings == [{**group, "params": None} for group in plain.optimizer.param_groups]
    assert not asked.optimizer._optimizer_step_pre_hooks
