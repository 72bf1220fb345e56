"""One digest for any number of processes: real ones, over torch.distributed."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import PROJECT
from tests.unit.training.sharded_cases import CASES

COUNTS = 1, 2, 3, 4, 8


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    """The digests of all cases, by the number of processes."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.unit.training.sharded_cases"),
            *(str(tmp_path_factory.mktemp("stores")), *map(str, COUNTS)),
        ],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {int(processes): found for processes, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("processes", COUNTS[1:])
def test_one_digest_for_any_number_of_processes(digests, processes):
    assert digests[processes] == digests[1]


def test_what_goes_wrong_is_told(digests):
    alone = digests[1]
    assert alone.keys() == CASES.keys()
    assert "at step 1 of the epoch, on shard" in alone["a network that fails"]
    assert "ValueError: this row" in alone["a network that fails"]
    assert "became nan at step " in alone["divergence"]
    assert [name for name, came in alone.items() if isinstance(came, str)] == ["a network that fails", "divergence"]
    assert len({str(digest) for digest in alone.values()}) == len(CASES)
