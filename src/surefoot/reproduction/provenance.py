"""What a run came from: the Git commit, uncommitted changes, and the packages installed."""

import configparser
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from surefoot.base import digests, paths, reading, writing
from surefoot.base.documents import Document
from surefoot.base.yaml12 import UnreadableYaml, from_yaml

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
class Source:
    """The state of the code: commit, a patch of what differs from it, files left out of that, files of data; or why Git
    can't say.
    """

    commit: str | None
    patch: bytes = b""
    left_out: tuple[str, ...] = ()
    data: tuple[str, ...] = ()  # below the repository's top, as `left_out`
    trouble: str = ""


class GitError(Exception):
    """Git isn't there, or refuses, and why."""


def source(raw: Sequence[Path] = (paths.RAW,)) -> Source:
    """The state of the code in the current directory.

    The patch (`git apply` takes it) has every change to tracked files but dvc.lock, and untracked files up to 1 MiB
    each; larger ones are named in `left_out`, as are submodules with changes of their own. Nothing in the repository
    changes, its index included.

    Args:
        raw: where data lie: what Git doesn't have of them is named in `data`, and is no part of the patch.
    """
    try:
        return _source(raw)
    except GitError as error:
        return Source(None, trouble=str(error))


def trouble() -> str:
    """Why Git can't say at which commit the current directory is; `''` where it can."""
    try:
        _must("rev-parse", "--verify", "HEAD^{commit}")
        _must("rev-parse", "--show-toplevel")
    except GitError as error:
        return str(error)
    return ""


