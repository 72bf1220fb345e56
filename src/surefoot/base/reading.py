"""Files as they are read: regular ones, of bounded size; and what a stage wrote."""

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from surefoot.base import limits
from surefoot.base.errors import UserError

LARGEST = 1 << 44  # bytes of a file that is read piece by piece: more than a disk has, though /proc/kcore claims more
LARGEST_WHOLE = 64 << 20  # bytes of a file that is read and parsed whole, such as JSON: far more than any of ours has
LARGEST_WEIGHTS = 1 << 38
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


# --- files from elsewhere -------------------------------------------------------------------------


def open_file(path: Path, largest: int = LARGEST) -> IO[bytes]:
    """Open a file that came from elsewhere, to read: a regular file that holds as many bytes as it says, `largest` at
    most.

    To read a pipe could wait for ever, a device such as /dev/zero never ends, and what a file in /proc holds is made as
    it is read.

    Raises:
        OSError: it isn't there, can't be read, or isn't such a file; `strerror` says why in words that go on after
        "can't be read: ".
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file's name can't hold a NUL character", str(path))
    check_regular(path, path.stat(), largest)  # before it is opened, as that alone does something to some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, about := os.fstat(descriptor), largest)
        size = about.st_size
        # Read once before its end and once behind: files in /proc say that they are empty, those in /sys that they have
        # a page.
        if os.pread(descriptor, 1, size) or (size and not os.pread(descriptor, 1, size - 1)):
            raise OSError(
                errno.EINVAL,
                "it doesn't hold as many bytes as the system says, as files in /proc and /sys don't",
                str(path),
            )
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        os.close(descriptor)
        error.filename = str(path)
        raise


def read_file(path: Path, largest: int = LARGEST_WHOLE) -> bytes:
    """The bytes of a file that came from elsewhere, `largest` at most.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path, largest) as file:
        return file.read(os.fstat(file.fileno()).st_size)


@contextmanager
def reading_made(path: Path, stage: str, *damaged: type[Exception]) -> Iterator[None]:
    """Read a file that a stage has made; `damaged`: what reading raises where it isn't what the stage has written.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    told: tuple[type[Exception], ...] = (OSError, *damaged)
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} isn't there; `dvc repro {stage}` makes it") from None
    except told as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{path}: can't be read: {limits.system_reason(error)}") from None
        raise UserError(f"{path}: is damaged; remove it, and `dvc repro {stage}` makes it again") from None


def read_made(path: Path, stage: str, largest: int = LARGEST_WHOLE) -> bytes:
    """The bytes of a file that a stage has made.

    Raises:
        UserError: it isn't there, or can't be read.
    """
    with reading_made(path, stage):
        return read_file(path, largest)


def read_made_json(path: Path, stage: str) -> dict[str, Any]:
    """The mapping in a JSON file that a stage has made.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    with reading_made(path, stage, ValueError, RecursionError):
        value = json.loads(read_file(path))
        if not isinstance(value, dict):
            raise ValueError
        return value


def read_weights(path: Path) -> bytes:
    """The bytes of a safetensors file that came from elsewhere: read only where its header says that it is as long as
    it is.

    Raises:
        OSError: as `open_file`; or it isn't safetensors, or is cut short.
    """
    with open_file(path, LARGEST_WEIGHTS) as file:
        size = os.fstat(file.fileno()).st_size
        if not _holds_tensors(file, size):
            raise OSError(errno.EINVAL, "it isn't a safetensors file, or is cut short or damaged", str(path))
        file.seek(0)
        return file.read(size)


def check_regular(path: Path, about: os.stat_result, largest: int = LARGEST) -> None:
    """See by what the system says of it whether `path` is a regular file of at most `largest` bytes.

    Raises:
        OSError: it isn't; with `strerror` as in `open_file`.
    """
    if not stat.S_ISREG(about.st_mode):
        raise OSError(
            errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(about.st_mode), 'something else')}, not a file", str(path)
        )
    if about.st_size > largest:
        raise OSError(
            errno.EINVAL, f"it has {about.st_size:,} bytes; {largest:,} are the most that are taken", str(path)
        )


def _holds_tensors(file: IO[bytes], size: int) -> bool:
    """Whether the header of a safetensors file accounts for `size` bytes."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, LARGEST_WHOLE):
        return False
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0) == size
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return False


def check_file_names(directory: Path, names: Iterable[str]) -> None:
    """See that the names in a directory can be written as text, as DVC and Arrow do.

    Raises:
        UserError: one can't.
    """
    for name in names:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise UserError(f"{directory / name}: its name isn't UTF-8, which DVC can't do with; give it another one")
