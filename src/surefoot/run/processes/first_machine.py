"""The first machine: it has the run and the first process, and says when all processes begin."""

from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.agent.server.api import WorkerState
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo

from surefoot.base import terminal
from surefoot.base.documents import Malformed, parse_document
from surefoot.base.errors import UserError
from surefoot.run.processes.addresses import LOOPBACK, listen_at
from surefoot.run.processes.endings import TRIES, Hung, how_they_ended
from surefoot.run.processes.machines import Machines
from surefoot.run.processes.meeting import Meeting
from surefoot.run.processes.member import BEFORE, ORIGIN
from surefoot.run.processes.wanted import TIMEOUT


class FirstMachine(Meeting):
    """The meeting as its host sees it.

    Args:
        machines: the others.
        check: raises where there is a reason to stop.
        progress: how far the run is: a number that grows with what is stored.
    """

    def __init__(self, machines: Machines, check: Callable[[], None], progress: Callable[[], int]) -> None:
        self._machines, self._check, self._progress = machines, check, progress
        self._address = machines.place.host if machines.place else LOOPBACK
        self._round = 0
        self._store: Any = None
        self._names: list[str] = []  # of the machine that each process of the round is on, by rank
        self._codes: dict[int, int] = {}  # of this machine's processes that have ended
        self._origin = b""  # of the run, as the first process of the first round said
        self._reached, self._fruitless = progress(), 0

    def next_rendezvous(self) -> RendezvousInfo:
        """End the round, if there was one; begin the next. Each has a store of its own.

        Raises:
            UserError: the last ones brought the run no further; too few machines have joined.
        """
        if self._round:
            self._end_round()
        self._machines.wait_for_least(self._check)
        listening = listen_at(self._address)
        port = listening.getsockname()[1]
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            self._address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        if self._origin:
            self._store.set(BEFORE, self._origin)
        self._round, self._codes = self._round + 1, {}
        self.size = self._machines.begin_round(self._round, port)
        self._names = ["machine 1"] * self._machines.processes
        for machine in self._machines.taking_part:
            self._names += [machine.name] * machine.processes
        machines = 1 + len(self._machines.taking_part)
        return RendezvousInfo(self._store, 0, machines, RendezvousStoreInfo(self._address, port))

    def num_nodes_waiting(self) -> int:
        """Whether there is a reason for another round."""
        self._check()
        return int(self._machines.want_another_round())

    def ended(self, codes: dict[int, int]) -> WorkerState:
        """As `Meeting.ended`."""
        self._codes = codes
        return WorkerState.FAILED if codes else WorkerState.SUCCEEDED

    def leave(self, code: int) -> None:
        """As `Meeting.leave`."""
        self._machines.say_goodbye(code)

    def _end_round(self) -> None:
        """See all processes end, and say why; or that it is of no use to start them again."""
        machines = self._machines
        taking_part = list(machines.taking_part)
        machines.end_round(self._check)
        named = dict(enumerate(self._names))
        codes = dict(self._codes)
        for machine in taking_part:
            codes |= {rank: code for rank, code in machine.line.codes if named.get(rank) == machine.name}
        hung = list(self._hung())
        if self._store.check([ORIGIN]):
            self._origin = self._store.get(ORIGIN)
        if not (codes or machines.lost or hung):
            terminal.print_lines("all processes are started again, with those of another machine, from the last state")
            return
        why = ", ".join(machines.lost or hung) or how_they_ended(codes, self.size, self._names)
        reached = self._progress()
        self._fruitless = 0 if reached > self._reached else self._fruitless + 1
        self._reached = reached
        if self._fruitless >= TRIES:
            raise UserError(
                f"{why}, {TRIES} times in a row without a new state; what was trained is kept",
                "if memory is short take fewer processes; states come more often by train.checkpoint_every",
            )
        ended = "; it is ended" if hung and not machines.lost else ""
        terminal.print_lines(f"{why}{ended}; all are started again, and go on from the last state", error=True)

    def _hung(self) -> Iterator[str]:
        """What the processes say of those that hung."""
        if not self._store.check(["hung"]):
            return
        try:
            hung = parse_document(Hung, self._store.get("hung"))
        except Malformed:
            return
        for rank, pid in hung.processes:
            if not 0 <= rank < self.size:
                continue
            about = [self._names[rank]] if len(set(self._names)) > 1 else []
            about += [f"pid {pid}"] if pid else []
            which = f"process {rank + 1} of {self.size}" + (f" ({', '.join(about)})" if about else "")
            yield f"{which} didn't answer within {hung.seconds:g} s ({TIMEOUT})"
