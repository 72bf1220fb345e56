"""`surefoot upgrade`: a repository's dvc.yaml and params.yaml brought to the installed version."""

import difflib
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path

from surefoot.base import installation, paths, reading, terminal, writing
from surefoot.base.errors import UserError
from surefoot.commands.init.pipeline import pipeline_text
from surefoot.params.changes import upgraded_params
from surefoot.params.dvc_yaml import PIPELINE
from surefoot.params.params_yaml import load_params, reading_yaml
from surefoot.params.upgraded_pipeline import upgraded_pipeline


def main(yes: bool) -> None:
    """Show what is to be changed, ask, and write it.

    Args:
        yes: don't ask.

    Raises:
        UserError: this is a clone; a file is of a newer version, or can't be edited; nobody can be asked.
    """
    installed = installation.installed_version()
    if Path("src/surefoot").is_dir() or installed is None:
        raise UserError("this is a clone, which has Surefoot's code in src/surefoot: `git pull` brings it up to date")
    template = pipeline_text(paths.dvc_root())
    changes = _changes(PIPELINE, lambda text: upgraded_pipeline(text, template)) if PIPELINE.is_file() else {}
    changes |= _changes(paths.PARAMS, lambda text: upgraded_params(text, installed))
    if not changes:
        terminal.print_lines(f"{paths.PARAMS} and {PIPELINE} are of Surefoot {installed} already")
        return
    for path, (before, after) in changes.items():
        terminal.print_lines(*_diff(path, before, after), longest=10_000)
    if not yes and not _agreed():
        terminal.print_lines("nothing was written")
        return
    _write_all(changes)
    terminal.print_lines(
        f"{' and '.join(map(str, changes))} brought to Surefoot {installed}; `dvc repro` runs the stages again, and"
        " restores each epoch whose arithmetic is the same"
    )
    try:
        load_params(paths.PARAMS)
    except UserError as wrong:
        terminal.warn(*wrong.args)


def _changes(path: Path, change: Callable[[str], str]) -> dict[Path, tuple[str, str]]:
    """The text of a file before and after, where they differ."""
    with reading_yaml(path):
        before = reading.read_file(path).decode("utf-8-sig")
        after = change(before)
    return {} if before == after else {path: (before, after)}


def _diff(path: Path, before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), f"{path}", f"{path} (new)", lineterm=""))


def _agreed() -> bool:
    """Whether the user says yes.

    Raises:
        UserError: there is no terminal to ask at.
    """
    if not (sys.stdin.isatty() and terminal.is_terminal(sys.stdout)):
        raise UserError("nothing was written: `surefoot upgrade --yes` writes what is shown above")
    terminal.print_lines("Write this? yes or no:")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write_all(changes: dict[Path, tuple[str, str]]) -> None:
    """Write all files, or none.

    Raises:
        UserError: one can't be written; one was changed since it was shown.
    """
    old = {path.resolve(): path.read_bytes() for path in changes}
    new: dict[Path, bytes] = {}
    for path, (before, after) in changes.items():
        mark = BOM_UTF8 if old[path.resolve()].startswith(BOM_UTF8) else b""
        if old[path.resolve()] != mark + before.encode():
            raise UserError(f"nothing was written: {path} was changed since; `surefoot upgrade` shows it anew")
        new[path.resolve()] = mark + after.encode()
    try:
        for path, data in new.items():
            writing.write_bytes(path, data)
    except BaseException:
        for path, data in old.items():
            if path.read_bytes() != data:
                writing.write_bytes(path, data)
        raise
