"""Where things lie, and how they are written: beside, then renamed, so that nobody sees half a file."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from surefoot import limits
from surefoot.errors import UserError

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
START_FROM = Path("data/start_from")
PREPARED = Path("data/prepared")
BATCHES = Path("data/batches")
MODEL = Path("models/model.safetensors")
HISTORY = Path("reports/history.csv")
METRICS = Path("reports/metrics.json")
INTERVALS = Path("reports/intervals.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")
MEASURED = (METRICS, INTERVALS, PREDICTIONS, CLASSES, PLOTS)  # what evaluate says of a model and its data

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

LARGEST = 1 << 44  # bytes of a file that is read piece by piece: more than a disk has; /proc/kcore says that it has them
LARGEST_WHOLE = 64 << 20  # bytes of a file that is read and parsed whole, such as JSON: far more than any of ours has
LARGEST_WEIGHTS = 1 << 38
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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


# --- files from elsewhere -------------------------------------------------------------------------


def open_file(path: Path, largest: int = LARGEST) -> IO[bytes]:
    """Open a file that came from elsewhere, to read: a regular file that holds as many bytes as it says, `largest` at most.

    To read a pipe could wait for ever, a device such as /dev/zero never ends, and what a file in /proc holds is made as it is read.

    Raises:
        OSError: it isn't there, can't be read, or isn't such a file; `strerror` says why in words that go on after "can't be read: ".
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file's name can't hold a NUL character", str(path))
    check_regular(path, path.stat(), largest)  # before it is opened, as that alone does something to some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, about := os.fstat(descriptor), largest)
        size = about.st_size
        # Read once before its end and once behind: files in /proc say that they are empty, those in /sys that they have a page.
        if os.pread(descriptor, 1, size) or (size and not os.pread(descriptor, 1, size - 1)):
            raise OSError(errno.EINVAL, "it doesn't hold as many bytes as the system says, as files in /proc and /sys don't", str(path))
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
            raise UserError(f"{path}: can't be read: {limits.cause(error)}") from None
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
    """The bytes of a safetensors file that came from elsewhere: read only where its header says that it is as long as it is.

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
        raise OSError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(about.st_mode), 'something else')}, not a file", str(path))
    if about.st_size > largest:
        raise OSError(errno.EINVAL, f"it has {about.st_size:,} bytes; {largest:,} are the most that are taken", str(path))


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
    return UserError(f"{path} can't be written: {limits.cause(error)}", f"what was stored before is whole{': free some space, then run again' if full else ''}")


def remove_measured() -> None:
    """Delete what was measured of the last model: it mustn't stand beside other data, or another model, should a stage fail before it is measured anew.

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


class Locks:
    """Locks by number in one file: a byte each, held by the process, gone when the process is, however it ends."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never closed but by the end of the process: closing any descriptor of the file would drop all its locks.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            check_regular(path, os.fstat(self._descriptor))
        except OSError as error:
            raise UserError(f"{path} can't be written, which has the locks: {limits.cause(error)}; move it away") from None

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
