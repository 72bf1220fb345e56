"""The chain of a run whose steps are taken eagerly, recorded, or the one and then the other.

`python -m tests.unit.run.test_way_of_steps STORE` trains one by recorded steps, and is killed in the middle of some.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from surefoot.training import numerics

if __name__ == "__main__":
    numerics.pin("portable", threads=1)

import numpy as np
import pytest
import torch

from surefoot.run.chain import Chain
from surefoot.run.segments import cut_into_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.loop import Trainer
from surefoot.training.recorded import recorded_trainer
from surefoot.training.recorded.program import Program
from surefoot.training.recorded.recorded_trainer import RecordedTrainer
from tests.helpers import PROJECT
from tests.unit.training.recorded_cases import ALL, EAGER, EPOCHS, ROWS

CASE = ALL["adam"]
LIVES = 3  # steps of a program that a killed training takes


def follow(kind, path, case=CASE, epochs=EPOCHS, ways=None):
    """Train a chain, or go on with it; returns what its store knows of each epoch, but for when that was."""
    recorded_trainer.EAGER_FIRST = recorded_trainer.EAGER_FIRST_ALONE = 1
    steps = -(-ROWS // case.trainer().rows_per_step)
    chain = Chain(
        cut_into_segments({"test": 1}, lambda _: np.full(steps, 0.05), 0),
        epochs,
        TrajectoryStore(Path(path)),
        lambda: case.trainer(kind),
        lambda epoch: torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch)),
        note_way=lambda way: ways.append(way) if ways is not None else None,
    )
    observed = {"seconds", "peak_memory", "ended"}
    with chain:
        records = [reached.record for reached in chain.follow()]
    return [record.model_dump(exclude=observed) for record in records]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST", 1)
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST_ALONE", 1)


@pytest.mark.parametrize("name", ["adam", "ema, BatchNorm, all"])
def test_keys_and_states_are_the_same_whichever_way_steps_are_taken(name, tmp_path):
    case, ways = ALL[name], []
    eager = follow(Trainer, tmp_path / "eager", case)
    assert follow(RecordedTrainer, tmp_path / "recorded", case, ways=ways) == eager
    assert ways == ["recorded"]
    for epochs, kind in ((2, Trainer), (6, RecordedTrainer), (EPOCHS, Trainer)):
        mixed = follow(kind, tmp_path / "mixed", case, epochs)
    assert mixed == eager


def test_it_is_said_once_why_steps_are_eager(tmp_path):
    ways = []
    follow(RecordedTrainer, tmp_path, EAGER["branch"][0], ways=ways)
    (way,) = ways
    assert way.startswith("eager: tests.unit.training.recorded_cases, line ")


def test_a_training_that_is_killed_in_the_middle_of_recorded_steps_ends_in_the_same_bits(tmp_path):
    whole = follow(Trainer, tmp_path / "whole")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])}
    command = [sys.executable, "-m", "tests.unit.run.test_way_of_steps", str(tmp_path / "killed")]
    killed = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = len(list((tmp_path / "killed").rglob("*.json")))
    assert 0 < done < len(whole)
    assert follow(RecordedTrainer, tmp_path / "killed") == whole


def main(path):
    """Train, and die in the middle of some steps of a program."""
    run, taken = Program.run, [0]

    def dying(self, inputs, targets, rows, numbers, seeds):
        taken[0] += len(seeds)
        if taken[0] > LIVES and len(seeds) > 1:
            part = slice(len(seeds) // 2)
            run(self, inputs, targets, rows, numbers[part], seeds[part])
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, inputs, targets, rows, numbers, seeds)

    Program.run = dying
    follow(RecordedTrainer, path)


if __name__ == "__main__":
    main(sys.argv[1])