def _source(raw: Sequence[Path]) -> Source:
    commit = _must("rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    top = Path(_must("rev-parse", "--show-toplevel").decode().strip())
    data = _data(raw, top)
    lock = (
        os.fsdecode(_must("rev-parse", "--show-prefix").rstrip(b"\n")) + "dvc.lock"
    )  # what came of it, which is other each time
    untracked = set(_names(_must("ls-files", "--others", "--exclude-standard", "-z", "--full-name", cwd=top))) - {
        *data,
        lock,
    }
    small = sorted(
        name for name in untracked if (top / name).is_file() and (top / name).stat().st_size <= UNTRACKED_BYTES
    )
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of the index, so that adding untracked files to the diff leaves the user's own alone.
        index = Path(scratch) / "index"
        original = top / _must("rev-parse", "--git-path", "index", cwd=top).decode().strip()
        if original.is_file():
            # With its time: Git looks into files that were changed in the second in which the index was written.
            shutil.copy2(original, index)
        if small:
            _must(
                "add",
                "--intent-to-add",
                "--pathspec-from-file=-",
                "--pathspec-file-nul",
                index=index,
                cwd=top,
                given="\0".join(small).encode(),
            )
        patch = _must(
            "diff", *PLAIN, "--binary", "HEAD", "--", ".", f":(top,exclude,literal){lock}", index=index, cwd=top
        )
    return Source(commit, patch, tuple(sorted({*untracked, *_changed_submodules(top)} - set(small))), tuple(data))


def raw_places(params: Mapping[str, Any]) -> list[Path]:
    """Where raw data lie, by params of dotted keys: data/raw, and sources elsewhere."""
    named = (
        params.get(f"prepare.{split}{what}") for split in ("", "validation_", "test_") for what in ("source", "labels")
    )
    return [
        paths.RAW,
        *(Path(name) for name in named if isinstance(name, str) and "\0" not in name and Path(name).exists()),
    ]


def _data(raw: Sequence[Path], top: Path) -> list[str]:
    """The files of data that neither Git nor DVC has, ignored ones, too."""
    found, tracked = _listed(raw, top)
    return _without_dvcs(
        found, [Path(name).with_suffix("") for name in (*found, *tracked) if name.endswith(".dvc")], top
    )


def data_lacking(raw: Sequence[Path], repository: Path, commit: str) -> Iterator[list[str]]:
    """The files of data here that a checkout of an earlier commit lacks, and has no `.dvc` file for: all that lie here
    now, then those of each commit since.

    Data are often committed after they were trained on, and more come later.

    Raises:
        GitError: Git refuses.
    """
    here = top()
    lacking = [name for names in _listed(raw, here) for name in names if not (repository / name).exists()]
    now = _without_dvcs(
        lacking,
        [path.relative_to(repository).with_suffix("") for path in repository.rglob("*.dvc") if path.is_file()],
        here,
    )
    yield now
    tried = {tuple(now)}
    for later in _must("rev-list", f"{commit}..HEAD", "--", *map(str, _within(raw, here))).decode().split():
        then = set(_names(_must("ls-tree", "-r", "-z", "--name-only", "--full-tree", later)))
        names = [name for name in now if name in then]
        if tuple(names) not in tried:
            tried.add(tuple(names))
            yield names


def _within(raw: Sequence[Path], top: Path) -> list[Path]:
    return [path for path in raw if path.exists() and path.resolve().is_relative_to(top.resolve())]


def _listed(raw: Sequence[Path], top: Path) -> tuple[list[str], list[str]]:
    """The files at these places that Git doesn't have, and those that it has."""
    there = _within(raw, top)
    if not there:
        return [], []
    places = [name for path in there for name in (str(path), f"{path}.dvc")]
    found, tracked = (
        _names(_must("ls-files", *kind, "-z", "--full-name", "--", *places)) for kind in (["--others"], ["--cached"])
    )
    return found, tracked


def _without_dvcs(names: Sequence[str], by_dvc: Sequence[Path], top: Path) -> list[str]:
    """Those that aren't DVC's: neither its outputs nor the small files that `dvc add` writes."""
    ours = (
        name
        for name in names
        if not name.endswith(".dvc") and Path(name).name != ".gitignore" and (top / name).is_file()
    )
    return sorted(name for name in ours if not any(Path(name).is_relative_to(out) for out in by_dvc))


def top() -> Path:
    """The top of the Git repository that the current directory is in; the current directory where there is none."""
    return Path((_git("rev-parse", "--show-toplevel") or b".").decode().strip())


def data_digest(names: Sequence[str], remember: bool = True) -> str:
    """A digest of files below the repository's top, their names and bytes; what was read once isn't read again while
    its size and time stay.
    """
    if not names:
        return ""
    cache, place = paths.trajectory_store() / "digests.json", top()
    try:
        known = json.loads(reading.read_file(cache))
    except (OSError, ValueError):
        known = {}
    found: dict[str, list[Any]] = {}
    for name in names:
        with suppress(FileNotFoundError):  # it was there when it was listed
            about = (place / name).stat()
            stamp = [about.st_size, about.st_mtime_ns, about.st_ino]
            before = known.get(name) if isinstance(known, dict) else None
            found[name] = (
                before
                if isinstance(before, list) and before[:-1] == stamp
                else [*stamp, digests.sha256_file(place / name)]
            )
    if remember and found != known:
        writing.write_json(cache, found)
    return digests.sha256(digests.canonical_json([[name, found[name][-1]] for name in sorted(found)]))


def keep_patch(patch: bytes) -> str:
    """Keep a patch in the trajectory store, once, however many runs have it; returns its digest."""
    digest = digests.sha256(patch)
    if patch and kept_patch(digest) is None:
        writing.write_bytes(_patch_path(digest), patch)
    return digest


def kept_patch(digest: str) -> bytes | None:
    """The patch of this digest, or None if it isn't here, or damaged."""
    try:
        patch = (
            reading.read_file(_patch_path(digest), reading.LARGEST_WEIGHTS)
            if re.fullmatch("[0-9a-f]{64}", digest)
            else b""
        )
    except OSError:
        return None
    return patch if digests.sha256(patch) == digest else None


def _patch_path(digest: str) -> Path:
    return paths.trajectory_store() / "patches" / f"{digest}.patch"


def _names(listed: bytes) -> list[str]:
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def committed(path: str) -> bytes | None:
    """A file of the current directory as it is in the commit that is checked out; None where it isn't."""
    return _git("show", f"HEAD:./{path}")


def _changed_submodules(top: Path) -> list[str]:
    """Submodules with changes that aren't committed in them: no patch of this repository has those."""
    if not (top / ".gitmodules").is_file():
        return []
    # Without optional locks: otherwise it would refresh the index.
    status = (
        _git(
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


def packages() -> str:
    """Every installed distribution as `name==version`, a line each, sorted."""
    return "".join(sorted({f"{found.name}=={found.version}\n" for found in distributions() if found.name}))


class Machine(Document):
    """`environment/machine.json`, as far as it is looked into."""

    python: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}(\.\d{1,3}[a-z0-9+]{0,8})?$")] | None = None


def machine() -> dict[str, str]:
    """What packages don't say of the environment: Python, the system, the processor.

    No names of the machine or its user.
    """
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


def committed_output(stage: str, path: str, now: bytes) -> tuple[str, bytes] | None:
    """An output of a stage as it was at the last commit: the commit, shortened, and the bytes, from DVC's cache.

    Args:
        stage: that made it.
        path: of the output.
        now: what it is, which may not have come to the cache yet.

    Returns None where that can't be had: outside of Git, before the first commit of dvc.lock, or where the cache lacks
    it.
    """
    commit, lock = _git("rev-parse", "--short", "HEAD"), _git("show", "HEAD:./dvc.lock")
    if commit is None or lock is None:
        return None
    try:
        md5 = next(str(out["md5"]) for out in from_yaml(lock.decode())["stages"][stage]["outs"] if out["path"] == path)
        if not re.fullmatch("[0-9a-f]{32}", md5):
            return None
        found = (
            now
            if hashlib.md5(now, usedforsecurity=False).hexdigest() == md5
            else (cache() / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()
        )
    except (OSError, UnreadableYaml, configparser.Error, UnicodeDecodeError, KeyError, TypeError, StopIteration):
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


def _git(*arguments: str, cwd: Path | None = None) -> bytes | None:
    """What Git prints, or None if it can't say."""
    try:
        return _must(*arguments, cwd=cwd)
    except GitError:
        return None


def _must(*arguments: str, index: Path | None = None, cwd: Path | None = None, given: bytes = b"") -> bytes:
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
