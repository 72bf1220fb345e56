"""Locks between real processes. Children tell by lines on their standard output how far they are."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from surefoot.base import locks
from surefoot.base.errors import UserError
from surefoot.base.locks import Locks

HOLDS = """
import sys
from pathlib import Path
from surefoot.base.locks import Locks
locks = Locks(Path(sys.argv[1]))
with locks.held(sys.argv[2], lambda pid: print("waits for", pid, flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


class Process:
    def __init__(self, popen):
        self.popen, self.pid = popen, popen.pid

    def line(self):
        return self.popen.stdout.readline().strip()

    def go_on(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()


@contextmanager
def process(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()


def test_the_second_waits_and_is_told_who_holds_the_lock(tmp_path):
    with process(HOLDS, tmp_path / "lock", "key") as one:
        assert one.line() == "holds"
        with process(HOLDS, tmp_path / "lock", "key") as other:
            assert other.line() == f"waits for {one.pid}"
            one.go_on()
            assert one.line() == "released"  # and goes on to live
            assert other.line() == "holds"


def test_a_lock_goes_with_its_process_however_it_ends(tmp_path):
    with process(HOLDS, tmp_path / "lock", "key") as one, process(HOLDS, tmp_path / "lock", "key") as other:
        lines = one.line(), other.line()  # either may be first
        first, second = (one, other) if lines[0] == "holds" else (other, one)
        assert set(lines) == {"holds", f"waits for {first.pid}"}
        os.kill(first.pid, signal.SIGKILL)
        assert second.line() == "holds"


def test_different_keys_do_not_block(tmp_path):
    with process(HOLDS, tmp_path / "lock", "key") as one, process(HOLDS, tmp_path / "lock", "another") as other:
        assert (one.line(), other.line()) == ("holds", "holds")


def test_a_lock_is_released_when_its_block_fails(tmp_path):
    locks = Locks(tmp_path / "lock")
    with pytest.raises(ValueError, match="inside"), locks.held("key"):
        raise ValueError("inside")
    with process(HOLDS, tmp_path / "lock", "key") as other:
        assert other.line() == "holds"


def test_a_place_that_cannot_hold_locks_is_a_mistake_of_the_users(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"file/store/lock can't be written, which has the locks: Not a directory; move it away$"
    ):
        locks.Locks(tmp_path / "file" / "store" / "lock")


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    held = Locks(tmp_path / "lock").held("key")
    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    with pytest.raises(UserError) as caught, held:
        pass
    assert caught.value.args == (
        f"{tmp_path / 'lock'}: this file system has no locks, as one on a network may: No locks available",
        "SUREFOOT_STORE=file:///DIRECTORY shares a directory without them",
    )
