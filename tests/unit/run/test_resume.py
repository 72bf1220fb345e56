import itertools

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.base import digests
from surefoot.data.order import RowOrder
from surefoot.run.segments import all_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training import minibatches
from surefoot.training.loop import Progress
from surefoot.training.minibatches import Rows
from surefoot.training.network import outputs_of, to_bytes
from tests.unit.run.chains import (
    CLASSES,
    OPTIMIZER,
    ROWS,
    SEED,
    SIZE,
    TRAINING,
    VALIDATION,
    chain,
    make,
    make_model,
    order,
    trainer,
)

LRS = [0.1 / step for step in range(1, 13)]
STEPS = 6


def run(trainer, first, last, progress=None):
    """Steps first+1 to last of a run of two epochs, one call of `train` a piece of an epoch."""
    progress = progress or Progress()
    while first < last:
        epoch, within = divmod(first, STEPS)
        until = min(last, (epoch + 1) * STEPS)
        if within == 0:
            progress = Progress()
        some = order(epoch + 1)[within * SIZE :][: (until - first) * SIZE]
        progress = trainer.train(some, [[lr] for lr in LRS[first:until]], progress, first)
        if until % STEPS == 0:
            trainer.end_epoch(epoch + 1, until)
        first = until
    return progress


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_trainer_that_goes_on_from_any_step_is_at_the_same_bits(stop):
    whole, first, second = make(), make(), make()
    wanted = run(whole, 0, 12)
    progress = run(first, 0, stop)
    data = to_bytes(first.state())
    torch.rand(17)  # the generator's state is none of the trainer's
    second.load(load(data))
    assert to_bytes(second.state()) == data
    got = run(second, stop, 12, progress)
    assert to_bytes(second.state()) == to_bytes(whole.state())
    assert got == wanted


def load(data):
    import safetensors.torch

    return safetensors.torch.load(data)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
)
@pytest.mark.parametrize("stop", [3, 6, 8])
def test_each_kind_of_sgd_resumes(options, stop):
    def make():
        return trainer(make_model(), options, TRAINING, VALIDATION, SIZE, 3)

    whole, first, second = make(), make(), make()
    run(whole, 0, 12)
    progress = run(first, 0, stop)
    second.load(load(to_bytes(first.state())))
    run(second, stop, 12, progress)
    assert to_bytes(second.state()) == to_bytes(whole.state())


def test_to_go_back_to_the_start_forgets_momentum():
    trainer = make()
    start = load(to_bytes(trainer.state()))
    assert not any(name.startswith("optimizer.") for name in start)
    run(trainer, 0, 3)
    trainer.load(start)
    fresh = make()
    run(trainer, 0, 4)
    run(fresh, 0, 4)
    assert to_bytes(trainer.state()) == to_bytes(fresh.state())


def test_the_state_has_all_that_changes():
    """Each tensor of the network and the optimizer differs in the state after a step, or can't change."""
    trainer = make()
    names = set(trainer.state())
    run(trainer, 0, 1)
    assert names | {
        f"optimizer.{number}.momentum_buffer" for number in range(len(list(trainer.model.parameters())))
    } == set(trainer.state())
    assert "buffers.2.calls" in names  # a buffer that isn't persistent
    assert {"model.1.running_mean", "model.1.num_batches_tracked"} <= names


def test_a_part_frozen_in_evaluation_mode_stays_so_through_a_validation():
    model = make_model()
    before = [part.training for part in model.modules()]
    assert False in before
    outputs_of(model, VALIDATION.inputs)
    assert [part.training for part in model.modules()] == before


def test_tied_weights_resume():
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
        model[2].weight = model[0].weight
        return trainer(model, {"momentum": 0.9}, TRAINING, VALIDATION, SIZE, 3)

    whole, first, second = make(), make(), make()
    run(whole, 0, 8)
    progress = run(first, 0, 4)
    second.load(load(to_bytes(first.state())))
    run(second, 4, 8, progress)
    assert second.model[0].weight is second.model[2].weight
    assert to_bytes(second.state()) == to_bytes(whole.state())


def test_the_same_tensors_give_the_same_bytes():
    tensors = {f"part.{number}": torch.full((2,), float(number)) for number in range(6)}
    found = {
        digests.sha256(to_bytes(dict(some))) for some in itertools.islice(itertools.permutations(tensors.items()), 100)
    }
    assert len(found) == 1
    transposed = {"a": torch.arange(6.0).reshape(2, 3).T.contiguous()}
    assert to_bytes({"a": torch.arange(6.0).reshape(2, 3).T}) == to_bytes(transposed)


