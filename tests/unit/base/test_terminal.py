"""What reaches the terminal: text, whatever the text is."""

import os
import pty
import re
import subprocess
import sys
import unicodedata

import pytest

from surefoot.base import terminal
from surefoot.base.errors import UserError
from tests.helpers import PROJECT

NASTY = {
    "\x1b[2J\x1b[31mred": r"\x1b[2J\x1b[31mred",
    "\x9b31m and \x90": r"\x9b31m and \x90",  # C1: the same in one character
    "bell\x07, back\x08\x08, \x00\x7f": r"bell\x07, back\x08\x08, \x00\x7f",
    "over\rwritten": r"over\rwritten",
    "two\nerror: lines": r"two\nerror: lines",
    "\x85\u2028\u2029": r"\x85\u2028\u2029",  # what also ends lines
    "\u202egpj.exe\u2066\u200f": r"\u202egpj.exe\u2066\u200f",  # bidi
    "a\u200bb\u00adc\ufeff\u2060": r"a\u200bb\xadc\ufeff\u2060",  # of no width
    "tag\U000e0041": r"tag\U000e0041",
    "filler\u3164\ufe0f": r"filler\u3164\ufe0f",
    "\udcff.csv": r"\udcff.csv",  # a path that is no UTF-8
    "Grüße, 日本, ₂, a b\\n": "Grüße, 日本, ₂, a b\\n",
}


@pytest.mark.parametrize(("given", "shown"), NASTY.items(), ids=ascii)
def test_what_is_not_to_be_seen_is_spelt(given, shown, capsys):
    assert terminal.one_line(given) == shown
    terminal.print_lines(given, f"x {given}", kind="note")
    assert capsys.readouterr().err == f"note: {shown}\nx {shown}\n"
    assert str(UserError(f"{given}: is wrong", "so and so")) == f"{shown}: is wrong\nso and so"


def test_no_character_of_unicode_commands_a_terminal():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = "".join(terminal.one_line(every[start : start + 500]) for start in range(0, len(every), 500))
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert "中" in shown


def test_the_middle_of_a_long_text_is_left_out():
    text = terminal.one_line(f"data.csv: {'x' * 10_000_000}: must be shorter")
    assert len(text) <= terminal.LONGEST
    assert re.fullmatch(r"data\.csv: x+ \.\.\.\(10,000,027 characters\)\.\.\. x+: must be shorter", text), text
    assert len(terminal.one_line("\x1b" * 900)) <= terminal.LONGEST, "spelt, it is longer"
    assert terminal.one_line("abcdefghij" * 3, 12) == "abcdefghi"[:6] + "...hij", "a cell"


def test_a_table_of_any_texts():
    assert terminal.table_lines([["name", "rows"], ["a\nb", 7], ["x" * 100, 1234]], right=[1], widest=8) == [
        "name      rows",
        r"a\nb         7",
        "xxxx...x  1234",
    ]


def test_in_an_encoding_that_lacks_them():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from surefoot.base import terminal; terminal.print_lines('Grüße \\x1b'); terminal.protect(); print('日')",
        ],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "Gr\\xfc\\xdfe \\x1b\n\\u65e5\n"


LIBRARY = """
import logging, sys, warnings
from surefoot.base import errors, terminal
def main():
    evil = "\\x1b[31m\\u202e"
    print("printed", evil); sys.stdout.write(f"written{evil}\\n"); warnings.warn(f"warned {evil}")
    logging.warning("logged %s", evil)
    list(terminal.progress_bar([1], name=f"bar {evil}\\n"))
    assert not sys.stdout.isatty()
    raise {raised}
errors.run_process(main)
"""


@pytest.mark.parametrize(
    ("raised", "code"), [("ValueError(f'raised {evil}')", 1), ("errors.UserError(f'mistaken {evil}')", 2)]
)
def test_what_libraries_print_warn_log_and_raise_too(raised, code):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY.replace("{raised}", raised)],
        env=environment,
        stdout=theirs,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as read:
        said = read.read1(100_000).decode()
    assert done.returncode == code, said
    for word in ("printed", "written", "warned", "logged", "bar", "raised" if code == 1 else "error: mistaken"):
        assert re.search(rf"{word} ?\\x1b\[31m\\u202e", said), (word, said)
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_a_bar_is_drawn_on_a_terminal_alone(capfd, monkeypatch):
    assert list(terminal.progress_bar([1, 2], name="rows")) == [1, 2]
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(terminal.progress_bar([1, 2], name="rows")) == [1, 2]
    assert "rows" in capfd.readouterr().err


def test_an_argument_of_the_command_line():
    command = [sys.executable, "-m", "surefoot", "check", "--no\x1b[31m\nerror: such"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": "src"}, cwd=PROJECT, capture_output=True, check=False, text=True
    )
    assert done.returncode == 2
    assert done.stderr.endswith("surefoot: error: unrecognized arguments: --no\\x1b[31m\\nerror: such\n")
