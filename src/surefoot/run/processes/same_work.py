"""What must be the same on all machines that train together, and what differs."""

import re
from pathlib import Path
from typing import Any

from surefoot.base import digests, installation, paths, reading, terminal
from surefoot.base.documents import Document
from surefoot.base.errors import UserError
from surefoot.data.batch_store import open_store
from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import Params
from surefoot.reproduction.git import ask_git
from surefoot.run import start_from
from surefoot.training import numerics

SOURCES = Path("src")
# What Python, a package's installation, an editor or a file manager leaves there.
NO_SOURCES = re.compile(r"(^|/)(__pycache__|[^/]+\.egg-info)/|\.pyc$|~$|(^|/)\.[^/]+$")


class Work(Document):
    """What a machine would train, and how it computes."""

    commit: str
    torch: str
    fingerprint: str
    params: dict[str, Any]
    """By dotted key."""
    files: dict[str, str]
    """In `src`, and of an installed Surefoot: their digests."""
    data: str
    start: dict[str, str]
    """The digests of the files that it starts from."""


def describe_work(params: Params) -> Work:
    """What this machine would train, and how it computes. Numerics must be pinned.

    Raises:
        UserError: there are no batches, or they are damaged; another clone's code is running.
    """
    import torch

    _check_code_is_here()
    start = start_from.start_files() if params.train.start_from else {}
    return Work(
        commit=(ask_git("rev-parse", "--verify", "HEAD^{commit}") or b"none").decode().strip(),
        torch=torch.__version__.partition("+")[0],
        fingerprint=numerics.fingerprint(params.device, params.train.precision),
        params=flatten(params.model_dump(mode="json")),
        files=_source_digests(),
        data=open_store(paths.BATCHES).index.digest,
        start={name: digests.sha256_file(path) for name, path in start.items() if path.is_file()},
    )


def _check_code_is_here() -> None:
    """See whether this clone's code runs, where the directory is a clone: its virtual environment may be another's."""
    running = Path(__file__).resolve().parents[3]
    if (SOURCES / "surefoot").is_dir() and running != SOURCES.resolve():
        raise UserError(
            f"the code that runs is that of {running}, not this clone's: make a virtual environment here (`make"
            " setup`), or set PYTHONPATH=src"
        )


def _source_digests() -> dict[str, str]:
    found = {path.as_posix(): path for path in SOURCES.rglob("*")}
    if (package := installation.package_folder()) is not None:
        found |= {f"surefoot/{path.relative_to(package).as_posix()}": path for path in package.rglob("*")}
    return {
        name: digests.sha256_file(path)
        for name, path in sorted(found.items())
        if path.is_file() and not NO_SOURCES.search(name)
    }


def check_batches() -> None:
    """Read all batches of this machine, where it may not be DVC that brought them: are they as their digests say?

    Raises:
        UserError: they are damaged.
    """
    for split, files in open_store(paths.BATCHES).index.splits.items():
        for name, file in (("inputs", files.inputs), ("targets", files.targets)):
            path = paths.BATCHES / split / f"{name}.npy"
            with reading.reading_made(path, "batch", ValueError):
                if digests.sha256_file(path) != file.sha256:
                    raise ValueError("it isn't as it was written")


def what_differs(here: Work, there: Work) -> dict[str, str]:
    """What differs between this machine and the first one: what is said of it, by its name; nothing if all is the same.

    Args:
        here: of this machine.
        there: of the first one.
    """
    plain = {"commit": "commit", "torch": "torch", "fingerprint": "fingerprint", "data": str(paths.BATCHES)}
    found = {
        name: f"{getattr(here, key)[:12]} here, {getattr(there, key)[:12]} on the first machine"
        for key, name in plain.items()
        if getattr(here, key) != getattr(there, key)
    }
    for key in {**there.params, **here.params}:
        one, other = here.params.get(key), there.params.get(key)
        if one != other:
            found[f"params.yaml: {key}"] = f"{one!r} here, {other!r} on the first machine"
    files = {**there.files, **here.files}
    if names := [name for name in files if here.files.get(name) != there.files.get(name)]:
        found[str(SOURCES)] = terminal.first_few(names, 3)
    if here.start != there.start:
        found[str(paths.START_FROM)] = "another model to start from"
    return found
