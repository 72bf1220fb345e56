"""Where machines keep what they share: objects that never change, behind three functions (list, get, put if absent).

A directory, also on a network file system, is one kind; a URL of any other scheme is opened by fsspec, as DVC does.
Another kind is one more class.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from surefoot.base import limits, reading, writing
from surefoot.base.errors import UserError
from surefoot.base.installation import install_command
from surefoot.base.wording import without_password

Result = TypeVar("Result")

SECONDS = 30.0  # that an answer may take
BYTES = 1_000_000  # so many bytes of an object may take a second more
# What a scheme is opened with. Who waits has other work to do, so few tries.
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"max_attempts": 2, "mode": "standard"}}}}
EXTRAS = ("s3",)  # the schemes that take one, which has their name
NO_NAME = "ParamValidationError"  # of the bucket; its text has the URL in it
REFUSALS = (NO_NAME, "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
CONFLICT = "ConditionalRequestConflict"  # S3 says so while another trainer is just bringing the same
TRIES_IN_CONFLICT, SECONDS_OF_CONFLICT = 5, 1.0


class Unavailable(Exception):
    """It can't be reached, or refuses; a line that says why.

    `refused`: it answered, or can't be asked: nothing will be otherwise until somebody changes something.
    """

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class TooLarge(Exception):
    """An object has more bytes than it may have."""


class Kind(Protocol):
    """What a kind of storage can do. Names are relative paths, with `/`.

    Each raises FileNotFoundError where the object, or the storage itself, isn't there; put_if_absent FileExistsError
    where the object is there.
    """

    def list(self, prefix: str) -> dict[str, int]:
        """The objects below a prefix, and their sizes in bytes."""

    def get(self, name: str, path: Path, largest: int) -> None:
        """Write an object of at most so many bytes to a file; raises TooLarge."""

    def put_if_absent(self, name: str, path: Path) -> None:
        """Make an object of a file, whole or not at all."""


class ObjectStore:
    """An open store, whose calls end within a bound."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.url = without_password(url).rstrip("/")
        self._kind = kind

    def list(self, prefix: str = "") -> dict[str, int]:
        """The objects below a prefix, and their sizes in bytes.

        Raises:
            Unavailable: it can't be reached; refuses; or isn't there.
        """
        try:
            return _ask(lambda: self._kind.list(prefix), SECONDS)
        except FileNotFoundError:
            raise _absent() from None

    def get(self, name: str, path: Path, largest: int) -> bool:
        """Write an object of at most so many bytes to a file; returns whether it is there.

        Raises:
            TooLarge: it has more.
            Unavailable: the store can't be reached, or refuses.
            UserError: the disk is full.
        """
        try:
            _ask(lambda: self._kind.get(name, path, largest), SECONDS + largest / BYTES)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise writing.unwritable(path, error) from None
        return True

    def put_if_absent(self, name: str, path: Path) -> bool:
        """Make an object of a file, unless there is one of that name; returns whether there was none.

        Raises:
            Unavailable: the store can't be reached; refuses; or isn't there.
        """
        try:
            _ask(lambda: self._kind.put_if_absent(name, path), SECONDS + path.stat().st_size / BYTES)
        except FileExistsError:
            return False
        except FileNotFoundError:
            if not path.exists():
                return False
            raise _absent() from None
        except OSError as error:
            raise _unavailable(error) from None
        return True


def open_object_store(url: str) -> ObjectStore:
    """Open the store at a URL; nothing is asked of it yet.

    Raises:
        UserError: it is no such URL; or what its scheme needs isn't installed.
    """
    scheme, _, rest = url.partition("://")
    shown = f"SUREFOOT_STORE: {without_password(url)}"
    if scheme == "file" and not rest.startswith("/"):
        raise UserError(f"{shown}: a directory is given as file:///DIRECTORY, with its whole path")
    if not rest.strip("/") or (scheme in EXTRAS and rest.startswith("/")):
        raise UserError(f"{shown}: it names no {'directory' if scheme == 'file' else 'bucket'}")
    try:
        return ObjectStore(url, _Directory(Path(rest)) if scheme == "file" else _Fsspec(scheme, url))
    except ImportError as error:
        lacking = f"it takes packages that aren't installed: {install_command(scheme)}"
        raise UserError(f"{shown}: {lacking if scheme in EXTRAS else _first_line(error)}") from None
    except Exception as error:  # whatever a scheme of fsspec's raises that wants more than a URL
        raise UserError(f"{shown}: {_unavailable(error)}") from None


# --- kinds ----------------------------------------------------------------------------------------


