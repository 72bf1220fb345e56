"""MLflow's client, made safe to wait for: whatever the server answers, a call ends within a bound, and fails in one of
two ways.

Failure
├── OutOfReach    nobody answers, or says "later", or answers as no MLflow does: nothing else will work either
└── Refused       MLflow is there, and doesn't take or doesn't have this one thing: what comes after may work
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from surefoot.base import limits, reading
from surefoot.base.installation import script
from surefoot.base.quick_imports import quick_imports
from surefoot.base.wording import without_password
from surefoot.tracking.mlflow_store import (
    SETTINGS,
    configure,
    experiment_name,
    sqlite_file,
    store_uri,
)

if TYPE_CHECKING:
    from http.client import HTTPConnection

    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from requests import Response

Result = TypeVar("Result")
_waited_for: set[threading.Thread] = set()
_connections: "list[weakref.ref[HTTPConnection]]" = []
# What is called after each call, by whoever waits for many in a row.
call_ended: ContextVar[Callable[[], None]] = ContextVar("call_ended", default=lambda: None)

WAITS = 3  # a call may take so many times what a request may wait for a byte
BYTES = 5_000_000  # so many bytes of an artifact may take that long again
REQUESTS = 50  # and so many requests, where a call makes many
MODEL_REQUESTS = 150  # that it takes to log or fetch a model, which has many files
LARGEST_ANSWER = 64 << 20  # bytes of an answer that is read whole: a page of a thousand runs has far less
LARGEST = 1 << 34  # bytes of an artifact, or of a model's files, that are fetched
# MLflow's names of what it says of one request. Whatever else it says, a simple question shows whether it is there at
# all.
REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)
DAMAGED = ("file is not a database", "disk image is malformed", "no such table", "no such column")  # SQLite of its file
LATER = (401, 408, 429, 502, 503, 504)  # also a wrong login: no other request will do better


class Failure(Exception):
    """MLflow didn't do what it was asked; one line."""


class OutOfReach(Failure):
    """There is no MLflow that answers."""


class Refused(Failure):
    """MLflow is there, but doesn't take or have what it was asked for."""


def connect() -> "MlflowClient":
    """A client of the store, whose calls end within the bound, and fail by a `Failure` alone.

    Raises:
        Failure: the store can't be opened.
    """
    uri = configure()
    check_file(uri)

    def made() -> "MlflowClient":
        with quick_imports("mlflow"):
            from mlflow import MlflowClient

            return MlflowClient(uri)

    return cast("MlflowClient", _Client(call(made)))


def check_file(uri: str) -> None:
    """See that the file of an SQLite store, if it is there, is a file: MLflow would try a directory or a pipe for
    minutes.

    Raises:
        OutOfReach: it isn't.
    """
    path = sqlite_file(uri)
    if path and path.exists():
        try:
            reading.check_regular(path, path.stat())
        except OSError as error:
            raise OutOfReach(f"{path}: {limits.system_reason(error)}") from None


class _Client:
    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def bounded(*arguments: Any, **named: Any) -> Any:
            given_paths = (
                [Path(given) for given in arguments[1:] if isinstance(given, str)]
                if name in ("log_artifact", "download_artifacts")
                else []
            )
            sent = sum(path.stat().st_size for path in given_paths if name == "log_artifact" and path.is_file())
            into = given_paths[-1] if name == "download_artifacts" else None
            return call(lambda: method(*arguments, **named), size=sent, into=into)

        return bounded


def call(what: Callable[[], Result], *, size: int = 0, into: Path | None = None, requests: int = 1) -> Result:
    """What a function that asks MLflow returns.

    Args:
        what: the function.
        size: bytes that it sends.
        into: the directory that it fetches files into: the more come, the longer it may take.
        requests: how many it makes, where they are many.

    Raises:
        Failure: it takes longer than the bound, or fails.
    """
    try:
        return _call(what, size, into, requests)
    except _Unclear as error:
        # Something went wrong that may concern this request or all of them.
        try:
            _call(_ask)
        except (Failure, _Unclear):
            raise OutOfReach(str(error)) from None
        raise Refused(str(error)) from None


class _Unclear(Exception):
    """A call failed, and it isn't known yet whether others would."""


def _ask() -> None:
    from mlflow import MlflowClient

    MlflowClient(store_uri()).search_experiments(max_results=1)


def _call(what: Callable[[], Result], size: int = 0, into: Path | None = None, requests: int = 1) -> Result:
    try:
        # What an interrupted thread would still write to a file of this machine's, the next call would write again.
        return what() if store_uri().startswith("sqlite:") else _in_time(what, size, into, requests)
    except (Failure, _Unclear):
        raise
    except Exception as error:
        raise _failure(error) from None
    finally:
        call_ended.get()()


