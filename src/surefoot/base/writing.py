"""Where things lie, and how they are written: beside, then renamed, so that nobody sees half a file."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.base.paths import MEASURED

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# --- writing --------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: the disk is full, or can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def unwritable(path: Path | str, error: OSError) -> UserError:
    """What to tell the user of a file that can't be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return UserError(
        f"{path} can't be written: {limits.system_reason(error)}",
        f"what was stored before is whole{': free some space, then run again' if full else ''}",
    )


def remove_measured() -> None:
    """Delete what was measured of the last model: it mustn't stand beside other data, or another model, should a stage
    fail before it is measured anew.

    Raises:
        UserError: it can't be deleted.
    """
    for path in MEASURED:
        try:
            _remove(path)
        except OSError as error:
            raise UserError(f"{path}, which is of the run before, can't be deleted: {error.strerror}") from None


def _remove(path: Path) -> None:
    """Delete what lies at `path`, be it a directory, a file, a link or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_durably(directory: Path, contents: dict[str, bytes]) -> None:
    """Write files into one directory, each whole or not at all, so that they outlive a power cut: all is fsynced.

    Raises:
        OSError: naming the file that couldn't be written; those before it in the dict may be there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    beside = {name: directory / f".{name}.{os.getpid()}.partial" for name in contents}
    name = ""
    try:
        for name, data in contents.items():
            with beside[name].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, written in beside.items():
            written.replace(directory / name)
    except OSError as error:
        error.filename = str(directory / name)
        raise
    finally:
        for leftover in beside.values():
            leftover.unlink(missing_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill; it takes the place of `path` when the block ends well, and vanishes when not.

    Raises:
        UserError: it can't be made; the disk is full, or a limit of the system's is reached.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        _remove(beside)
        beside.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield beside
    except OSError as error:
        if error.errno in NO_SPACE:
            raise unwritable(path, error) from None
        raise
    else:
        try:
            _remove(path)
            beside.rename(path)
        except OSError as error:
            raise unwritable(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
