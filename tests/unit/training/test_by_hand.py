"""Final states, all of them, against loops written in plain torch: by_hand.py has both."""

import os
import subprocess
import sys
from functools import cache

import pytest
import torch

from surefoot.base import code_digests
from surefoot.base.errors import UserError
from surefoot.run.plan.planning import plan_run
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.recorded import recorded_trainer
from tests.helpers import PROJECT
from tests.unit.training import by_hand
from tests.unit.training.by_hand import OPTIMIZERS, SETTINGS, compare, data, ours, params, with_optimizer


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr(recorded_trainer, "EAGER_FIRST", 1)  # of a few steps most are recorded ones
        # The source doesn't change meanwhile.
        patch.setattr(code_digests, "module_digest", cache(code_digests.module_digest))
        yield


@pytest.mark.parametrize("make", SETTINGS.values(), ids=SETTINGS)
def test_a_training_is_the_loop_written_by_hand_bit_for_bit(make, tmp_path):
    setting = make()
    state, history = compare(setting, tmp_path / "one")
    if setting.train:  # it changes something
        assert ours(by_hand.Setting({}, store={}), tmp_path / "plain")[0] != state
    if setting.patience:
        assert len(history) < setting.epochs


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_the_loop_written_by_hand_bit_for_bit(name, tmp_path):
    compare(with_optimizer(name), tmp_path)


def test_there_is_no_optimizer_that_is_not_tried_here():
    kinds = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert kinds - {"Optimizer"} == {*OPTIMIZERS, "LBFGS"}


def refused(train):
    with pytest.raises(UserError) as caught:
        plan_run(params(train), data())
    return str(caught.value)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"optimizer": {"name": "LBFGS"}},
            "train.optimizer.name: LBFGS evaluates the loss several times a step, which minibatches don't allow",
        ),
        ({"optimizer": {"name": "Muon"}}, "train.optimizer: Muon("),
        (
            {"optimizer": {"name": "Adamw2"}},
            "train.optimizer.name: torch.optim has no optimizer 'Adamw2'; did you mean AdamW?",
        ),
        ({"optimizer": {"name": "Adam"}, "momentum": 0.9}, "train.momentum: Adam takes none; set it to 0.0"),
        (
            {"optimizer": {"name": "Adam", "arguments": {"betas": [2, 3]}}},
            "ValueError: Invalid beta parameter at index 0: 2",
        ),
        (
            {"optimizer": {"name": "Adam", "arguments": {"beta": 3}}},
            "Adam.__init__() got an unexpected keyword argument 'beta'",
        ),
        ({"optimizer": {"arguments": {"lr": 3}}}, "train.optimizer.arguments.lr: train.lr is where this is set"),
        (
            {"optimizer": {"arguments": {"momentum": 0.9}}},
            "train.optimizer.arguments.momentum: train.momentum is where this is set",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(train, message):
    assert message in refused(train)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"optimizer": {"name": "SparseAdam"}},
            "train.optimizer: SparseAdam fails at step 1 of the epoch: RuntimeError: SparseAdam does not support dense",
        ),
        (
            {"optimizer": {"name": "Adam", "arguments": {"capturable": True}}},
            "train.optimizer: Adam fails at step 1 of the epoch: ",
        ),
        (
            {"optimizer": {"name": "Adam"}, "model": {"factory": f"{by_hand.NETWORKS}:bag"}},
            "Adam fails at step 1 of the epoch: RuntimeError: Adam does not supp",
        ),
    ],
)
def test_an_optimizer_that_fails_in_a_step_is_refused(train, message, tmp_path):
    plan = plan_run(params(train), data())
    with (
        plan.chain(TrajectoryStore(tmp_path)) as chain,
        pytest.raises(UserError) as caught,
    ):
        list(chain.follow())
    assert message in str(caught.value)


def test_bfloat16_is_the_loop_written_by_hand_bit_for_bit():
    """In a process of its own: on the CPU it needs numerics: native."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.by_hand", "native"],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if done.stderr.endswith("this processor has no bfloat16\n"):
        pytest.skip(done.stderr)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr
