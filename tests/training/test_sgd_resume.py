import itertools

import pytest
import torch
from torch import nn

from surefoot import files
from surefoot.training.model import predict, to_bytes
from surefoot.training.sgd import Progress, Trainer
from tests.training.chains import ROWS, SIZE, TRAINING, VALIDATION, make, make_model, order

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
        rows = order(epoch + 1)[within * SIZE :][: (until - first) * SIZE]
        progress = trainer.train(rows, LRS[first:until], progress, first)
        if until % STEPS == 0:
            trainer.validate()
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


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
@pytest.mark.parametrize("stop", [3, 6, 8])
def test_each_kind_of_sgd_resumes(options, stop):
    def make():
        return Trainer(make_model(), options, TRAINING, VALIDATION, SIZE, 3)

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
    assert names | {f"optimizer.{number}.momentum_buffer" for number in range(len(list(trainer.model.parameters())))} == set(trainer.state())
    assert "buffers.2.calls" in names  # a buffer that isn't persistent
    assert {"model.1.running_mean", "model.1.num_batches_tracked"} <= names


def test_a_part_frozen_in_evaluation_mode_stays_so_through_a_validation():
    model = make_model()
    before = [part.training for part in model.modules()]
    assert False in before
    predict(model, VALIDATION.inputs)
    assert [part.training for part in model.modules()] == before


def test_tied_weights_resume():
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
        model[2].weight = model[0].weight
        return Trainer(model, {"momentum": 0.9}, TRAINING, VALIDATION, SIZE, 3)

    whole, first, second = make(), make(), make()
    run(whole, 0, 8)
    progress = run(first, 0, 4)
    second.load(load(to_bytes(first.state())))
    run(second, 4, 8, progress)
    assert second.model[0].weight is second.model[2].weight
    assert to_bytes(second.state()) == to_bytes(whole.state())


def test_the_same_tensors_give_the_same_bytes():
    tensors = {f"part.{number}": torch.full((2,), float(number)) for number in range(6)}
    found = {files.sha256(to_bytes(dict(some))) for some in itertools.islice(itertools.permutations(tensors.items()), 100)}
    assert len(found) == 1
    transposed = {"a": torch.arange(6.0).reshape(2, 3).T.contiguous()}
    assert to_bytes({"a": torch.arange(6.0).reshape(2, 3).T}) == to_bytes(transposed)


assert -(-ROWS // SIZE) == STEPS
