"""A commit with uncommitted changes, checked out elsewhere, without a trace in the repository that it comes from.

Not a Git worktree, which would leave an entry in the repository if the process is killed: a repository of its own that
borrows the objects of the other.
"""

import os
import shutil
import subprocess
from pathlib import Path

from surefoot.base import paths
from surefoot.base.errors import CannotSay
from surefoot.reproduction import git

# No hook of the user's, no daemon that watches the directory, and all files.
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.sparseCheckout=false",
    "core.quotepath=off",
    "advice.detachedHead=false",
)
GIT = ("git", *(part for setting in SETTINGS for part in ("-c", setting)))
SUBMODULE = "160000"


def place_in_repository(workspace: Path) -> tuple[Path, str]:
    """The top of the Git repository that the project is in, and where the project is below it: `''`, or as
    `ml/digits/`.

    Raises:
        CannotSay: it isn't in one.
    """
    found = _git(["rev-parse", "--show-cdup", "--show-prefix"], workspace)
    if found is None:
        raise CannotSay(f"Git is out of reach here, so the run's code can't be had: {git.out_of_reach()}")
    up, _, below = found.partition("\n")
    return workspace / up, below


def in_history(workspace: Path, commit: str) -> bool:
    """Whether a branch, a tag, a remote's branch or what else has a name in the repository holds a commit.

    Raises:
        CannotSay: it isn't in the repository at all.
    """
    _must_have(workspace, commit)
    return _git(["rev-list", "--max-count=1", commit, "--not", "--all", "HEAD"], workspace) == ""


def command_module(place: Path, name: str) -> str:
    """The module of a command, at the commit that is checked out there: an older Surefoot, in a clone, has it at its
    top.
    """
    source = place / "src/surefoot"
    return f"surefoot.{name}" if source.is_dir() and not (source / "commands").is_dir() else f"surefoot.commands.{name}"


def dvc_root_in(place: Path, repository: Path) -> Path:
    """DVC's root in a checkout, as the project at `place` in it has it."""
    found = paths.nearest_dvc(place)
    return found if found.is_relative_to(repository) else place


def patched(workspace: Path, patch: bytes) -> list[str]:
    """The files that a patch changes, below the repository's top."""
    done = subprocess.run(
        [*GIT, "apply", "--numstat", "-z"],
        cwd=place_in_repository(workspace)[0],  # below it, git leaves out what lies elsewhere
        env=plain_environment(),
        input=patch,
        capture_output=True,
        check=False,
    )
    return [os.fsdecode(line.split(b"\t", 2)[2]) for line in done.stdout.split(b"\0") if line.count(b"\t") == 2]


def check_out(source: Path, target: Path, commit: str, patch: bytes = b"") -> None:
    """Bring the code of a commit of the repository at `source`, changed by a patch, to the new directory `target`.

    Submodules come along, as far as they are there at `source`.

    Raises:
        CannotSay: the commit isn't there, or Git can't bring it.
    """
    objects = Path(_git(["rev-parse", "--path-format=absolute", "--git-path", "objects"], source) or "")
    config = _git(["rev-parse", "--path-format=absolute", "--git-path", "config"], source)
    kind = _git(["rev-parse", "--show-object-format"], source)
    _must([*GIT, "init", "--quiet", "--template=", f"--object-format={kind}", str(target)])
    (target / ".git/objects/info").mkdir(parents=True, exist_ok=True)
    (target / ".git/objects/info/alternates").write_text(f"{objects}\n")
    if objects.with_name("shallow").is_file():
        shutil.copy(objects.with_name("shallow"), target / ".git")
    # Line ends, filters and the like are to be as they are there.
    _must([*GIT, "-C", str(target), "config", "include.path", str(config)])
    # After those, or they would count; a submodule's say where its own files are, which DVC would take for these.
    worktree = _git(["config", "--file", str(config), "core.worktree"], source) is not None
    with (target / ".git/config").open("a", encoding="utf-8") as settings:
        settings.write("[core]\n\tfsmonitor = false\n" + "\tworktree = ..\n" * worktree)
    _must_have(target, commit)
    _must([*GIT, "-C", str(target), "checkout", "--quiet", "--detach", commit])
    if patch:
        _must([*GIT, "-C", str(target), "apply", "--index", "--binary", "--whitespace=nowarn"], given=patch)
    for line in (_git(["ls-files", "--stage", "-z"], target) or "").split("\0"):
        about, _, name = line.partition("\t")
        if about.startswith(SUBMODULE) and (source / name / ".git").exists():
            shutil.rmtree(target / name, ignore_errors=True)
            check_out(source / name, target / name, about.split()[1])


def _must_have(repository: Path, commit: str) -> None:
    if _git(["cat-file", "-e", f"{commit}^{{commit}}"], repository) is None:
        raise CannotSay(
            f"its commit {commit} isn't in this repository; `git fetch` it, if there is another that has it"
        )


def plain_environment() -> dict[str, str]:
    """The environment variables without those that name a repository: a Git hook that calls us has them set, to the
    user's.
    """
    local = (_git(["rev-parse", "--local-env-vars"], Path.cwd(), os.environ) or "").split()
    return {name: value for name, value in os.environ.items() if name not in local}


def _git(arguments: list[str], cwd: Path, environment: "os._Environ[str] | None" = None) -> str | None:
    """What Git prints, or None if it fails."""
    try:
        done = subprocess.run(
            [*GIT, *arguments], cwd=cwd, env=environment or plain_environment(), capture_output=True, check=False
        )
    except OSError as error:
        raise CannotSay(f"git can't be run: {error.strerror}") from None
    return None if done.returncode else os.fsdecode(done.stdout).rstrip("\n")


def _must(command: list[str], given: bytes | None = None) -> None:
    done = subprocess.run(command, env=plain_environment(), input=given, capture_output=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise CannotSay(f"`git {' '.join(command[len(GIT) :])}` fails: {said}")
