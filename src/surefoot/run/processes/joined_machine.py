"""A machine that joins the first one: it is told which processes to start, and when."""

import socket
import time
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.agent.server.api import WorkerState
from torch.distributed.elastic.rendezvous import RendezvousGracefulExitError, RendezvousInfo, RendezvousStoreInfo

from surefoot.base import terminal
from surefoot.base.documents import parse_document
from surefoot.base.errors import UserError
from surefoot.run.processes.addresses import no_host
from surefoot.run.processes.meeting import (
    SECONDS_SILENT,
    SILENT_LOOKS,
    FirstLine,
    JoinAnswer,
    JoinRequest,
    Line,
    Meeting,
    pause,
)
from surefoot.run.processes.wanted import JOIN_TIMEOUT, Place, seconds_to_join

SECONDS_A_BEAT = 0.5
SECONDS_TO_LEAVE = 5


class FirstMachineGone(Exception):
    """Nothing is heard of the first machine any more; or it never was."""

    def __init__(self, was_heard: bool) -> None:
        super().__init__()
        self.was_heard = was_heard


class JoinedMachine(Meeting):
    """The meeting as another machine sees it.

    Args:
        place: where the first one is.
        request: what this one says of itself.
    """

    def __init__(self, place: Place, request: JoinRequest) -> None:
        self._place, self._request = place, request
        self._processes = request.processes
        self._round = 0
        self.over: int | None = None  # the exit code of the run, once it has ended
        self._letters = _Letters(place, request)
        self._heard = self._unchanged = 0

    def join(self) -> None:
        """Ask to join.

        Raises:
            FirstMachineGone: it is.
            UserError: this machine is refused.
        """
        self._letters.start()
        while True:
            first = self._look()
            if first and first.over is not None:
                return
            if why := self._letters.answer.refused:
                raise UserError(why)
            if number := self._letters.answer.number:
                processes = f"{self._processes} process{'es' * (self._processes > 1)}"
                terminal.print_lines(f"joined {self._place} as machine {number}, with {processes}")
                return
            pause()

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for a round in which this machine takes part.

        Raises:
            RendezvousGracefulExitError: the run is over.
        """
        self._letters.say(after=self._round)
        while True:
            first = self._look()
            if first and first.over is not None:
                raise RendezvousGracefulExitError
            if first and first.round > self._round and self._letters.key in first.ranks:
                break
            pause()
        self._round, self.size = first.round, first.size
        number, self.first_rank = first.ranks[self._letters.key]
        self._letters.say(after=None, codes=[])
        last = self.first_rank + self._processes
        which = f"process {last}" if self._processes == 1 else f"processes {self.first_rank + 1} to {last}"
        terminal.print_lines(f"training: {which} of {first.size}")
        # The agent asks for a store, of which it has no use here.
        place = RendezvousStoreInfo(self._place.host, first.port)
        return RendezvousInfo(dist.HashStore(), number, 1 + len(first.ranks), place)  # type: ignore[attr-defined]

    def num_nodes_waiting(self) -> int:
        """Whether all processes are to be started again, or the run is over."""
        first = self._look()
        return int(first is None or first.over is not None or first.round != self._round or first.ended)

    def ended(self, codes: dict[int, int]) -> WorkerState:
        """As `Meeting.ended`: whether the run is over, the first machine knows."""
        self._letters.say(codes=list(codes.items()))
        return WorkerState.FAILED

    def leave(self, code: int) -> None:
        """As `Meeting.leave`."""
        self._letters.say(left=code)
        if self._letters.is_alive():
            self._letters.join(SECONDS_TO_LEAVE)

    def _look(self) -> FirstLine | None:
        """What the first machine says; None where it has said nothing yet.

        Raises:
            FirstMachineGone: nothing is heard of it.
        """
        letters = self._letters
        if letters.first and letters.first.over is not None:
            self.over = letters.first.over
            return letters.first
        self._unchanged = self._unchanged + 1 if letters.heard == self._heard else 0
        self._heard = letters.heard
        if letters.broken or self._unchanged > SILENT_LOOKS:
            raise FirstMachineGone(letters.heard > 0)
        if letters.answer.struck:  # this machine stood still, and was taken for gone
            letters.say(left=0)
            self._letters, self._round = _Letters(self._place, self._request), 0
            self.join()
            self._letters.say(after=0)
            return None
        return letters.first


class _Letters(Thread):
    """Writes this machine's line to the first one, and reads what that says, whatever else goes on here.

    Attributes:
        key: of this machine, in the store.
        first: the first machine's line.
        answer: its answer to this one.
        heard: how often anything was heard of it.
        broken: nothing will be heard of it any more.
    """

    def __init__(self, place: Place, request: JoinRequest) -> None:
        super().__init__(daemon=True)
        self._place, self._request = place, request
        self._line, self._news = Line(), Event()
        self.key, self.heard, self.broken = "", 0, False
        self.first: FirstLine | None = None
        self.answer = JoinAnswer()

    def say(self, **news: Any) -> None:
        """Change this machine's line."""
        self._line = self._line.model_copy(update=news)
        self._news.set()

    def run(self) -> None:
        """Until it has left."""
        try:
            self._write()
        except (RuntimeError, dist.DistError, ValueError, TypeError):
            self.broken = True

    def _write(self) -> None:
        limit = timedelta(seconds=SECONDS_SILENT)
        store = dist.TCPStore(*self._place, is_master=False, wait_for_workers=False, timeout=limit)  # type: ignore[attr-defined]
        self.key = key = str(store.add("joins", 1))
        store.set(f"request {key}", self._request.model_dump_json())
        while True:
            self._news.clear()
            line = self._line
            store.set(f"line {key}", line.model_copy(update={"beat": self.heard}).model_dump_json())
            self.first = parse_document(FirstLine, store.get("first"))
            if store.check([f"answer {key}"]):
                self.answer = parse_document(JoinAnswer, store.get(f"answer {key}"))
            self.heard += 1
            if line.left is not None:
                return
            self._news.wait(SECONDS_A_BEAT)


def reach(place: Place) -> str:
    """Wait until something listens at a place; returns the address of this machine that it is reached from.

    Raises:
        UserError: nothing does; there is no such host.
    """
    seconds = seconds_to_join()
    end, told = time.monotonic() + seconds, False
    while True:
        try:
            with socket.create_connection(place, timeout=SECONDS_SILENT) as connection:
                return str(connection.getsockname()[0])
        except (socket.gaierror, UnicodeError) as error:
            raise UserError(f"{place.host}: {no_host(error)}") from None
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"no run was found at {place} within {seconds:g} s ({JOIN_TIMEOUT}): {error.strerror or error};"
                    " it may be over, or not begun"
                ) from None
        if not told:
            told = True
            terminal.print_lines(f"waiting for the first machine, at {place}")
        time.sleep(SECONDS_A_BEAT)
