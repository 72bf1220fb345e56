"""Locks between processes."""

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from surefoot.base import limits
from surefoot.base.digests import sha256
from surefoot.base.errors import UserError
from surefoot.base.reading import check_regular

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Locks:
    """Locks by number in one file: a byte each, held by the process, gone when the process is, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never closed but by the end of the process: closing any descriptor of the file would drop all its locks.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            check_regular(path, os.fstat(self._descriptor))
        except OSError as error:
            raise UserError(
                f"{path} can't be written, which has the locks: {limits.system_reason(error)}; move it away"
            ) from None

    @contextmanager
    def held(self, name: str, waiting: Callable[[int], None] = lambda pid: None) -> Iterator[None]:
        """Hold the lock of `name`; if another process has it, `waiting` is called with its id first."""
        byte = int(sha256(name.encode())[:15], 16)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except BlockingIOError:
            waiting(self._holder(byte))
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, byte)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise UserError(
                f"{self._path}: this file system has no locks, as one on a network may: {error.strerror}",
                "SUREFOOT_STORE=file:///DIRECTORY shares a directory without them",
            ) from None
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
