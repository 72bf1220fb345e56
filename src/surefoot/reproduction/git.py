"""What Git says of the repository that the current directory is in."""

import os
import subprocess
from pathlib import Path


class GitError(Exception):
    """Git isn't there, or refuses, and why."""


def out_of_reach() -> str:
    """Why Git can't say at which commit the current directory is; `''` where it can."""
    try:
        run_git("rev-parse", "--verify", "HEAD^{commit}")
        run_git("rev-parse", "--show-toplevel")
    except GitError as error:
        return str(error)
    return ""


def top_of_repository() -> Path:
    """The top of the Git repository that the current directory is in; the current directory where there is none."""
    return Path((ask_git("rev-parse", "--show-toplevel") or b".").decode().strip())


def committed_file(path: str) -> bytes | None:
    """A file of the current directory as it is in the commit that is checked out; None where it isn't."""
    return ask_git("show", f"HEAD:./{path}")


def ask_git(*arguments: str, cwd: Path | None = None) -> bytes | None:
    """What Git prints, or None if it can't say."""
    try:
        return run_git(*arguments, cwd=cwd)
    except GitError:
        return None


def run_git(*arguments: str, index: Path | None = None, cwd: Path | None = None, given: bytes = b"") -> bytes:
    """What Git prints.

    Args:
        arguments: of `git`.
        index: to use in place of the repository's own.
        cwd: where to run it.
        given: its standard input.

    Raises:
        GitError: Git fails, or isn't there.
    """
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {}) | {"LC_ALL": "C"}
    command = ["git", "-c", "core.quotepath=off", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, input=given, capture_output=True, check=False)
    except OSError as error:
        raise GitError(
            "git isn't installed" if isinstance(error, FileNotFoundError) else f"git can't be run: {error.strerror}"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("fatal: ")
        unborn = "Needed a single revision" in said
        raise GitError(
            "HEAD names no commit: none was made yet, or the repository is damaged"
            if unborn
            else said[:500] or f"git {arguments[0]} fails"
        )
    return done.stdout


def split_names(listed: bytes) -> list[str]:
    """The names in what Git lists with `-z`."""
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]
