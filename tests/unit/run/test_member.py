"""A process among those that train, by itself."""

import os
import subprocess
import sys

import pytest

from surefoot.run.processes.member import Member
from tests.helpers import PROJECT

MEMBERS = """
import os
import torch.distributed as dist
from surefoot.run.processes import member

member.SECONDS_TO_LOOK = 0
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
os.environ |= {"MASTER_PORT": str(store.port), member.RANK: str(os.getppid())}
first = member.Member()
dist.init_process_group = lambda *_, **__: None
others = [member.Member() for _ in range(20)]
"""


def test_a_process_that_has_done_its_part_ends_without_an_abort():
    """What it says from a thread, in C++, is over before Python is taken down."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", MEMBERS], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


class Lost(Exception):
    """The process would end."""


class Store:
    """What is waited for comes after some errors; by each the first process has shown so many signs of life."""

    def __init__(self, *signs, error="wait timeout after 300000ms"):
        self.signs, self.error = list(signs), error

    def wait(self, keys, time_out):
        if self.signs:
            raise RuntimeError(self.error)

    def add(self, key, amount):
        return self.signs.pop(0)

    def get(self, key):
        return b"it"


@pytest.fixture
def waiting(monkeypatch):
    """A process that has waited for something in a store."""

    def lose(_, error):
        raise Lost from error

    def wait(store):
        member = object.__new__(Member)
        member._seconds, member.store = 300, store
        return member.wait_for("told 0")

    monkeypatch.setattr(Member, "_lose", lose)
    return wait


def test_a_first_process_may_take_its_time_as_long_as_it_lives(waiting):
    assert waiting(Store(0, 600, 1200, 1201)) == b"it"


@pytest.mark.parametrize("signs", [(0, 0, 1), (0, 600, 600, 601)])
def test_a_first_process_that_shows_no_sign_of_life_is_given_up(waiting, signs):
    store = Store(*signs)
    with pytest.raises(Lost):
        waiting(store)
    assert len(store.signs) == 1


def test_a_lost_connection_is_not_waited_for(waiting):
    store = Store(0, 1, error="Connection reset by peer")
    with pytest.raises(Lost):
        waiting(store)
    assert store.signs == [1]
