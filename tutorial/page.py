"""docs/tutorial.md against what its commands do: each is run, in the page's order, in a copy of the repository, and its
output and figures are compared.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from surefoot.base import writing

PAGE = Path("docs/tutorial.md")
FIGURES = Path("docs/images/tutorial")
MADE = Path("reports/tutorial")
MEASURED = {"batch-cost.png"}  # of times, which are others each time
LEFT_OUT = "..."  # a line of the page that stands for any lines
# What is another one each time: times and rates, runs' ids, how far a killed training came.
VARYING = re.compile(
    r"(?<![\w.])[\d.,]+ (?:s|ms|rows/s|minutes)\b|\b[0-9a-f]{32}\b|(?<=epochs 1-)\d+ restored, training"
    r" \d+(?=-)|(?<=rev )[0-9a-f]{7}\b"
)


@dataclass(frozen=True)
class Command:
    """A command of the page, and the output that it has there."""

    text: str
    output: tuple[str, ...]
    first: int  # line of the page where its output begins, from 0
    runs: bool  # False: under a comment `<!-- not run: why -->`


def commands(page: str) -> Iterator[Command]:
    """Those in blocks of `console`: after `$ `, and a backslash at the end goes on in the next line; what follows is
    the output.
    """
    lines, number, runs = page.splitlines(), 0, True
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("<!-- not run:"):
            runs = False
        if line != "```console":
            continue
        while lines[number] != "```":
            text = lines[number].removeprefix("$ ")
            number += 1
            while text.endswith("\\"):
                text = text[:-1] + lines[number].strip()
                number += 1
            first = number
            while lines[number] != "```" and not lines[number].startswith("$ "):
                number += 1
            yield Command(text, tuple(lines[first:number]), first, runs)
        runs = True


def masked(line: str) -> str:
    """A line without what is another one each time; runs of spaces count as one."""
    return " ".join(VARYING.sub("#", line).split())


def differences(expected: tuple[str, ...], actual: list[str]) -> list[str]:
    """The lines that are expected and don't come, in order; where no line is left out, also those that come and aren't
    expected.
    """
    if LEFT_OUT not in expected:
        ours, theirs = [masked(line) for line in expected], [masked(line) for line in actual]
        return (
            []
            if ours == theirs
            else [f"- {line}" for line in expected if masked(line) not in theirs]
            + [f"+ {line}" for line in actual if masked(line) not in ours]
        )
    rest = iter([masked(line) for line in actual])
    return [f"- {line}" for line in expected if line != LEFT_OUT and masked(line) not in rest]


def updated(expected: tuple[str, ...], actual: list[str]) -> list[str]:
    """The output as the page should have it: all of it, or, where lines are left out, those that are alike but for
    numbers.
    """
    if LEFT_OUT not in expected:
        return actual
    found = []
    for line in expected:
        alike = [other for other in actual if _shape(other) == _shape(line)]
        # Of several, as are the lines of epochs, the one that begins as this one does.
        found.append(
            max(alike, key=lambda other: _alike(masked(other), masked(line))) if alike and line != LEFT_OUT else line
        )
    return found


def check(update: bool = False) -> int:
    """Run every command of the page; print what differs. With `update` the page and the figures are brought up to date.

    Returns:
        The exit code: 0 if nothing differs, or was brought up to date; else 1.
    """
    began, page, wrong = time.monotonic(), PAGE.read_text(), 0
    lines = page.splitlines()
    with tempfile.TemporaryDirectory(prefix="surefoot-tutorial-") as name:
        there = Path(name) / "surefoot"
        copy(there)
        shift = 0
        for command in commands(page):
            if not command.runs:
                print(f"left out    {command.text}", flush=True)
                continue
            started = time.monotonic()
            actual = run(command.text, there)
            differ = differences(command.output, actual)
            print(
                f"{'differs' if differ else 'ok':7} {time.monotonic() - started:3.0f} s  {command.text}",
                *differ,
                sep="\n    ",
                flush=True,
            )
            wrong += bool(differ)
            if update and differ:
                new = updated(command.output, actual)
                first = command.first + shift
                lines[first : first + len(command.output)] = new
                shift += len(new) - len(command.output)
        wrong += _compare_figures(there / MADE, update)
    if update:
        writing.write_bytes(PAGE, ("\n".join(lines) + "\n").encode())
    told = f"{wrong} differ{', and were brought up to date' if update else ''}" if wrong else "nothing differs"
    print(f"{time.monotonic() - began:.0f} s; {told}")
    return 1 if wrong and not update else 0


def copy(there: Path) -> None:
    """A clone of the repository as it lies here, so that workspace, MLflow's runs and Git's history
    stay as they are.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if Path(name).is_file() and not Path(name).is_symlink():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, there / name)
    if not (there / ".venv").exists():
        (there / ".venv").symlink_to(sys.prefix)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=The tutorial's copy"]):
        subprocess.run(
            ["git", "-c", "user.name=tutorial", "-c", "user.email=tutorial@localhost", *command], cwd=there, check=True
        )


def environment() -> dict[str, str]:
    """In which commands run: what of this one would lead them out of the copy is left out."""
    # Relative, as in dvc.yaml: each copy that is made of the copy runs its own code.
    own = {"PYTHONPATH": "src", "PYTHONWARNINGS": "ignore", "COLUMNS": "150"}
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "SUREFOOT_"))
    } | own


def run(command: str, there: Path) -> list[str]:
    """The lines that a command writes, to either stream."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=there,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    failed = done.returncode and not any(line.startswith("error: ") for line in lines)
    return [*lines, *([f"exit code {done.returncode}"] if failed else [])]


def _compare_figures(made: Path, update: bool) -> int:
    names = {path.name for folder in (made, FIGURES) for path in folder.glob("*.png")}
    wrong = 0
    for name in sorted(names):
        ours, theirs = FIGURES / name, made / name
        same = ours.exists() and theirs.exists() and (name in MEASURED or ours.read_bytes() == theirs.read_bytes())
        print(f"{'ok' if same else 'differs':7} {ours}")
        wrong += not same
        if update and theirs.exists() and not same:
            writing.write_bytes(ours, theirs.read_bytes())
    return wrong


def _alike(one: str, other: str) -> int:
    """How many characters two lines begin with alike."""
    return next(
        (count for count, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _shape(line: str) -> str:
    return re.sub(r"\d[\d.,e+-]*", "#", masked(line))
