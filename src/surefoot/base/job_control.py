"""Ctrl-Z, where this process has started others that the terminal doesn't reach: they stop and go on with this one."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping_together(tell: Callable[[bool], None]) -> Iterator[None]:
    """In the block Ctrl-Z stops this process and others.

    Args:
        tell: stops the others, given True; lets them go on, given False.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        tell(True)
        os.kill(os.getpid(), signal.SIGSTOP)  # until `fg` or `bg`
        tell(False)

    before = signal.signal(signal.SIGTSTP, stop)
    if before == signal.SIG_IGN:  # as whoever started this wants it
        signal.signal(signal.SIGTSTP, before)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