class _Directory:
    """A directory, which somebody made: where a network's file system isn't mounted, nothing may be written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self, prefix: str) -> dict[str, int]:
        if not self._path.is_dir():
            raise FileNotFoundError
        found = {}
        for path in (self._path / prefix).rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and path.suffix != ".partial":
                    found[path.relative_to(self._path).as_posix()] = path.stat().st_size
        return found

    def get(self, name: str, path: Path, largest: int) -> None:
        with reading.open_file(self._path / name) as there:
            _check_size(os.fstat(there.fileno()).st_size, 0, largest)
            with path.open("wb") as here:
                shutil.copyfileobj(there, here)

    def put_if_absent(self, name: str, path: Path) -> None:
        if not self._path.is_dir():
            raise FileNotFoundError
        there = self._path / name
        if there.exists():
            raise FileExistsError
        there.parent.mkdir(parents=True, exist_ok=True)
        beside = there.with_name(f".{there.name}.{uuid4().hex}.partial")
        try:
            with path.open("rb") as here, beside.open("wb") as new:
                shutil.copyfileobj(here, new)
                new.flush()
                os.fsync(new.fileno())
            try:
                os.link(beside, there)
            except FileExistsError:
                raise
            except OSError:  # no such links on this disk: whoever comes last takes the place
                beside.replace(there)
        finally:
            beside.unlink(missing_ok=True)


class _Fsspec:
    """What fsspec opens."""

    def __init__(self, scheme: str, url: str) -> None:
        from fsspec.core import url_to_fs

        options = {"use_listings_cache": False, "skip_instance_cache": True, **OPTIONS.get(scheme, {})}
        self._files, self._root = url_to_fs(url, **options)
        self._root = self._root.rstrip("/")

    def list(self, prefix: str) -> dict[str, int]:
        found = self._files.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        return {name[len(self._root) + 1 :]: about["size"] or 0 for name, about in found.items()}

    def get(self, name: str, path: Path, largest: int) -> None:
        from fsspec.callbacks import Callback

        # Called with what the server says of the size, then after each piece with what came.
        watch = Callback(hooks={"size": lambda size, value, **_: _check_size(size or 0, value, largest)})
        self._files.get_file(f"{self._root}/{name}", str(path), callback=watch)

    def put_if_absent(self, name: str, path: Path) -> None:
        there = f"{self._root}/{name}"
        for further in reversed(range(TRIES_IN_CONFLICT)):
            try:
                self._files.put_file(str(path), there, mode="create")
                return
            except OSError as error:
                if error.errno == errno.ENOSYS:
                    break
                if _answer(error).get("Code") != CONFLICT or not further:
                    raise
            time.sleep(SECONDS_OF_CONFLICT)
        # The server knows no condition: between the question and the answer another trainer may come first.
        if self._files.exists(there):
            raise FileExistsError
        self._files.put_file(str(path), there)


# --- answers --------------------------------------------------------------------------------------


def _ask(call: Callable[[], Result], seconds: float) -> Result:
    """What a call gives, in a thread that is waited for so long and no longer."""
    answer: Future[Result] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, name="object-store", daemon=True).start()
    try:
        return answer.result(seconds)
    except (FileNotFoundError, FileExistsError, TooLarge):
        raise
    except TimeoutError:
        raise Unavailable(f"it doesn't answer within {seconds:.0f} s") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in writing.NO_SPACE:
            raise
        raise _unavailable(error) from None


def _absent() -> Unavailable:
    return Unavailable("there is no such bucket or directory", refused=True)


def _unavailable(error: Exception) -> Unavailable:
    """Why a call failed, in words that show no credentials: what a server answers, or who doesn't answer."""
    said = _answer(error)
    refused = isinstance(error, PermissionError) or type(error).__name__ in REFUSALS
    if type(error).__name__ == NO_NAME:
        return Unavailable("no bucket can have this name", refused)
    if said.get("Code"):
        return Unavailable(f"{said['Code']}: {said.get('Message', '')}".rstrip(": "), refused)
    if isinstance(error, OSError) and error.errno:
        return Unavailable(limits.system_reason(error), refused)
    # Of an address no more than the host.
    line = re.sub(r"(https?://)(?:[^/\s@\"]*@)?([^/\s\"?]*)[^\s\"]*", r"\1\2", _first_line(error))
    return Unavailable(line[:300], refused)


def _answer(error: Exception) -> dict[str, Any]:
    """What a server of S3 said that was translated to this error: its code and message."""
    answer = getattr(error.__cause__, "response", None)
    return answer.get("Error", {}) if isinstance(answer, dict) else {}


def _check_size(size: int, so_far: int, largest: int) -> None:
    if max(size, so_far) > largest:
        raise TooLarge


def _first_line(error: Exception) -> str:
    return without_password((str(error).splitlines() or [""])[0]) or type(error).__name__
