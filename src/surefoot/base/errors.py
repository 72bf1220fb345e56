"""How a process of ours ends: by a mistake of the user's, by a signal, or because the system has no more memory, files
or disk.
"""

import atexit
import ctypes
import gc
import mmap
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from surefoot.base import limits, terminal
from surefoot.base.quick_imports import collect_from_here


class UserError(Exception):
    """A mistake of the user's: shown as plain lines, exit code 2, never a traceback.

    Each argument is a line. A line's end within one, as a name or a value may have, is shown as text.
    """

    def __str__(self) -> str:
        return "\n".join(terminal.one_line(line) for line in self.args)

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it (IPython asks for this)."""
        return f"error: {self}".splitlines()


class CannotSay(Exception):
    """Nothing can be said of a run, and why: each argument is a line."""

    def __str__(self) -> str:
        return "\n".join(terminal.one_line(line) for line in self.args)


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


def run_process(main: Callable[[], None]) -> None:
    """Run `main` as a whole process: exit code 0, 2 for a `UserError` and where memory, files or the disk run out, 128
    + signal when stopped.
    """
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    collect_from_here()
    terminal.protect()
    try:
        _fill_standard_streams()
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        terminal.print_error(*error.args)
        sys.exit(2)
    except Stopped as stopped:
        terminal.print_lines(f"stopped by {stopped}", error=True)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        # `surefoot ... | head` closed our output: not a fault. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        line = limits.explain(error)
        if line is None:
            raise
        terminal.print_error(line)
        sys.exit(2)


def _fill_standard_streams() -> None:
    """See to it that no file of ours takes the place of standard input or output that was closed."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(lowest)


ABORTED = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)

# --- before `run_process`, while modules are imported -----------------------------------------------------


def begin_process() -> None:
    """See to it how this process ends before anything else is imported, as imports alone may need more memory than
    there is.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` hands down that it is ignored
    gc.disable()  # until `run_process`
    sys.excepthook = _end
    short = limits.too_little()
    if short:
        terminal.print_error(limits.shortage(short))
        sys.exit(2)
    if limits.memory_limit() is not None and sys.platform == "linux":
        _watch_over_a_child()


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind is KeyboardInterrupt:
        terminal.print_lines(f"stopped by {signal.SIGINT.name}", error=True)
        os._exit(128 + signal.SIGINT)
    line = limits.explain(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
        return
    terminal.print_error(line)
    sys.stdout.flush()
    os._exit(2)  # an exception's exit code is 1


def _watch_over_a_child() -> None:
    """Go on in a child. Libraries in C abort where they get no memory, and only another process can then say why."""
    watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    orderly = mmap.mmap(-1, 1)  # shared: whether Python came to its own end
    parent, child = os.getppid(), os.fork()
    if not child:
        atexit.register(orderly.write, b"1")
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with suppress(OSError, AttributeError):  # let C++ abort without a word: the line below says more than its two
            ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(ctypes.CDLL(None).abort)
        return
    received = set()
    while not (ended := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG)):
        if got := signal.sigtimedwait(watched, 1):
            received.add(got.si_signo)
        if os.getppid() != parent or received & {signal.SIGTERM, signal.SIGHUP}:  # Ctrl-C comes to both
            os.kill(child, signal.SIGTERM)
            received -= {signal.SIGTERM, signal.SIGHUP}
    code = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
    # OpenBLAS ends the process with 1 where it gets no memory, and sends Ctrl-C where it can't start its threads.
    by_library = (code == 1 and not orderly[0]) or (code == 128 + signal.SIGINT and signal.SIGINT not in received)
    if code - 128 in ABORTED or by_library:
        terminal.print_error(limits.shortage("memory"))
        code = 2
    os._exit(code)
