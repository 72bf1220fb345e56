"""Files are written beside, then renamed, so that nobody sees half a one."""

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.base.paths import MEASURED

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A place to write a file to; it takes the place of `path` when the block ends well, and vanishes when not.

    Raises:
        OSError: with `path` as its file name where it names none.
    """
    if not path.name:  # as of `--out .`
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: the disk is full, or can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise unwritable(path, error) from None


def csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows as CSV; floats as the shortest text that reads back as the same number."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


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
    with ExitStack() as stack:  # which ends in reverse, so files are renamed in the order of the dict
        beside = {name: stack.enter_context(written_beside(directory / name)) for name in reversed(contents)}
        for name, data in contents.items():
            try:
                with beside[name].open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                error.filename = str(directory / name)
                raise
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
