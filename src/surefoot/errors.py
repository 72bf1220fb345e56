"""What must not be missed: errors and warnings at the terminal; and how a process of ours ends, by a user's mistake or a signal."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m"}
PLAIN = "\033[0m"


class UserError(Exception):
    """A mistake of the user's: shown as plain lines, exit code 2, never a traceback."""


def say(kind: str, text: object) -> None:
    """Print `error: text`, or `warning: text`, to standard error: in colour on a terminal, unless NO_COLOR is set."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(f"{COLOURS[kind]}{kind}:{PLAIN} {text}" if coloured else f"{kind}: {text}", file=sys.stderr, flush=True)


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
        say("error", error)
        sys.exit(2)
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        # `surefoot ... | head` closed our output: not a fault. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
