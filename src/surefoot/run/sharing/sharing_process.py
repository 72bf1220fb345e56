"""The process that brings to the shared store what a stage trains, while it trains (`start_sharing`).

What is to be brought is noted in the local store; a line on standard input says that there is something new. It ends
when the stage hangs up, however that ended, and all is brought, or the shared store can't be reached.
"""

import os
import select
import signal
import time
from contextlib import suppress

from surefoot.base import paths, terminal
from surefoot.base.errors import UserError
from surefoot.base.object_store import Unavailable, open_object_store
from surefoot.base.wording import without_password
from surefoot.run.sharing.bring import bring_noted
from surefoot.run.sharing.shared_store import notes_of
from surefoot.run.trajectory_store import TrajectoryStore

SECONDS_BETWEEN_TRIES = 30.0
NEWS, TOLD = b"new\n", b"told\n"  # something is noted; the stage has said that the shared store can't be reached


def follow_training(url: str) -> None:
    """Bring what is noted, until the stage hangs up.

    Raises:
        UserError: the URL can't be opened.
    """
    local = paths.trajectory_store()
    store, notes, objects = TrajectoryStore(local), notes_of(local, url), open_object_store(url)
    next_try, told, hung_up = 0.0, False, False
    while not hung_up:
        heard = _hear(next_try)
        told, hung_up = told or TOLD in heard, heard == b""
        if time.monotonic() < next_try and not hung_up:
            continue
        try:
            next_try = 0.0
            bring_noted(objects, store, notes)
        except Unavailable as error:
            next_try = time.monotonic() + SECONDS_BETWEEN_TRIES
            if not told:
                told = True
                terminal.warn(f"{objects.url} takes nothing: {error}; what is trained stays in {local} meanwhile")


def _hear(until: float) -> bytes:
    """What the stage says, if only that it hung up; waits for that, or until the time to try again."""
    readable, _, _ = select.select([0], [], [], max(0.0, until - time.monotonic()) if until else None)
    return os.read(0, 1 << 16) if readable else NEWS


def main() -> None:
    """Follow the stage at the other end of standard input."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # where all processes get one, the stage says what is to be done
    terminal.protect()
    try:
        follow_training(paths.shared_store() or "")
    except (UserError, BrokenPipeError):  # the stage has said so; or nobody reads any more
        pass
    except Exception as error:
        with suppress(OSError):
            terminal.warn(f"what is trained isn't shared: {type(error).__name__}: {without_password(str(error))}")
    finally:
        os._exit(0)  # Python's own end would wait for what a server holds up
