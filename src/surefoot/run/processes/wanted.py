"""How many processes train, as the environment says: it is no part of a run."""

import os

from surefoot.base.errors import UserError

PROCESSES = "SUREFOOT_PROCESSES"
TIMEOUT = "SUREFOOT_TIMEOUT"
RANK = "SUREFOOT_RANK_OF"  # set for those that were launched


def wanted_processes(shards: int, threads: int) -> int:
    """How many processes are to train.

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
    if not given.isdecimal() or not int(given):
        raise UserError(f"{PROCESSES}: a number of processes is needed, or auto; got {given!r}")
    if int(given) > shards:
        raise UserError(
            f"{PROCESSES}: {given} processes can't share the {shards} shard{'s' * (shards > 1)} of a minibatch; set"
            f" train.shards to {given} or more, which makes another run of it, or take fewer processes"
        )
    return int(given)


def seconds_to_wait() -> float:
    """How long a process waits for another before it takes that for hung.

    Raises:
        UserError: it is no number of seconds.
    """
    given = os.environ.get(TIMEOUT, "300")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise UserError(f"{TIMEOUT}: a number of seconds is needed, got {given!r}")
    return seconds


def is_asked() -> bool:
    """Whether the environment says anything of it."""
    return PROCESSES in os.environ


def is_launched() -> bool:
    """Whether this is one of several processes that were launched to train."""
    return RANK in os.environ


def rank() -> int:
    """This process's number among those that were launched."""
    return int(os.environ["RANK"])
