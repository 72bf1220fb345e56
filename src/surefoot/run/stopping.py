"""Reasons to stop a training before its end."""

import os
import signal
import time
from collections.abc import Callable

from surefoot.base import terminal
from surefoot.base.errors import Stopped


class TimeIsUp(Exception):
    """`train.max_minutes` is over."""


class Pruned(Exception):
    """A trial of a search isn't worth its other epochs, and why."""


def parent_check() -> Callable[[], None]:
    """Stops a training whose DVC was killed: `dvc repro` would start a second one beside it."""
    parent = os.getppid() if "DVC_STAGE" in os.environ else None

    def check() -> None:
        if parent and os.getppid() != parent:
            terminal.print_lines("the dvc process that started this training is gone", error=True)
            raise Stopped(signal.SIGHUP)

    return check


def time_check(minutes: float | None) -> Callable[[], None]:
    """Stops a training when its time is up, which runs from the first step on."""
    end: float | None = None

    def check() -> None:
        nonlocal end
        if minutes and end is None:
            end = time.monotonic() + 60 * minutes
        elif end is not None and time.monotonic() > end:
            raise TimeIsUp

    return check
