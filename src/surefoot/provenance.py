"""What a run came from: the Git commit, uncommitted changes, and the packages installed."""

import configparser
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

UNTRACKED_BYTES = 1 << 20
# Whatever the user's own settings are: `git apply` must take it.
PLAIN = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3"),
    *("--submodule=short", "--ignore-submodules=dirty"),
)


@dataclass(frozen=True)
class Source:
    """The state of the code: commit (None outside of Git), a patch of what differs from it, files left out of that."""

    commit: str | None
    patch: bytes
    left_out: list[str]


def source() -> Source:
    """The state of the code in the current directory.

    The patch (`git apply` takes it) has every change to tracked files, and untracked files up to 1 MiB each; larger
    ones are named in `left_out`, as are submodules with changes of their own. Nothing in the repository changes, its index included.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return Source(None, b"", [])
    top = Path((_git("rev-parse", "--show-toplevel") or b".").decode().strip())
    untracked = [os.fsdecode(name) for name in (_git("ls-files", "--others", "--exclude-standard", "-z", "--full-name", cwd=top) or b"").split(b"\0") if name]
    small = [name for name in untracked if (top / name).is_file() and (top / name).stat().st_size <= UNTRACKED_BYTES]
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of the index, so that adding untracked files to the diff leaves the user's own alone.
        index = Path(scratch) / "index"
        original = top / (_git("rev-parse", "--git-path", "index", cwd=top) or b"").decode().strip()
        if original.is_file():
            # With its time: Git looks into files that were changed in the second in which the index was written.
            shutil.copy2(original, index)
        if small:
            _git("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul", index=index, cwd=top, given="\0".join(small).encode())
        patch = _git("diff", *PLAIN, "--binary", "HEAD", index=index, cwd=top) or b""
    return Source(commit.decode().strip(), patch, sorted({*untracked, *_changed_submodules(top)} - set(small)))


def committed(path: str) -> bytes | None:
    """A file of the current directory as it is in the commit that is checked out; None where it isn't."""
    return _git("show", f"HEAD:./{path}")


def _changed_submodules(top: Path) -> list[str]:
    """Submodules with changes that aren't committed in them: no patch of this repository has those."""
    if not (top / ".gitmodules").is_file():
        return []
    # Without optional locks: otherwise it would refresh the index.
    status = _git("--no-optional-locks", "status", "--porcelain=v2", "-z", "--ignore-submodules=none", "--untracked-files=no", cwd=top) or b""
    fields = [os.fsdecode(line).split(" ", 8) for line in status.split(b"\0") if line.startswith(b"1 ")]
    return [name for _, _, submodule, *_, name in fields if submodule.startswith("S") and submodule[2:] != ".."]


def packages() -> str:
    """Every installed distribution as `name==version`, a line each, sorted."""
    return "".join(sorted({f"{found.name}=={found.version}\n" for found in distributions() if found.name}))


def machine() -> dict[str, str]:
    """What packages don't say of the environment: Python, the system, the processor. No names of the machine or its user."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": _processor(),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def dvc_md5(stage: str, path: str) -> str | None:
    """The MD5 of a dependency of a stage, as DVC noted it in dvc.lock when the stage ran; None if it didn't."""
    try:
        lock = YAML(typ="safe").load(Path("dvc.lock"))
        return next((str(dep["md5"]) for dep in lock["stages"][stage]["deps"] if dep["path"] == path), None)
    except (OSError, YAMLError, KeyError, TypeError):
        return None


def committed_output(stage: str, path: str, now: bytes) -> tuple[str, bytes] | None:
    """An output of a stage as it was at the last commit: the commit, shortened, and the bytes, from DVC's cache.

    Args:
        stage: that made it.
        path: of the output.
        now: what it is, which may not have come to the cache yet.

    Returns None where that can't be had: outside of Git, before the first commit of dvc.lock, or where the cache lacks it.
    """
    commit, lock = _git("rev-parse", "--short", "HEAD"), _git("show", "HEAD:./dvc.lock")
    if commit is None or lock is None:
        return None
    try:
        md5 = next(str(out["md5"]) for out in YAML(typ="safe").load(lock)["stages"][stage]["outs"] if out["path"] == path)
        if not re.fullmatch("[0-9a-f]{32}", md5):
            return None
        found = now if hashlib.md5(now, usedforsecurity=False).hexdigest() == md5 else (cache() / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()
    except (OSError, YAMLError, configparser.Error, UnicodeDecodeError, KeyError, TypeError, StopIteration):
        return None
    return commit.decode().strip(), found


def cache() -> Path:
    """DVC's cache, as its settings here name it. Importing dvc to ask would take a second."""
    place = Path(".dvc/cache")
    for file in (Path(".dvc/config"), Path(".dvc/config.local")):
        settings = configparser.RawConfigParser(strict=False)
        settings.read(file, encoding="utf-8")
        if settings.has_option("cache", "dir"):
            place = file.parent / settings.get("cache", "dir").strip("\"'")
    return place


def _git(*arguments: str, index: Path | None = None, cwd: Path | None = None, given: bytes = b"") -> bytes | None:
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    command = ["git", "-c", "core.quotepath=off", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, input=given, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
