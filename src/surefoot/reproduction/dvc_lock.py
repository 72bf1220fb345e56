"""What `dvc.lock` names, and DVC's cache has of it. Importing dvc to ask would take a second."""

import json
import re
from pathlib import Path
from typing import Any

from surefoot.base import reading
from surefoot.base.yaml12 import UnreadableYaml, from_yaml
from surefoot.reproduction import provenance

LOCK = Path("dvc.lock")
LISTING_BYTES = 1 << 30


def md5(stage: str, kind: str, path: Path) -> str | None:
    """The MD5 of a dependency (`kind` deps) or an output (outs) of a stage, as DVC noted it when the stage ran; None if
    it didn't.
    """
    try:
        lock = from_yaml(reading.read_file(LOCK).decode())
        found: Any = next(entry["md5"] for entry in lock["stages"][stage][kind] if entry["path"] == path.as_posix())
    except (OSError, UnreadableYaml, ValueError, KeyError, TypeError, StopIteration):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", found) else None


def cached(digest: str | None) -> Path | None:
    """Where DVC's cache has the file, or the listing of the directory, of an MD5; None where it doesn't."""
    path = provenance.cache() / "files" / "md5" / digest[:2] / digest[2:] if digest else None
    return path if path and path.is_file() else None


def within(digest: str | None) -> dict[str, Path]:
    """Where DVC's cache has the files of the directory of an MD5, by their paths in it, as far as it has them."""
    listing = cached(digest)
    try:
        entries = json.loads(reading.read_file(listing, LISTING_BYTES)) if listing else []
        there = {entry["relpath"]: cached(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: path for name, path in there.items() if path}
