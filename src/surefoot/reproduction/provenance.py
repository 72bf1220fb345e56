"""What a run came from: the Git commit and the uncommitted changes."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.base import paths
from surefoot.reproduction.git import GitError, ask_git, run_git, split_names
from surefoot.reproduction.raw_data import untracked_data

UNTRACKED_BYTES = 1 << 20
# Whatever the user's own settings are: `git apply` must take it.
PLAIN = (
    *(
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--no-renames",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        "--unified=3",
    ),
    *("--submodule=short", "--ignore-submodules=dirty"),
)


@dataclass(frozen=True)
class CodeState:
    """The state of the code: commit, a patch of what differs from it, files left out of that, files of data; or why Git
    can't say.
    """

    commit: str | None
    patch: bytes = b""
    left_out: tuple[str, ...] = ()
    data: tuple[str, ...] = ()  # below the repository's top, as `left_out`
    trouble: str = ""


def code_state(raw: Sequence[Path] = (paths.RAW,)) -> CodeState:
    """The state of the code in the current directory.

    The patch (`git apply` takes it) has every change to tracked files but dvc.lock, and untracked files up to 1 MiB
    each; larger ones are named in `left_out`, as are submodules with changes of their own. The trajectory store is no
    part of it. Nothing in the repository changes, its index included.

    Args:
        raw: where data lie: what Git doesn't have of them is named in `data`, and is no part of the patch.
    """
    try:
        return _code_state(raw)
    except GitError as error:
        return CodeState(None, trouble=str(error))


def _code_state(raw: Sequence[Path]) -> CodeState:
    commit = run_git("rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    top = Path(run_git("rev-parse", "--show-toplevel").decode().strip())
    data = untracked_data(raw, top)
    # dvc.lock is what came of the code, and differs each time.
    lock = os.fsdecode(run_git("rev-parse", "--show-prefix").rstrip(b"\n")) + "dvc.lock"
    untracked = set(
        split_names(run_git("ls-files", "--others", "--exclude-standard", "-z", "--full-name", cwd=top))
    ) - {
        *data,
        lock,
    }
    store = paths.trajectory_store().resolve()  # SUREFOOT_STORE may name a directory that Git doesn't ignore
    if not top.is_relative_to(store):
        untracked = {name for name in untracked if not (top / name).is_relative_to(store)}
    small = sorted(
        name for name in untracked if (top / name).is_file() and (top / name).stat().st_size <= UNTRACKED_BYTES
    )
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of the index, so that adding untracked files to the diff leaves the user's own alone.
        index = Path(scratch) / "index"
        original = top / run_git("rev-parse", "--git-path", "index", cwd=top).decode().strip()
        if original.is_file():
            # With its time: Git looks into files that were changed in the second in which the index was written.
            shutil.copy2(original, index)
        if small:
            run_git(
                "add",
                "--intent-to-add",
                "--pathspec-from-file=-",
                "--pathspec-file-nul",
                index=index,
                cwd=top,
                given="\0".join(small).encode(),
            )
        patch = run_git(
            "diff", *PLAIN, "--binary", "HEAD", "--", ".", f":(top,exclude,literal){lock}", index=index, cwd=top
        )
    return CodeState(commit, patch, tuple(sorted({*untracked, *_changed_submodules(top)} - set(small))), tuple(data))


def _changed_submodules(top: Path) -> list[str]:
    """Submodules with changes that aren't committed in them: no patch of this repository has those."""
    if not (top / ".gitmodules").is_file():
        return []
    # Without optional locks: otherwise it would refresh the index.
    status = (
        ask_git(
            "--no-optional-locks",
            "status",
            "--porcelain=v2",
            "-z",
            "--ignore-submodules=none",
            "--untracked-files=no",
            cwd=top,
        )
        or b""
    )
    fields = [os.fsdecode(line).split(" ", 8) for line in status.split(b"\0") if line.startswith(b"1 ")]
    return [name for _, _, submodule, *_, name in fields if submodule.startswith("S") and submodule[2:] != ".."]
