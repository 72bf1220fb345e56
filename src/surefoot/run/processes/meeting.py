"""Where the machines of a training meet: which processes each starts, and when.

The first machine has a store (torch's TCPStore), in which each machine writes a line of its own and reads what the
first one says. Nobody's clock matters: who is gone is seen by a line that doesn't change. Each start of all processes
is a round, for which the first machine makes another store, in which the processes meet.
"""

import signal
import time
from abc import abstractmethod
from types import TracebackType
from typing import Self

from pydantic import Field
from torch.distributed.elastic.agent.server.api import WorkerState
from torch.distributed.elastic.rendezvous import RendezvousHandler

from surefoot.base.documents import Count, Document, Positive
from surefoot.run.processes.endings import exit_code_of
from surefoot.run.processes.same_work import Work

SECONDS_SILENT = 10  # after which a machine is taken for gone
PAUSE = 0.1  # seconds between two looks at what others say
SILENT_LOOKS = int(SECONDS_SILENT / PAUSE)


class JoinRequest(Document):
    """What a machine that asks to join says of itself."""

    work: Work
    processes: Positive
    address: str


class Line(Document):
    """What a machine says to the first one."""

    beat: Count = 0
    """Another number each time that it says something."""
    after: int | None = None
    """It waits for the round after this one; None while its processes work. 0: it was in none yet."""
    codes: list[tuple[int, int]] = Field(default=[])
    """Rank and exit code of its processes that ended; none where all have done what there was to do."""
    left: int | None = None
    """It has left the others, with this exit code."""


class JoinAnswer(Document):
    """What the first machine answers to one that joins."""

    number: Count = 0
    """It is taken, and has this number."""
    refused: str = ""
    """It isn't, and why."""
    struck: bool = False
    """Nothing was heard of it for too long: it may join again."""


class FirstLine(Document):
    """What the first machine says to all."""

    round: int = 0
    ended: bool = False
    """All processes of the round are to end."""
    port: int = 0
    """Of the round's store."""
    ranks: dict[str, tuple[int, int]] = Field(default={})
    """The machine's number in the round, and its first process's, of each other machine that takes part."""
    size: int = 1
    """How many processes there are in the round."""
    over: int | None = None
    """The run is over, with this exit code."""


class Meeting(RendezvousHandler):
    """What torchrun's agent asks for the processes to start; `with` it, the others learn how this machine ends."""

    first_rank, size = 0, 1  # of this machine's processes, and how many there are of all

    @abstractmethod
    def ended(self, codes: dict[int, int]) -> WorkerState:
        """This machine's processes have ended.

        Args:
            codes: rank and exit code of those that didn't end well.

        Returns what the agent is to make of it: SUCCEEDED where the run is over, FAILED where there is another round.
        """

    @abstractmethod
    def leave(self, code: int) -> None:
        """This machine ends, with this exit code."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):  # a second signal must not interrupt what the first one began
            signal.signal(number, signal.SIG_IGN)
        self.leave(exit_code_of(error))

    def get_backend(self) -> str:
        """Its name."""
        return "surefoot"

    def get_run_id(self) -> str:
        """There is one."""
        return "surefoot"

    def is_closed(self) -> bool:
        """That is told in other ways."""
        return False

    def set_closed(self) -> None:
        """Nothing to do."""

    def shutdown(self) -> bool:
        """Nothing to do."""
        return True

    @property
    def use_agent_store(self) -> bool:
        """The processes meet in the store that the agent has."""
        return True


def pause() -> None:
    """Until the next look at what the others say."""
    time.sleep(PAUSE)
