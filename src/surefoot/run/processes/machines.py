"""The other machines, as the first one knows them: who joins, who is refused, who has left or is gone."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from surefoot.base import terminal
from surefoot.base.documents import Kind, Malformed, parse_document
from surefoot.base.errors import UserError
from surefoot.run.processes.addresses import listen_for_machines
from surefoot.run.processes.endings import how_it_left
from surefoot.run.processes.meeting import SECONDS_SILENT, SILENT_LOOKS, FirstLine, JoinAnswer, JoinRequest, Line, pause
from surefoot.run.processes.same_work import Work, what_differs
from surefoot.run.processes.wanted import JOIN_TIMEOUT, NODES, PROCESSES, Place, seconds_to_join, too_many

MOST_JOINS = 64  # that are looked at together, whatever the store says
SECONDS_TO_END_ALL = 90  # for the processes of a machine; the agent waits for 30 before it kills one that hangs


@dataclass
class OtherMachine:
    """Another machine: its key in the store; its number, address and processes; how far the run was when it joined."""

    key: str
    number: int
    address: str
    processes: int
    joined_at: int
    line: Line
    unchanged: int = 0  # looks in a row
    last_round: int = 0  # that it had part in

    @property
    def name(self) -> str:
        """What it is called."""
        return f"machine {self.number} ({self.address})"

    @property
    def waits(self) -> bool:
        """Whether it waits for the next round."""
        return self.line.after == self.last_round


class Machines:
    """The machines that have joined this one.

    Args:
        place: where they find it; None: none can join.
        counts: how many machines there are at least, and at most, with this one.
        processes: of this machine.
        shards: of a minibatch, at least one for each process.
        work: what must be the same on all; None where there is no place.
        progress: how far the run is.
    """

    def __init__(
        self,
        place: Place | None,
        counts: tuple[int, int],
        processes: int,
        shards: int,
        work: Work | None,
        progress: Callable[[], int],
    ) -> None:
        self.place, (self._least, self._most), self.processes, self._shards = place, counts, processes, shards
        self._work, self._progress = work, progress
        self.here: list[OtherMachine] = []
        self.taking_part: list[OtherMachine] = []  # in the round
        self.lost: list[str] = []  # what is to be said of those that had part in the round, and are no more
        self._said = FirstLine()
        self._asking: dict[str, int] = {}  # for how many looks, by key
        self._asked, self._numbers, self._looks = 0, 1, 0
        self._store: Any = None
        if place:
            listening = listen_for_machines(place)
            self._store = dist.TCPStore(  # type: ignore[attr-defined]
                *place, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
            )
        self.say()

    def say(self, **news: Any) -> None:
        """Say something to all."""
        self._said = self._said.model_copy(update=news)
        if self._store is not None:
            self._store.set("first", self._said.model_dump_json())

    def look(self) -> None:
        """Hear what the others say."""
        if self._store is None:
            return
        self._looks += 1
        joins = min(self._store.add("joins", 0), self._asked + MOST_JOINS)
        self._asking |= {str(number): 0 for number in range(self._asked + 1, joins + 1)}
        self._asked = max(joins, self._asked)
        for key in list(self._asking):
            self._hear_join(key)
        for machine in list(self.here):
            self._hear(machine)

    def begin_round(self, number: int, port: int) -> int:
        """Those that wait take part; returns how many processes there are.

        Args:
            number: of the round.
            port: of its store.
        """
        self.taking_part, size = [machine for machine in self.here if machine.waits], self.processes
        ranks: dict[str, tuple[int, int]] = {}
        for machine in self.taking_part:
            ranks[machine.key] = len(ranks) + 1, size
            size += machine.processes
            machine.last_round = number
        self.lost = []
        self.say(round=number, ended=False, port=port, ranks=ranks, size=size)
        return size

    def want_another_round(self) -> bool:
        """Whether all are to be started again: a machine is lost, or its processes are; or one more is there, and a
        state was stored since it came.
        """
        self.look()
        if self.lost or any(machine.waits and machine.line.codes for machine in self.taking_part):
            return True
        new = [machine for machine in self.here if machine.waits and machine not in self.taking_part]
        if not new or self._looks % 10:  # counting what is stored takes a while
            return False
        progress = self._progress()
        return any(progress > machine.joined_at for machine in new)

    def end_round(self, check: Callable[[], None]) -> None:
        """Wait until all that take part have ended their processes; one that doesn't in time is lost."""
        self.say(ended=True)
        end = time.monotonic() + SECONDS_TO_END_ALL
        while busy := [machine for machine in self.taking_part if not machine.waits]:
            check()
            pause()
            self.look()
            if time.monotonic() > end:
                for machine in busy:
                    self._lose(machine, f"didn't end its processes within {SECONDS_TO_END_ALL} s")

    def wait_for_least(self, check: Callable[[], None]) -> None:
        """Wait until there are as many machines as are needed at least.

        Raises:
            UserError: they don't come.
        """
        seconds = seconds_to_join()
        end, told = time.monotonic() + seconds, 0
        while missing := max(0, self._least - 1 - sum(machine.waits for machine in self.here)):
            if missing != told:
                told = missing
                machines = "a machine" if missing == 1 else f"{missing} machines"
                terminal.print_lines(f"waiting for {machines} to join, by: surefoot join {self.place}")
            if time.monotonic() > end:
                raise UserError(
                    f"of the {self._least} machines that are needed ({NODES}) {missing} didn't join within"
                    f" {seconds:g} s ({JOIN_TIMEOUT}); what was trained is kept"
                )
            check()
            pause()
            self.look()

    def say_goodbye(self, code: int) -> None:
        """Say that the run is over, and wait until the others know."""
        self.say(over=code)
        for _ in range(SILENT_LOOKS):
            self.look()
            if not self.here and not self._asking:
                return
            pause()

    def _hear(self, machine: OtherMachine) -> None:
        line = self._read(Line, f"line {machine.key}") or machine.line
        machine.unchanged = machine.unchanged + 1 if line.beat == machine.line.beat else 0
        machine.line = line
        if machine.line.left is not None:
            over = self._said.over is not None
            self._lose(machine, "" if over else f"has left: {how_it_left(machine.line.left)}")
        elif machine.unchanged > SILENT_LOOKS:
            self._lose(machine, f"is gone: nothing was heard of it for {SECONDS_SILENT} s")

    def _lose(self, machine: OtherMachine, how: str) -> None:
        self._answer(machine.key, struck=True)
        self.here.remove(machine)
        if machine in self.taking_part:
            self.taking_part.remove(machine)
            self.lost.append(f"{machine.name} {how}")
        elif how:
            terminal.print_lines(f"{machine.name} {how}", error=True)

    def _hear_join(self, key: str) -> None:
        """Answer one that asks to join, if it can be told by now."""
        self._asking[key] += 1
        request, line = self._read(JoinRequest, f"request {key}"), self._read(Line, f"line {key}")
        if request is None or line is None:
            self._hear_nothing(key)
            return
        if line.left is not None:
            del self._asking[key]
        if line.left is not None or self._said.over is not None:
            return
        assert self._work
        differing = what_differs(request.work, self._work)
        no_room = "" if differing else self._no_room(request.processes)
        if no_room and self._asking[key] <= SILENT_LOOKS + 10:  # one that is gone may make room
            return
        del self._asking[key]
        if differing:
            why = "; ".join(f"{name} ({how})" for name, how in differing.items())
            self._refuse(key, request.address, why, list(differing))
        elif no_room:
            self._refuse(key, request.address, no_room, [])
        else:
            self._admit(key, request, line)

    def _hear_nothing(self, key: str) -> None:
        """One that joins doesn't say who it is, or not so that it is understood here."""
        if self._asking[key] <= SILENT_LOOKS:
            return
        del self._asking[key]
        if self._store.check([f"request {key}", f"line {key}"]):
            why = "what the machine says of itself isn't understood: are both clones at the same commit?"
            self._refuse(key, "address unknown", why, [])
        else:  # it is gone, or stood still
            self._answer(key, struck=True)

    def _read(self, kind: type[Kind], key: str) -> Kind | None:
        """What another machine wrote; None where it wrote nothing, or nothing that makes sense."""
        if self._store.check([key]):
            with suppress(Malformed):
                return parse_document(kind, self._store.get(key))
        return None

    def _no_room(self, processes: int) -> str:
        """Why there is no room for one more machine with so many processes."""
        if len(self.here) + 1 >= self._most:
            return f"the run has all machines that it takes: {self._most} ({NODES} on the first machine)"
        others = self.processes + sum(machine.processes for machine in self.here)
        if others + processes > self._shards:
            what = f"{PROCESSES}: {others + processes} processes, of which the other machines have {others},"
            return too_many(what, others + processes, self._shards)
        return ""

    def _refuse(self, key: str, address: str, why: str, names: list[str]) -> None:
        before = "the first machine trains something else, or computes otherwise: " if names else ""
        self._answer(key, refused=f"{before}{why}")
        terminal.print_lines(
            f"a machine was refused ({address}): " + (f"it differs in {terminal.first_few(names)}" if names else why),
            error=True,
        )

    def _admit(self, key: str, request: JoinRequest, line: Line) -> None:
        self._numbers += 1
        processes = request.processes
        machine = OtherMachine(key, self._numbers, request.address, processes, self._progress(), line)
        self.here.append(machine)
        self._answer(key, number=machine.number)
        count = f"{processes} process{'es' * (processes > 1)}"
        later = "; it takes part when the next state is stored" if self._said.round and not self._said.ended else ""
        terminal.print_lines(f"{machine.name} has joined, with {count}{later}")

    def _answer(self, key: str, **answer: Any) -> None:
        self._store.set(f"answer {key}", JoinAnswer(**answer).model_dump_json())
