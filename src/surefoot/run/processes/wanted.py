"""How many processes and machines train, as the environment says: it is no part of a run."""

import os
from pathlib import Path
from typing import NamedTuple

from surefoot.base.errors import UserError

PROCESSES = "SUREFOOT_PROCESSES"
NODES = "SUREFOOT_NODES"
RENDEZVOUS = "SUREFOOT_RENDEZVOUS"
TIMEOUT, JOIN_TIMEOUT = "SUREFOOT_TIMEOUT", "SUREFOOT_JOIN_TIMEOUT"
RANK = "SUREFOOT_RANK_OF"  # set for those that were launched: by which process
PARAMS = "SUREFOOT_PARAMS_OF"  # set for them, too: where params.yaml lies as the launcher read it


class Place(NamedTuple):
    """Where machines meet: an address of the first one, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def wanted_processes(shards: int, threads: int) -> int:
    """How many processes are to train on this machine.

    Args:
        shards: of a minibatch: there can't be more processes.
        threads: of each.

    Raises:
        UserError: it is no number; or there are more than shards.
    """
    given = os.environ.get(PROCESSES, "1").strip() or "1"
    if given == "auto":
        free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(shards, free // threads))
    if not (count := _number(given)):
        raise UserError(f"{PROCESSES}: a number of processes is needed, or auto; got {given!r}")
    if count > shards:
        raise UserError(too_many(f"{PROCESSES}: {given} processes", count, shards))
    return count


def wanted_machines() -> tuple[int, int]:
    """How many machines are to train at least, and at most, this one among them.

    Raises:
        UserError: it is neither a number nor two.
    """
    given = os.environ.get(NODES, "1").strip() or "1"
    least, _, most = given.partition(":")
    numbers = _number(least), _number(most or least)
    if given.endswith(":") or not 1 <= numbers[0] <= numbers[1]:
        raise UserError(f"{NODES}: a number of machines is needed, or the least and the most, as 1:2; got {given!r}")
    return numbers


def wanted_place(machines: int) -> Place | None:
    """Where other machines are to find this one; None where there are none.

    Args:
        machines: how many there may be.

    Raises:
        UserError: it isn't said, though there may be several, or it is though there is one; it is no address with a
        port.
    """
    given = os.environ.get(RENDEZVOUS, "").strip()
    if given and machines == 1:
        raise UserError(f"{RENDEZVOUS} is where several machines meet; say by {NODES} how many, as {NODES}=2")
    if not given and machines > 1:
        raise UserError(
            f"{RENDEZVOUS}: an address of this machine and a free port are needed, by which the others find it, as"
            f" {RENDEZVOUS}=10.0.0.1:29400"
        )
    return read_place(RENDEZVOUS, given) if given else None


def check_machines(machines: tuple[int, int], processes: int, shards: int) -> None:
    """See whether so many machines can train, at least and at most, this one with so many processes.

    Raises:
        UserError: there are more processes than shards; a time-out is no number of seconds.
    """
    # With one shard nothing is shared, and what a shard draws isn't what is drawn without shards.
    count = 2 if shards == 1 else machines[0]
    if (least := processes + count - 1) > shards:
        raise UserError(too_many(f"{NODES}: {least} processes on {count} machines", least, shards))
    seconds_to_wait()  # refused here, not by each
    seconds_to_join()


def read_place(name: str, given: str) -> Place:
    """`HOST:PORT`, or `[ADDRESS]:PORT` where the address has colons itself; `name` says in an error what it is.

    Raises:
        UserError: it is none.
    """
    host, _, port = given.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not 0 < _number(port) < 1 << 16:
        raise UserError(f"{name}: HOST:PORT is needed, as 10.0.0.1:29400; got {given!r}")
    return Place(bare, int(port))


def _number(text: str) -> int:
    """A positive number of at most nine digits; 0 where it is none."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def too_many(what: str, processes: int, shards: int) -> str:
    """Why so many processes can't train: what there would be, and what helps."""
    return (
        f"{what} can't share the {shards} shard{'s' * (shards > 1)} of a minibatch; set train.shards to {processes} or"
        " more, which makes another run of it, or take fewer processes"
    )


def seconds_to_wait(name: str = TIMEOUT, unset: str = "300") -> float:
    """How long a process waits for another before it takes that for hung; or a machine for others to join.

    Raises:
        UserError: it is no number of seconds.
    """
    given = os.environ.get(name, unset)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise UserError(f"{name}: a number of seconds is needed, got {given!r}")
    return seconds


def seconds_to_join() -> float:
    """How long the first machine waits for others, and another one for the first.

    Raises:
        UserError: it is no number of seconds.
    """
    return seconds_to_wait(JOIN_TIMEOUT, "600")


def silence_torch() -> None:
    """Let torch's C++ say nothing of processes that are gone, which is told in our words: call this before it is
    imported.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def is_asked() -> bool:
    """Whether the environment says anything of it."""
    return any(name in os.environ for name in (PROCESSES, NODES, RENDEZVOUS, RANK))


def is_launched() -> bool:
    """Whether this is one of several processes that were launched to train."""
    return RANK in os.environ


def params_file() -> Path:
    """The params of one that was launched, as they were when the launcher began, whatever was edited since."""
    return Path(os.environ[PARAMS])


def rank() -> int:
    """This process's number among those that were launched."""
    return int(os.environ["RANK"])
