"""What must not be missed: errors and warnings at the terminal; and how a process of ours ends, by a user's mistake or a signal."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from surefoot import terminal


class UserError(Exception):
    """A mistake of the user's: shown as plain lines, exit code 2, never a traceback.

    Each argument is a line. A line's end within one, as a name or a value may have, is shown as text.
    """

    def __str__(self) -> str:
        return "\n".join(terminal.plain(line) for line in self.args)


def say(kind: str, *lines: object) -> None:
    """Print `error: line`, or `warning: line`, and further lines to standard error."""
    terminal.say(*lines, kind=kind)


class Stopped(BaseException):
    """SIGTERM or Ctrl-C arrived. Not an `Exception`: only the edge of the process may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def _stop(signum: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the clean-up that the first one started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Stopped(signum)


def run(main: Callable[[], None]) -> None:
    """Run `main` as a whole process: exit code 0, 2 for a `UserError`, 128 + signal when stopped."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    terminal.protect()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        say("error", *error.args)
        sys.exit(2)
    except Stopped as stopped:
        terminal.say(f"stopped by {stopped}", error=True)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        # `surefoot ... | head` closed our output: not a fault. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
