"""One of several processes that train, and its line to the others."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from surefoot.base import terminal
from surefoot.run.processes.wanted import TIMEOUT, seconds_to_wait
from surefoot.training.sharded.transport import Group

LOST = 75  # exit code of a process that lost the others: all are started again
SECONDS_TO_TELL = 5  # for those that wait for a hung one to say so


class Member:
    """This process among those that train."""

    def __init__(self) -> None:
        self._seconds = seconds_to_wait()
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        # What is told, and lies on the CPU, goes by gloo also where GPUs train.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_initialized() else "gloo"
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        _end_with_launcher(speaks=self.rank == 0)
        with self.talking():
            limit = timedelta(seconds=self._seconds)
            self.store = dist.TCPStore(*place, is_master=False, timeout=limit)  # type: ignore[attr-defined]
            self.store.set(f"pid {self.rank}", str(os.getpid()))
            group = dist.PrefixStore("group", self.store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=group, rank=self.rank, world_size=self.size, timeout=limit)
        self.transport = Group(self.talking)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Surrounds whatever waits for another process; where that is gone, or hangs, this one ends."""
        try:
            yield
        except (RuntimeError, dist.DistError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> NoReturn:
        """End, as another process doesn't answer: it is gone, which the launcher sees, or it hangs."""
        text = str(error).lower()
        if "timed out" in text or "timeout" in text:
            for line in self._who_hangs():
                terminal.print_lines(line, error=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(LOST)

    def _who_hangs(self) -> list[str]:
        """What to say of those that don't wait as this process does; nothing where another says it."""
        try:
            self.store.set(f"waits {self.rank}", "")
            end = time.monotonic() + min(SECONDS_TO_TELL, self._seconds)
            others = range(self.size)
            while time.monotonic() < end and (missing := [r for r in others if not self.store.check([f"waits {r}"])]):
                time.sleep(0.05)
            first = next(rank for rank in others if rank not in missing)
            if first != self.rank:
                time.sleep(0.5)  # the first of those that wait speaks before it ends, and with it all
                return []
            return [self._end_hung(rank) for rank in missing]
        except (RuntimeError, dist.DistError):  # the launcher is gone, too
            return []

    def _end_hung(self, rank: int) -> str:
        """End another process, if it came so far that its id is known; returns what to say."""
        which = f"process {rank + 1} of {self.size}"
        if self.store.check([f"pid {rank}"]):
            pid = int(self.store.get(f"pid {rank}"))
            which += f" (pid {pid})"
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"{which} didn't answer within {self._seconds:g} s ({TIMEOUT}); it is ended"


def _end_with_launcher(speaks: bool) -> None:
    """See to it that this process ends when the launcher ends it or is gone.

    What it has stored is whole at any time. The one that speaks to the user says how the run ended.
    """

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(LOST)

    # By the system itself: Python would hear of it when what waits for another process returns.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not speaks:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
