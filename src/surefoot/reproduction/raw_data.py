"""Raw data that Git doesn't have: where they lie, which those are, and a digest of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from surefoot.base import digests, paths, reading, writing
from surefoot.reproduction.git import run_git, split_names, top_of_repository


def raw_places(params: Mapping[str, Any]) -> list[Path]:
    """Where raw data lie, by params of dotted keys: data/raw, and sources elsewhere."""
    named = (
        params.get(f"prepare.{split}{what}") for split in ("", "validation_", "test_") for what in ("source", "labels")
    )
    return [
        paths.RAW,
        *(Path(name) for name in named if isinstance(name, str) and "\0" not in name and Path(name).exists()),
    ]


def untracked_data(raw: Sequence[Path], top: Path) -> list[str]:
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
    here = top_of_repository()
    lacking = [name for names in _listed(raw, here) for name in names if not (repository / name).exists()]
    now = _without_dvcs(
        lacking,
        [path.relative_to(repository).with_suffix("") for path in repository.rglob("*.dvc") if path.is_file()],
        here,
    )
    yield now
    tried = {tuple(now)}
    for later in run_git("rev-list", f"{commit}..HEAD", "--", *map(str, _within(raw, here))).decode().split():
        then = set(split_names(run_git("ls-tree", "-r", "-z", "--name-only", "--full-tree", later)))
        names = [name for name in now if name in then]
        if tuple(names) not in tried:
            tried.add(tuple(names))
            yield names


def data_digest(names: Sequence[str], remember: bool = True) -> str:
    """A digest of files below the repository's top, their names and bytes; what was read once isn't read again while
    its size and time stay.
    """
    if not names:
        return ""
    cache, place = paths.trajectory_store() / "digests.json", top_of_repository()
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


def _within(raw: Sequence[Path], top: Path) -> list[Path]:
    return [path for path in raw if path.exists() and path.resolve().is_relative_to(top.resolve())]


def _listed(raw: Sequence[Path], top: Path) -> tuple[list[str], list[str]]:
    """The files at these places that Git doesn't have, and those that it has."""
    there = _within(raw, top)
    if not there:
        return [], []
    places = [name for path in there for name in (str(path), f"{path}.dvc")]
    found, tracked = (
        split_names(run_git("ls-files", *kind, "-z", "--full-name", "--", *places))
        for kind in (["--others"], ["--cached"])
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
