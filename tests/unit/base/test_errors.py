import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
from ruamel.yaml import YAML

from surefoot import cli
from surefoot.params.dotted_keys import flatten
from tests.helpers import PROJECT, Done

PREAMBLE = "import signal, sys, time\nfrom surefoot.base.errors import Stopped, UserError, run_process\n"


@contextmanager
def process(main):
    """A process that runs the function `main` by `errors.run_process`."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREAMBLE}{main}\nrun_process(main)\nprint('after')"],
        env={**os.environ, "PYTHONPATH": "src"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        yield running
        running.kill()


def end(main):
    with process(main) as running:
        out, err = running.communicate()
        return running.returncode, out, err


def test_a_good_end():
    assert end("def main(): print('done')") == (0, "done\nafter\n", "")


def test_a_mistake_of_the_users():
    assert end("def main(): print('begun'); raise UserError('what', 'where')") == (2, "begun\n", "error: what\nwhere\n")


def at_a_terminal(code, **environment):
    """What comes to a terminal from Python code."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")} | {
        "PYTHONPATH": "src",
        **environment,
    }
    subprocess.run(
        [sys.executable, "-c", f"from surefoot.base import terminal\n{code}"],
        env=environment,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        return terminal.read1().decode().replace("\r\n", "\n")


def test_errors_and_warnings_are_seen_at_a_terminal():
    code = "terminal.print_error('one'); terminal.warn('two')"
    assert at_a_terminal(code, TERM="xterm") == "\033[1;31merror:\033[0m one\n\033[1;33mwarning:\033[0m two\n"
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert at_a_terminal(code, **plain) == "error: one\nwarning: two\n"


def test_a_fault_of_ours_keeps_its_traceback():
    code, _, err = end("def main(): raise ValueError('a bug')")
    assert code == 1
    assert err.startswith("Traceback")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal(number, code):
    main = """
def main():
    try:
        print('ready', flush=True)
        time.sleep(60)
    except Exception:
        print('swallowed')
    finally:
        print('cleaned up')
"""
    with process(main) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        out, err = running.communicate()
        assert (running.returncode, out, err) == (code, "cleaned up\n", f"stopped by {number.name}\n")


def test_a_second_signal_does_not_interrupt_the_clean_up():
    main = """
def main():
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        print('cleaning', flush=True)
        sys.stdin.readline()
        print('cleaned up')
"""
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREAMBLE}{main}\nrun_process(main)"],
        env={**os.environ, "PYTHONPATH": "src"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.readline() == "cleaning\n"
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate("go on\n")
        assert (running.returncode, out, err) == (143, "cleaned up\n", "stopped by SIGTERM\n")


def test_a_reader_that_goes_away_is_no_fault():
    main = """
def main():
    print('first', flush=True)
    while True:
        print('more', flush=True)
"""
    with process(main) as running:
        assert running.stdout.readline() == "first\n"
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 128 + signal.SIGPIPE


def test_closed_standard_streams_are_no_fault_and_no_file_takes_their_place():
    main = "def main():\n    print('nobody hears')\n    sys.exit(0 if open('/dev/null').fileno() > 2 else 5)"
    for streams in ("<&- >&- 2>&-", ">&-"):
        command = f'exec "$0" -c "$1" {streams}'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, f"{PREAMBLE}{main}\nrun_process(main)"],
            env={**os.environ, "PYTHONPATH": "src"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), streams


def test_a_reader_that_goes_away_before_what_is_held_back_is_written():
    main = "def main():\n    print('first', flush=True)\n    sys.stdin.readline()\n    print('held back')"
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREAMBLE}{main}\nrun_process(main)"],
        env={**os.environ, "PYTHONPATH": "src"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "first\n"
        running.stdout.close()
        running.stdin.write("go on\n")
        running.stdin.close()
        assert running.stderr.read() == ""
        assert running.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    "wide", ["x" * 100_000, "networks.mlp:" + "x" * 100_000, "sklearn:" + "é" * 100_000, "\\e\\n" * 30_000]
)
def test_a_text_of_any_length_is_told_in_a_line(here, monkeypatch, capfd, wide):
    """Each key that takes or doesn't take a text is given one; where `check` takes it, so may a stage, or refuses it in
    a line.
    """
    here.csv()
    keys = flatten(YAML(typ="safe").load((PROJECT / "params.yaml").read_text()))
    monkeypatch.setattr(sys, "argv", ["surefoot", "check"])
    for key in keys:
        *above, name = key.split(".")
        start = {
            "prepare": {"source": "raw.csv", "target": "kind"},
            "train": {"model": {"factory": "networks.mlp:mlp"}, "epochs": 1, "lr": 0.1},
        }
        section = start
        for part in above:
            section = section.setdefault(part, {})
        section[name] = wide
        (here / "params.yaml").write_text(json.dumps(start))
        with suppress(SystemExit):
            cli.main()
        done = here.stage("prepare") if above[:1] == ["prepare"] else Done(0, *capfd.readouterr())
        assert done.code in (0, 2), (key, done)
        assert "Traceback" not in done.err, key
        assert all(len(line) <= 1010 for line in (done.out + done.err).splitlines()), key
        assert len(done.err.splitlines()) <= 2, (key, done.err)