def bound() -> float:
    """Seconds that a call may take if it moves no files."""
    text = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    return WAITS * float(text if text.isdecimal() else SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"])


def longest_call(size: int = 0) -> float:
    """Seconds that the longest call may take: that which logs a model whose files have so many bytes."""
    return bound() * (1 + size / BYTES + MODEL_REQUESTS / REQUESTS)


def _in_time(what: Callable[[], Result], size: int, into: Path | None, requests: int) -> Result:
    """Run a function in a thread of its own, which is left behind when its time is over: time-outs of sockets know
    neither retries nor dripping answers.
    """
    done: Future[Result] = Future()

    def work() -> None:
        try:
            done.set_result(what())
        except BaseException as error:
            done.set_exception(error)

    _bound_answers()
    _remember_connections()
    thread = threading.Thread(target=work, daemon=True)
    began = time.monotonic()
    _waited_for.add(thread)
    try:
        thread.start()
        while not done.done():
            moved, waited = size + (_size_of(into) if into else 0), time.monotonic() - began
            left = bound() * (1 + moved / BYTES + requests / REQUESTS) - waited
            if moved > LARGEST or left < 0:
                threading.Thread(target=_hang_up, args=(thread,), daemon=True).start()
                why = (
                    f"more than {LARGEST:,} bytes came"
                    if moved > LARGEST
                    else f"no whole answer came in {waited:.0f} s"
                )
                raise _Unclear(why) if size or into or requests > 1 else OutOfReach(why)
            wait([done], min(left, 0.5) + 0.01 if into else left + 0.01)
    finally:
        _waited_for.discard(thread)
    return done.result()


@cache
def _bound_answers() -> None:
    """Have each answer that MLflow's client reads whole end at a bound; requests has none, and no setting for it."""
    import requests
    from requests.models import CONTENT_CHUNK_SIZE

    pieces_of: Callable[..., Iterator[Any]] = requests.Response.iter_content

    def iter_content(
        response: requests.Response, chunk_size: int | None = 1, decode_unicode: bool = False
    ) -> Iterator[Any]:
        pieces = pieces_of(response, chunk_size, decode_unicode)
        # Who reads it whole takes pieces of this size; files come in others, and have a bound of their own.
        whole = chunk_size == CONTENT_CHUNK_SIZE and threading.current_thread() in _waited_for
        return _bounded(response, pieces) if whole else pieces

    requests.Response.iter_content = iter_content  # type: ignore[method-assign,assignment]


def _bounded(response: "Response", pieces: Iterator[Any]) -> Iterator[Any]:
    import requests

    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LARGEST_ANSWER:
            response.close()
            raise requests.ConnectionError(f"an answer has more than {LARGEST_ANSWER:,} bytes")
        yield piece


def _size_of(directory: Path) -> int:
    found = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            found += path.lstat().st_size
    return found


def _hang_up(thread: threading.Thread) -> None:
    """Shut the connections on which a thread that was left behind still waits, or MLflow's own threads for it: Python
    waits for those at its end.
    """
    until = time.monotonic() + 10 * bound()
    while thread.is_alive() and time.monotonic() < until:
        if not _waited_for:  # no other call's connections
            for known in list(_connections):
                with suppress(OSError, AttributeError):  # also where it is gone, or not open
                    known().sock.shutdown(2)  # type: ignore[union-attr]
        time.sleep(0.5)


@cache
def _remember_connections() -> None:
    """Have each connection noted when it is made: no library hands out those that are in use.

    Asking the garbage collector for them would hold every object for a moment, so that another thread could fail:
    Python can't make a tuple longer that somebody else holds.
    """
    from http.client import HTTPConnection

    make = HTTPConnection.__init__

    def make_and_note(connection: HTTPConnection, *arguments: Any, **named: Any) -> None:
        make(connection, *arguments, **named)
        _connections.append(weakref.ref(connection, _connections.remove))

    HTTPConnection.__init__ = make_and_note  # type: ignore[method-assign,assignment]


def _failure(error: Exception) -> Exception:
    """What an exception of MLflow's, or of what it calls, means."""
    import requests
    from mlflow.exceptions import MlflowException

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    # Of what failed on the way the first cause: "Connection refused", "too many 503 error responses".
    text = failure_reason(
        chain[-1] if any(isinstance(found, requests.RequestException) for found in chain[1:]) else error
    )
    statuses = [
        found.response.status_code
        for found in chain
        if isinstance(found, requests.HTTPError) and found.response is not None
    ]
    status = statuses[0] if statuses else error.get_http_status_code() if isinstance(error, MlflowException) else 0
    if status in LATER or any(isinstance(found, requests.ConnectionError | requests.Timeout) for found in chain):
        return OutOfReach(text)
    if isinstance(error, MlflowException) and error.error_code in REFUSALS:
        return Refused(text)
    return _Unclear(text)


def failure_reason(error: BaseException) -> str:
    """What an exception says, in a line, without a password."""
    from http.client import HTTPException

    if isinstance(error, Exception) and (by_system := limits.explain(error)):
        return without_password(by_system)
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    path = sqlite_file(store_uri())
    if path and any(text in said for text in DAMAGED):
        return (
            f"{path} is damaged: delete it (or move it away), then `surefoot sync` brings the runs of the trajectory"
            f" store back ({said[:100]})"
        )
    plain = type(error).__module__.startswith(("mlflow", "sqlalchemy", "requests", "urllib3")) or isinstance(
        error, OSError | HTTPException | Failure | _Unclear
    )
    return without_password(said if said and plain else f"{type(error).__name__}: {said}".rstrip(": "))[:300]


def active_experiment(client: "MlflowClient") -> "Experiment | None":
    """The experiment, or None where there is none yet.

    Raises:
        Refused: it was deleted; what brings it back.
    """
    found: Experiment | None = client.get_experiment_by_name(experiment_name())
    if found is not None and found.lifecycle_stage == "deleted":
        uri = without_password(store_uri())
        raise Refused(
            f"the experiment {experiment_name()!r} was deleted there; `MLFLOW_TRACKING_URI={uri} {script('mlflow')}"
            f" experiments restore --experiment-id {found.experiment_id}` brings it back with its runs, or"
            " MLFLOW_EXPERIMENT_NAME names another"
        )
    return found
