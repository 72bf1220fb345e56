"""Where things lie, and how they are written: beside, then renamed, so that nobody sees half a file."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from surefoot.errors import UserError

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
BATCHES = Path("data/batches")
MODEL = Path("models/model.safetensors")
HISTORY = Path("reports/history.csv")
METRICS = Path("reports/metrics.json")
INTERVALS = Path("reports/intervals.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def trajectory() -> Path:
    """The trajectory store: SUREFOOT_STORE, or `.surefoot/` at the repository's root."""
    return Path(os.environ.get("SUREFOOT_STORE") or root() / ".surefoot")


def root() -> Path:
    """The repository's root, absolute; in DVC's temporary copies the root of the one they came from."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling a value: sorted keys, no spaces, shortest round-trip floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        with suppress(NotADirectoryError):
            beside.unlink(missing_ok=True)


def unwritable(path: Path | str, error: OSError) -> UserError:
    """What to tell the user of a file that can't be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return UserError(f"{path} can't be written: {error.strerror}\nwhat was stored before is whole{': free some space, then run again' if full else ''}")


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


class Locks:
    """Locks by number in one file: a byte each, held by the process, gone when the process is, however it ends."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never closed but by the end of the process: closing any descriptor of the file would drop all its locks.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}") from None

    @contextmanager
    def held(self, name: str, waiting: Callable[[int], None] = lambda pid: None) -> Iterator[None]:
        """Hold the lock of `name`; `waiting` is told the process that has it, if there is one."""
        byte = int(sha256(name.encode())[:15], 16)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except BlockingIOError:
            waiting(self._holder(byte))
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, byte)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def _holder(self, byte: int) -> int:
        """The process that holds a lock; 0 where the system doesn't tell."""
        if not sys.platform.startswith("linux"):
            return 0
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        return int(struct.unpack("hhqqi4x", fcntl.fcntl(self._descriptor, fcntl.F_GETLK, asked))[4])


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
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield beside
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise unwritable(path, error) from None
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