assert -(-ROWS // SIZE) == STEPS


# --- Rows in windows of blocks, from files larger than memory ------------------------------------


class Blocked:
    """Chains whose rows come in windows of 3 blocks of 4 rows, minibatches of 5, from files that are
    read, not mapped.
    """

    def __init__(self, path, monkeypatch):
        monkeypatch.setattr(minibatches, "MAPPED_BYTES", 0)
        generator = np.random.default_rng(0)
        np.save(path / "inputs.npy", generator.integers(256, size=(ROWS, 5), dtype=np.uint8))
        np.save(path / "targets.npy", generator.integers(CLASSES, size=ROWS))
        self.inputs, self.targets = (np.load(path / f"{name}.npy", mmap_mode="c") for name in ("inputs", "targets"))
        self.steps = -(-ROWS // 5)

    def make(self):
        training = Rows.stored(self.inputs, self.targets, {"subtract": [120.0], "divide": [70.0]})
        return trainer(make_model(), OPTIMIZER, training, VALIDATION, 5, SEED)

    def order(self, epoch):
        return RowOrder(ROWS, SEED, epoch, block=4, window=3)

    def walk(self, path, epochs, checkpoint_every, stop=None):
        """The digests of the states at the ends of epochs, and the weights; None where it was stopped before."""
        calls = 0

        def check():
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt

        parts = all_segments({"blocked": 1}, [np.full(self.steps, 0.05)] * epochs, checkpoint_every)
        with chain(parts, TrajectoryStore(path), self.make, self.order, check=check) as links:
            try:
                return [reached.record.state for reached in links.follow()], links.weights(parts[-1].key)
            except KeyboardInterrupt:
                return None


@pytest.fixture
def blocked(tmp_path, monkeypatch):
    return Blocked(tmp_path, monkeypatch)


def test_a_minibatch_may_span_windows_and_the_last_is_short(blocked):
    assert [len(window.places) for window in blocked.order(1).windows()] != [12] * 4
    sizes = [
        len(targets)
        for _, targets in minibatches.minibatches(*vars(blocked.make().training).values(), blocked.order(1), 5)
    ]
    assert sizes == [5] * 9


@pytest.mark.parametrize("checkpoint_every", [0, 1, 2, 4])
@pytest.mark.parametrize("stop", [2, 3, 5])
def test_blocks_killed_in_a_window_end_at_the_same_bits(blocked, tmp_path, checkpoint_every, stop):
    """12 rows in a window, 5 in a minibatch: a segment ends in the middle of a window, and windows in the middle of a
    minibatch.
    """
    whole = blocked.walk(tmp_path / "whole", 3, 0)
    stopped = blocked.walk(tmp_path / "cut", 3, checkpoint_every, stop)
    assert stopped is None or checkpoint_every == 0
    assert blocked.walk(tmp_path / "cut", 3, checkpoint_every) == whole


def test_blocks_lengthened_shortened_and_cut_otherwise_end_at_the_same_bits(blocked, tmp_path):
    whole, short = blocked.walk(tmp_path / "whole", 3, 0), blocked.walk(tmp_path / "short", 2, 0)
    assert whole[0][:2] == short[0]
    assert blocked.walk(tmp_path / "grown", 2, 4) == short
    assert blocked.walk(tmp_path / "grown", 3, 2) == whole
    assert blocked.walk(tmp_path / "grown", 2, 1) == short


def test_blocks_in_memory_and_from_files_train_the_same_bits(blocked, tmp_path, monkeypatch):
    read = blocked.walk(tmp_path / "read", 2, 0)
    monkeypatch.setattr(minibatches, "MAPPED_BYTES", 1 << 20)
    assert blocked.walk(tmp_path / "mapped", 2, 0) == read
    images = (blocked.inputs.astype(np.float32) - 120) / 70
    monkeypatch.setattr(
        blocked,
        "make",
        lambda: trainer(
            make_model(), OPTIMIZER, Rows(*map(torch.from_numpy, (images, blocked.targets))), VALIDATION, 5, SEED
        ),
    )
    assert blocked.walk(tmp_path / "tensors", 2, 0) == read
