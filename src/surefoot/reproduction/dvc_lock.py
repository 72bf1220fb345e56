"""What `dvc.lock` names, and DVC's cache has of it. Importing dvc to ask would take a second."""

import configparser
import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from surefoot.base import paths, reading
from surefoot.base.yaml12 import UnreadableYaml, from_yaml
from surefoot.reproduction.git import ask_git, committed_file

LOCK = Path("dvc.lock")
LISTING_BYTES = 1 << 30


def recorded_md5(stage: str, kind: str, path: Path) -> str | None:
    """The MD5 of a dependency (`kind` deps) or an output (outs) of a stage, as DVC noted it when the stage ran; None if
    it didn't.
    """
    try:
        return _md5_in(reading.read_file(LOCK), stage, kind, path)
    except OSError:
        return None


def _md5_in(lock: bytes, stage: str, kind: str, path: Path) -> str | None:
    try:
        found: Any = next(
            entry["md5"]
            for entry in from_yaml(lock.decode())["stages"][stage][kind]
            if entry["path"] == path.as_posix()
        )
    except (UnreadableYaml, ValueError, KeyError, TypeError, StopIteration):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", found) else None


def cached_file(digest: str | None) -> Path | None:
    """Where DVC's cache has the file, or the listing of the directory, of an MD5; None where it doesn't."""
    path = cache_directory() / "files" / "md5" / digest[:2] / digest[2:] if digest else None
    return path if path and path.is_file() else None


def cached_directory(digest: str | None) -> dict[str, Path]:
    """Where DVC's cache has the files of the directory of an MD5, by their paths in it, as far as it has them."""
    listing = cached_file(digest)
    try:
        entries = json.loads(reading.read_file(listing, LISTING_BYTES)) if listing else []
        there = {entry["relpath"]: cached_file(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: path for name, path in there.items() if path}


def committed_output(stage: str, path: Path, now: bytes) -> tuple[str, bytes] | None:
    """An output of a stage as it was at the last commit: the commit, shortened, and the bytes, from DVC's cache.

    Args:
        stage: that made it.
        path: of the output, a file.
        now: what it is, which may not have come to the cache yet.

    Returns None where that can't be had: outside of Git, before the first commit of dvc.lock, or where the cache lacks
    it.
    """
    commit, lock = ask_git("rev-parse", "--short", "HEAD"), committed_file(str(LOCK))
    digest = None if commit is None or lock is None else _md5_in(lock, stage, "outs", path)
    if commit is None or digest is None:
        return None
    try:
        if hashlib.md5(now, usedforsecurity=False).hexdigest() != digest:
            place = cached_file(digest)
            if place is None:
                return None
            now = place.read_bytes()
    except OSError:
        return None
    return commit.decode().strip(), now


def cache_directory() -> Path:
    """DVC's cache, as its settings here name it."""
    directory = paths.nearest_dvc(Path.cwd()) / ".dvc"
    place = directory / "cache"
    for file in (directory / "config", directory / "config.local"):
        settings = configparser.RawConfigParser(strict=False)
        with suppress(configparser.Error, UnicodeDecodeError):  # DVC itself says that they are damaged
            settings.read(file, encoding="utf-8")
        if settings.has_option("cache", "dir"):
            place = file.parent / settings.get("cache", "dir").strip("\"'")
    return place
