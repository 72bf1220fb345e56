"""The process that brings to the shared store what a stage trains, as the stage sees it: the training hands over a note
and a byte, and waits at its end.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from surefoot.base import limits, paths, terminal
from surefoot.base.errors import Stopped
from surefoot.base.object_store import BYTES, SECONDS
from surefoot.base.wording import without_password
from surefoot.run.sharing.shared_store import SharedStore, noted, unshared
from surefoot.run.sharing.sharing_process import NEWS, TOLD
from surefoot.run.start_tracking import helper_command
from surefoot.run.trajectory_store import TrajectoryStore

SECONDS_UNSAID = 3.0  # that it waits without a word
SECONDS_IF_STOPPED = 10.0  # whoever stops a stage waits for it no longer than that, or a little more


@contextmanager
def sharing(store: TrajectoryStore) -> Iterator[None]:
    """Let other machines have what is trained in the block, where the store has a side that they share."""
    shared = store.shared
    if shared is None:
        yield
        return
    process = _start(shared)
    seconds = None
    try:
        yield
    except Stopped:
        seconds = SECONDS_IF_STOPPED
        raise
    finally:
        _finish(process, shared, store, seconds)


def _start(shared: SharedStore) -> "subprocess.Popen[bytes] | None":
    try:
        process = subprocess.Popen(
            helper_command("surefoot.run.sharing.sharing_process"), stdin=subprocess.PIPE, process_group=0
        )
    except OSError as error:
        terminal.warn(f"the process that shares what is trained can't be started: {limits.system_reason(error)}")
        return None
    assert process.stdin
    descriptor = process.stdin.fileno()
    os.set_blocking(descriptor, False)
    os.register_at_fork(after_in_child=process.stdin.close)  # it hangs up with the stage, whoever else is left

    def say(line: bytes = NEWS) -> None:
        with suppress(OSError):  # it has many unread; or it is gone, as will be seen in the end
            os.write(descriptor, line)

    shared.wake = say
    say(TOLD if shared.told else NEWS)  # something may be left over from before
    return process


def _finish(
    process: "subprocess.Popen[bytes] | None", shared: SharedStore, store: TrajectoryStore, seconds: float | None
) -> None:
    """Wait until all is brought, for so many seconds or as long as it may take, and say what wasn't.

    Where the stage was stopped the process goes on by itself; else it ends.
    """
    shared.wake = lambda: None
    url = without_password(shared.url)
    if process:
        assert process.stdin
        process.stdin.close()
        bound = SECONDS + _size(store, shared) / BYTES if seconds is None else seconds
        ended = _ends(process, min(bound, SECONDS_UNSAID))
        if not ended and bound > SECONDS_UNSAID:
            lacking = unshared(store.path, shared.url)
            terminal.print_lines(f"waiting until {url} has {lacking or 'all'}, {bound:.0f} s at most")
            ended = _ends(process, bound - SECONDS_UNSAID)
        if not ended and seconds is None:
            process.kill()
            process.wait()
    left = unshared(store.path, shared.url)
    if left:
        terminal.print_lines(
            f"{url} lacks {left}, kept in {paths.from_here(store.path)}: the next training, or"
            " `surefoot sync`, brings them",
            kind="note",
        )


def _ends(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether it ends within so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return True
    return False


def _size(store: TrajectoryStore, shared: SharedStore) -> int:
    """The bytes that are to be brought."""
    sizes, names = store.state_sizes(), noted(shared.notes)
    return sum(sizes.get(name.partition("/")[2].removesuffix(".safetensors"), 0) for name in names)
