"""Patches of uncommitted changes, kept in the trajectory store by their digest."""

import re
from pathlib import Path

from surefoot.base import digests, paths, reading, writing


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
