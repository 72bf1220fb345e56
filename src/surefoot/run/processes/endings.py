"""How processes that train end, and what is said of it."""

import signal
from collections.abc import Mapping, Sequence

from surefoot.base import limits
from surefoot.base.documents import Document, Number
from surefoot.base.errors import Stopped, UserError

LOST = 75  # exit code of a process that lost the others: all are started again
TRIES = 3  # starts in a row that bring the run no further


class Hung(Document):
    """What processes tell of those that they waited for in vain."""

    seconds: Number
    processes: list[tuple[int, int | None]]
    """Rank and id of each; one that never came has no id."""


def is_final(code: int) -> bool:
    """Whether a process that ended so would end so again."""
    return 0 < code <= 128 + signal.SIGINT and code != LOST


def how_they_ended(codes: Mapping[int, int], processes: int, machines: Sequence[str]) -> str:
    """How processes ended; those that did because others had aren't told of.

    Args:
        codes: of those that did, by rank.
        processes: of the run.
        machines: names of the machines that they were on, by rank.
    """
    several = len(set(machines)) > 1
    first = {rank: code for rank, code in codes.items() if code not in (LOST, -signal.SIGTERM)} or codes
    return ", ".join(
        f"process {rank + 1} of {processes}{f' on {machines[rank]}' if several else ''} "
        + (f"was ended by {_signal_of(code)}" if code != LOST else "lost another")
        for rank, code in sorted(first.items())
    )


def how_it_left(code: int) -> str:
    """How a machine left the others, by the exit code of what it ran."""
    return f"stopped by {_signal_of(code)}" if code > 128 else f"exit code {code}"


def exit_code_of(error: BaseException | None) -> int:
    """The exit code of a process that ends by this, as `run_process` has it."""
    match error:
        case None:
            return 0
        case Stopped():
            return 128 + error.signum
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case UserError():
            return 2
        case Exception() if limits.explain(error):
            return 2
    return 1


def _signal_of(code: int) -> str:
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
