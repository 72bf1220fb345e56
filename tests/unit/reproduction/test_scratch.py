"""The scratch directory and its processes, however the process that made them ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surefoot.reproduction.scratch import Scratch
from tests.helpers import PROJECT

# Starts a process that starts another one, says where, and waits.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup would hand down that it is ignored
from pathlib import Path
from surefoot.base import errors
from surefoot.reproduction.scratch import Scratch

def main():
    with Scratch() as scratch:
        print(scratch.path, flush=True)
        child = "child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); time.sleep(600)"
        tree = [sys.executable, "-c", f"import subprocess, sys, time; {child}"]
        scratch.finish([scratch.start(tree, scratch.path, {"PATH": "/usr/bin:/bin"})])

errors.run_process(main)
"""


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, -1), (signal.SIGKILL, -9)]
)
def test_nothing_is_left_when_it_is_stopped(number, code, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        directory, grandchild = Path(process.stdout.readline().strip()), int(process.stdout.readline())
        assert directory.is_dir()
        assert not gone(grandchild)
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    until = time.monotonic() + 10
    while not gone(grandchild) or directory.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_and_places():
    with Scratch() as scratch:
        shell = ["/bin/sh", "-c"]
        assert scratch.run([*shell, "exit 3"], scratch.path, {}) == 3
        assert scratch.run([*shell, "echo said; echo said >&2"], scratch.path, {}, quiet=True) == 0
        assert (
            scratch.run([*shell, 'test "$TMPDIR" = "$0/tmp" -a -d "$TMPDIR"', str(scratch.path)], scratch.path, {}) == 0
        )
        assert scratch.finish([scratch.start([*shell, f"exit {code}"], scratch.path, {}) for code in (0, 4, 0)]) == 4
    assert not scratch.path.exists()


def test_it_works_on_when_its_guard_is_killed():
    with Scratch() as scratch:
        scratch._guard.kill()
        scratch._guard.wait()
        assert scratch.run(["/bin/sh", "-c", "exit 0"], scratch.path, {}) == 0
    assert not scratch.path.exists()


def test_what_its_processes_print_commands_no_terminal(capfd):
    with Scratch() as scratch:
        assert (
            scratch.run(
                ["/bin/sh", "-c", r"printf '\033[31mone\nt\342\200\256wo'; printf 'bad \377\n' >&2; exit 1"],
                scratch.path,
                {},
            )
            == 1
        )
    out, err = capfd.readouterr()
    assert (out, err) == ("\\x1b[31mone\nt\\u202ewo\n", "bad \\xff\n")
