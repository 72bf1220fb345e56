"""One of several processes that train, and its line to the others."""

import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from surefoot.base import limits
from surefoot.run.processes.endings import LOST, Hung
from surefoot.run.processes.wanted import RANK, seconds_to_wait
from surefoot.training.sharded.transport import Group

# In the store of a round: the origin of the run, and what that was in the round before.
ORIGIN, BEFORE = "origin", "origin before"
SIGNS = "signs of life"  # of the first process: how many it has shown
SECONDS_TO_LOOK = 0.5  # whether another has waited too long
SECONDS_TO_HEAR = 2  # that another has waited too long
SECONDS_TO_TELL = 5  # for those that wait for a hung one to say so


class Member:
    """This process among those that train."""

    def __init__(self) -> None:
        self._seconds, self._machine = seconds_to_wait(), os.environ["GROUP_RANK"]
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        # What is told, and lies on the CPU, goes by gloo also where GPUs train.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_initialized() else "gloo"
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        _end_with_launcher()
        self._waits = False
        self.store: Any = None
        with self.talking():
            limit = timedelta(seconds=self._seconds)
            self.store = dist.TCPStore(*place, is_master=False, timeout=limit)  # type: ignore[attr-defined]
            own = self.store.clone()
            self._ends = threading.Event()
            thread = threading.Thread(target=self._say_that_it_waits, args=(own,), daemon=True)
            thread.start()
            # A thread that returns from C++ while Python is taken down ends the process by SIGABRT.
            atexit.register(thread.join, SECONDS_TO_HEAR)
            atexit.register(self._ends.set)
            self.store.set(f"pid {self.rank}", json.dumps([self._machine, os.getpid()]))
            group = dist.PrefixStore("group", self.store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=group, rank=self.rank, world_size=self.size, timeout=limit)
        self.transport = Group(self.talking)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Surrounds whatever waits for another process; where that is gone, or hangs, this one ends."""
        self._waits = True
        try:
            yield
        except (RuntimeError, dist.DistError) as error:
            self._lose(error)
        finally:
            self._waits = False

    def wait_for(self, key: str) -> bytes:
        """What the first process writes to the store, which may take its time, as long as it shows signs of life."""
        with self.talking():
            signs = -1
            limit = timedelta(seconds=max(self._seconds, 4 * SECONDS_TO_LOOK))  # in which several signs are shown
            while True:
                try:
                    self.store.wait([key], limit)
                    return bytes(self.store.get(key))
                except (RuntimeError, dist.DistError) as error:
                    before, signs = signs, self.store.add(SIGNS, 0)
                    if not _is_late(error) or signs == before:
                        raise

    def _say_that_it_waits(self, store: Any) -> None:
        """Where another process has waited too long, say that this one waits, too: what it waits in may not return.
        Until then the first process shows that it lives, whatever else it does.
        """
        with suppress(RuntimeError, dist.DistError):  # the store is gone, and soon this process is
            while not (store.check(["late"]) and self._waits):
                if self.rank == 0:
                    store.add(SIGNS, 1)
                if self._ends.wait(SECONDS_TO_LOOK):
                    return
            store.set(f"waits {self.rank}", "")

    def _lose(self, error: Exception) -> NoReturn:
        """End, as another process doesn't answer: it is gone, which the launcher sees, or it hangs."""
        if self.store is None:  # all were ended while this one started
            os._exit(LOST)
        with suppress(RuntimeError, dist.DistError):  # nothing is told, or the first machine's launcher is gone, too
            if _is_late(error):
                self.store.set("late", "")
            else:  # one that has waited too long closes its connections, before it tells
                self.store.wait(["late"], timedelta(seconds=SECONDS_TO_HEAR))
            self._tell_who_hangs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(LOST)

    def _tell_who_hangs(self) -> None:
        """End those of this machine that don't wait as this process does; the first that comes here tells of all."""
        self.store.set(f"waits {self.rank}", "")
        tells = self.store.add("tellers", 1) == 1
        end = time.monotonic() + min(SECONDS_TO_TELL, self._seconds)
        others = range(self.size)
        while (missing := [r for r in others if not self.store.check([f"waits {r}"])]) and time.monotonic() < end:
            time.sleep(0.05)
        # Each by its machine and its id, if it came so far that these are known.
        hung = {rank: self._process(rank) for rank in missing}
        if tells:
            told = Hung(seconds=self._seconds, processes=[(rank, pid) for rank, (_, pid) in hung.items()])
            self.store.set("hung", told.model_dump_json())
        # As soon as one has ended, its launcher ends the others of the machine.
        self.store.wait(["hung"], timedelta(seconds=SECONDS_TO_TELL))
        for machine, pid in hung.values():
            if machine == self._machine and pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _process(self, rank: int) -> tuple[str | None, int | None]:
        """The machine and the id of a process."""
        if not self.store.check([f"pid {rank}"]):
            return None, None
        machine, pid = json.loads(self.store.get(f"pid {rank}"))
        return machine, pid


def _is_late(error: Exception) -> bool:
    """Whether what was waited for didn't come in time; else the connection to it is lost."""
    text = str(error).lower()
    return "timed out" in text or "timeout" in text


def _end_with_launcher() -> None:
    """See to it that this process ends when the launcher ends it or is gone.

    What it has stored is whole at any time. The one that speaks to the user says how the run ended.
    """

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(LOST)

    # By the system itself: Python would hear of it when what waits for another process returns.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # It may have gone while this process imported. Where memory is limited another one is between (`begin_process`).
    parent = int(os.environ[RANK]) if limits.memory_limit() is None else os.getppid()
    threading.Thread(target=watch, args=(parent,), daemon=True).start()
