"""How a process of ours ends: what a user did wrong, and what a signal stopped."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


class UserError(Exception):
    """A mistake of the user's: shown as plain lines, exit code 2, never a traceback."""


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
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        # `surefoot ... | head` closed our output: not a fault. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
