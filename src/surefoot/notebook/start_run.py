"""What `surefoot.run` does in the notebook's own process: it starts another one, shows what that says, and takes what
it leaves.

Torch reads how it is to compute when it is imported, which a notebook may have done. So nothing is trained here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import IO, Any

from surefoot.base import installation, paths, terminal
from surefoot.base.errors import UserError
from surefoot.notebook.result import Result
from surefoot.params.given_values import given_values

PROGRAM = "surefoot.notebook"
# What DVC says of each stage's command, and of files that are gone afterwards.
OF_DVC = (
    "> ",
    "Generating lock file",
    "Updating lock file",
    "To track the changes with git",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
)


def run_elsewhere(params: Mapping[str, Any], project: "str | PathLike[str] | None") -> Result:
    """As `surefoot.run`."""
    values, place = given_values(params), _project(project)
    out = Path(tempfile.mkdtemp(prefix="surefoot-result-"))
    try:
        _run_process(place, json.dumps({"values": values, "out": str(out)}))
        return Result(out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _run_process(place: Path, asked: str) -> None:
    """Run the other process in the project, and show what it says.

    Raises:
        UserError: as that says.
    """
    # A group of its own: Ctrl-C is for this process, which passes it on. Its standard input closes when this one ends.
    with subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        cwd=place,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError):  # it has ended, and says why
                process.stdin.write(f"{asked}\n".encode())
                process.stdin.flush()
            mistake = _show(process.stdout)
            code = process.wait()
        except BaseException:  # Ctrl-C
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            _show(process.stdout)  # until it has ended, at the last state
            process.wait()
            raise
    if code:
        raise UserError(*(mistake or [f"the run ended with exit code {code}; what it printed says why"]))


def _project(given: "str | PathLike[str] | None") -> Path:
    """The directory that has params.yaml.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        if not (Path(given) / paths.PARAMS).is_file():
            raise UserError(f"project: {given}: there is no {paths.PARAMS} in it")
        return Path(given).resolve()
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / paths.PARAMS).is_file():
            return place
    raise UserError(
        f"there is no {paths.PARAMS} in {here}, nor in a directory above it; surefoot.run(..., project=DIRECTORY) says"
        " where it is"
    )


def _environment() -> dict[str, str]:
    """That of the other process: it runs the same Surefoot, also one that Python found by `sys.path` alone."""
    if installation.is_installed():
        return dict(os.environ)
    own = str(Path(installation.__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))}


def _show(printed: IO[bytes]) -> list[str]:
    """Print lines as they come, but an error with what follows; that is returned, at most two lines."""
    error: list[str] = []
    blank = False
    for read in printed:
        line = read.decode(errors="backslashreplace").rstrip("\r\n")
        if line.startswith(("error: ", "ERROR: ")):  # a stage's; then DVC's, that it failed
            error = error or [line.partition(": ")[2]]
        elif error:
            error += [line] if line and len(error) < 2 else []
        elif line.startswith(OF_DVC):
            continue
        elif line:
            terminal.print_lines(*([""] if blank else []), line)
        blank = not line
    return error
