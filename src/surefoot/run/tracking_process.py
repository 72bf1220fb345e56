"""The process that writes a stage's run to MLflow, with the stage at the other end of standard input
(`start_tracking`).

It reads in the trajectory store what it is told of, and writes what MLflow lacks. Where the stage is gone without a
word it leaves the run as `surefoot sync` would.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

from surefoot.base import terminal
from surefoot.base.quick_imports import quick_imports
from surefoot.tracking import mlflow_client, mlflow_store


def follow_stage(channel: socket.socket) -> None:
    """Do what a stage tells, until it hangs up."""
    asked = 0
    mlflow_client.call_ended.set(lambda: _show_life(channel))
    try:
        _prepare()
        from surefoot.run.run_writer import TOLD, RunWriter

        with RunWriter() as writer:
            for message in _messages(channel, writer.look):
                asked = message.pop("ask", 0)
                TOLD[message.pop("do")](writer, **message)
                if asked:
                    _answer(channel, ask=asked, trouble="", run_id=writer.run_id)
            if not asked:
                writer.leave()
    except BaseException as error:  # also a library's SystemExit: the stage waits for an answer
        _answer(channel, ask=asked, trouble=f"failed: {mlflow_client.failure_reason(error)}", run_id=None)


def _prepare() -> None:
    """What takes long, and can be done before anything is told: the imports, and opening a store that is a file."""
    uri = mlflow_store.configure()
    path = mlflow_store.sqlite_file(uri)
    with quick_imports("mlflow"):
        for module in ("mlflow.pyfunc", "surefoot.run.run_writer"):
            import_module(module)
        if path and path.is_file():
            with suppress(mlflow_client.Failure):  # the tracker will say so
                mlflow_client.connect().search_experiments(max_results=1)


def _messages(channel: socket.socket, look: Callable[[], float | None]) -> Iterator[dict[str, Any]]:
    """What the stage says, until it hangs up; `look` does what else there is to do, and gives the seconds until it is
    to be called again.
    """
    unread = b""
    while True:
        channel.settimeout(look())
        try:
            more = channel.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return
        *lines, unread = (unread + more).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # a signal came while it spoke
                return
            yield message
        if not more:
            return


def _show_life(channel: socket.socket) -> None:
    """Say that something was done, by an empty line: a stage that waits then waits longer."""
    with suppress(OSError):  # it has many unread; or it is gone
        channel.settimeout(0)
        channel.send(b"\n")


def _answer(channel: socket.socket, **said: Any) -> None:
    with suppress(OSError):  # it doesn't wait any more
        channel.settimeout(None)
        channel.sendall(json.dumps(said).encode() + b"\n")


class _Heedless:
    """A stream that nobody need read to its end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def main() -> None:
    """Follow the stage at the other end of standard input."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # where all processes get one, the stage says what is to be done
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)  # what is started from here isn't to read there
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is not None:
            setattr(sys, name, _Heedless(getattr(sys, name)))
    terminal.protect()
    try:
        follow_stage(channel)
    finally:
        os._exit(0)  # Python's own end would wait for threads that a server holds up


if __name__ == "__main__":
    main()
