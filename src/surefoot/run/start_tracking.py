"""The process that writes a stage's run to MLflow, as the stage sees it.

It is started before anything else, so that MLflow's imports and calls take place beside the stage's own work, and no
server holds that up. Each message is a line of JSON: what to do (`run_writer.TOLD`), and what to read in the trajectory
store, where all that counts is written first.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import Signals
from typing import Any

from surefoot.base import limits, terminal
from surefoot.tracking import mlflow_client

CALLS = 2  # a stage waits at its end until nothing is heard for as long as so many of the longest calls may take
SECONDS_TO_END = 5  # for the process, once it was told all
# The path by arguments: whatever is started from there has its own PYTHONPATH, in which ":" separates.
FOLLOW = "import sys; sys.path[:] = sys.argv[1:]; from {} import main; main()"


class Tracking:
    """A stage's end of the line. `tell` waits for nothing."""

    def __init__(self) -> None:
        self.run_id: str | None = None  # None: MLflow is out of reach, or doesn't take the run; or it isn't known yet
        self.trouble = ""  # why the process does no more
        self._asked = 0
        self._unsent, self._unread = bytearray(), bytearray()
        self._channel, theirs = socket.socketpair()
        os.register_at_fork(after_in_child=self._channel.close)  # it hangs up with the stage, whoever else is left
        with theirs:
            try:
                self._process: subprocess.Popen[bytes] | None = start_process(theirs)
            except OSError as error:
                self._process, self.trouble = None, f"can't be started: {limits.system_reason(error)}"

    def tell(self, do: str, **given: Any) -> None:
        """Say what was done, or is to be done."""
        self._unsent += json.dumps({"do": do, **given}).encode() + b"\n"
        with suppress(OSError):  # it takes no more just now; or it is gone, as `finish` will see
            self._send()

    def _send(self) -> None:
        self._channel.settimeout(0)
        while self._unsent:  # a signal between the two: these bytes go twice, which `RunWriter` bears
            del self._unsent[: self._channel.send(self._unsent)]

    def finish(self, do: str, seconds: float | None = None, size: int = 0, **given: Any) -> None:
        """Tell the last thing, and wait until all is done; if it isn't, say so.

        Args:
            do: as `tell` takes it.
            seconds: how long to wait at most; None: as long as it shows, call by call, that it gets on.
            size: bytes that MLflow is sent.
            given: as `tell` takes it.
        """
        self._asked += 1
        self.tell(do, ask=self._asked, **given)
        quiet = CALLS * mlflow_client.longest_call(size)
        if not self.trouble:
            try:
                self._read_answer(*((quiet, True) if seconds is None else (seconds, False)))
            except TimeoutError:
                self.trouble = (
                    f"gave no sign of life for {quiet:.0f} s"
                    if seconds is None
                    else f"isn't done after {seconds:.0f} s"
                )
            except (OSError, EOFError):
                self.trouble = self._end()
        if self.trouble:
            terminal.warn(
                f"MLflow may lack something of this run, as the process that writes it there {self.trouble}; once the"
                " run is finished, `surefoot sync` brings it"
            )

    def _read_answer(self, seconds: float, anew: bool) -> None:
        """Wait for the answer to what was asked last.

        Args:
            seconds: how long.
            anew: as long again after each sign of life.

        Raises:
            TimeoutError: it didn't come in time.
            EOFError: it won't come.
        """
        until = time.monotonic() + seconds
        while True:
            poll = select.poll()  # select knows the first 1,024 open files alone
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            happened = dict(poll.poll(1000 * max(0, until - time.monotonic())))
            if not happened:
                raise TimeoutError
            (events,) = happened.values()
            if events & select.POLLOUT:
                self._send_some()
            if events & ~select.POLLOUT:
                more = self._channel.recv(4096)
                if not more:
                    raise EOFError
                self._unread += more
                until = time.monotonic() + seconds if anew else until
                if self._take_answer():
                    return

    def _send_some(self) -> None:
        try:
            self._send()
        except BlockingIOError:
            pass
        except OSError:  # it may have said why it doesn't listen any more
            self._unsent.clear()

    def _take_answer(self) -> bool:
        """Whether the answer to what was asked last is among what came."""
        *lines, rest = self._unread.split(b"\n")
        self._unread = bytearray(rest)
        for line in filter(None, lines):  # an empty one is a sign of life
            said = json.loads(line)
            self.trouble = said["trouble"]
            if self.trouble or said["ask"] == self._asked:
                self.run_id = said["run_id"]
                return True
        return False

    def _end(self) -> str:
        """End the process; how it ended."""
        assert self._process
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        self._process.kill()
        code = self._process.wait()
        return f"was ended by {Signals(-code).name}" if code < 0 else f"ended with {code}"

    def close(self) -> None:
        """End the process: at once where it was never asked anything."""
        self._channel.close()
        if self._process:
            if not self._asked or self.trouble:
                self._process.kill()
            self._end()


def start_process(channel: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the process at the other end of a channel, in a group of its own: Ctrl-C is for the stage, which says what
    is to be done.
    """
    command = helper_command("surefoot.run.tracking_process")
    return subprocess.Popen(command, stdin=channel.fileno(), process_group=0)


def helper_command(module: str) -> list[str]:
    """The command of a process that a stage starts, which runs `main` of a module of ours."""
    return [sys.executable, "-c", FOLLOW.format(module), *(path or "." for path in sys.path)]


@contextmanager
def start_tracking() -> Iterator[Tracking]:
    """A process that writes a run to MLflow; it is gone when the block ends."""
    tracking = Tracking()
    try:
        yield tracking
    finally:
        tracking.close()
