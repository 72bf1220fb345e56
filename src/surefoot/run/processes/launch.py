"""Starts the processes that train, by torchrun's agent, and all of them again when one dies."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from surefoot.base import terminal
from surefoot.base.errors import Stopped, UserError
from surefoot.run.processes.member import LOST
from surefoot.run.processes.wanted import RANK

TRIES = 3  # starts in a row that bring the run no further
SECONDS_TO_STOP = 30  # for the processes, when the user ends the run
ADDRESS = "127.0.0.1"


class OneMachine(RendezvousHandler):
    """The processes of one machine: no other can join, and nothing listens but on loopback."""

    def next_rendezvous(self) -> RendezvousInfo:
        """A new store for each start."""
        listening = socket.create_server((ADDRESS, 0))
        port = listening.getsockname()[1]
        store = dist.TCPStore(  # type: ignore[attr-defined]
            ADDRESS, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(ADDRESS, port))

    def get_backend(self) -> str:
        """Its name."""
        return "one machine"

    def get_run_id(self) -> str:
        """There is one."""
        return "surefoot"

    def is_closed(self) -> bool:
        """Never."""
        return False

    def set_closed(self) -> None:
        """Nothing to do."""

    def num_nodes_waiting(self) -> int:
        """None."""
        return 0

    def shutdown(self) -> bool:
        """Nothing to do."""
        return True

    @property
    def use_agent_store(self) -> bool:
        """The processes meet in the store that the agent has."""
        return True


class Agent(LocalElasticAgent):
    """Starts all processes again where one died, as long as that brings the run further.

    Args:
        spec: what to start.
        logs: where what they write goes.
        check: raises where there is a reason to stop.
        progress: how far the run is.
    """

    def __init__(
        self, spec: WorkerSpec, logs: DefaultLogsSpecs, check: Callable[[], None], progress: Callable[[], int]
    ) -> None:
        super().__init__(spec, logs)
        self._check, self._progress = check, progress
        self._reached, self._fruitless = progress(), 0

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._check()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            codes = {rank: failure.exitcode for rank, failure in sorted(result.failures.items())}
            reached = self._progress()
            self._fruitless = 0 if reached > self._reached else self._fruitless + 1
            self._reached = reached
            if any(_is_final(code) for code in codes.values()) or self._fruitless >= TRIES:
                self._remaining_restarts = 0
            else:
                again = "; all are started again, and go on from the last state"
                terminal.print_lines(f"{how_they_ended(codes, len(worker_group.workers))}{again}", error=True)
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGINT, timeout: int = SECONDS_TO_STOP) -> None:  # noqa: ARG002
        # Those that are to be started again were sent SIGTERM, and have ended at once. Here the user ends the run, or
        # DVC is gone: the first process says so to MLflow.
        super()._shutdown(signal.SIGINT, timeout)


def launch(processes: int, device: str, check: Callable[[], None], progress: Callable[[], int]) -> None:
    """Train by so many processes of this machine; ends this process as the first of them ends.

    Args:
        processes: so many.
        device: what trains; each process has a GPU of its own.
        check: called all the time; raises where there is a reason to stop.
        progress: how far the run is: a number that grows with what is stored.

    Raises:
        Stopped: by a signal.
        UserError: one died again and again.
    """
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it tells is told below, in fewer words
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a process that is gone is told of below
    os.environ[RANK] = str(processes)
    with tempfile.TemporaryDirectory(prefix="surefoot-") as directory:
        spec = WorkerSpec(
            role="surefoot",
            local_world_size=processes,
            rdzv_handler=OneMachine(),
            entrypoint=sys.executable,
            args=("-m", "surefoot.stages.train"),
            max_restarts=1_000_000,
            monitor_interval=0.1,
            virtual_local_rank=device == "cuda",
        )
        agent = Agent(spec, DefaultLogsSpecs(log_dir=directory), check, progress)
        try:
            result = agent.run()
        except SignalException as error:
            raise Stopped(error.sigval) from None
    codes = {rank: failure.exitcode for rank, failure in sorted(result.failures.items())}
    if not codes:
        return
    if final := [code for code in codes.values() if _is_final(code)]:
        sys.stdout.flush()
        sys.exit(final[0])
    raise UserError(
        f"{how_they_ended(codes, processes)}, {TRIES} times in a row without a new state; what was trained is kept",
        "if memory is short take fewer processes; states come more often by train.checkpoint_every",
    )


def how_they_ended(codes: dict[int, int], processes: int) -> str:
    """How processes ended, by rank; those that did because others had aren't told of."""
    first = {rank: code for rank, code in codes.items() if code not in (LOST, -signal.SIGTERM)} or codes
    return ", ".join(
        f"process {rank + 1} of {processes} " + (f"was ended by {_signal_of(code)}" if code != LOST else "lost another")
        for rank, code in first.items()
    )


def _is_final(code: int) -> bool:
    """Whether a process that ended so would end so again."""
    return 0 < code <= 128 + signal.SIGINT and code != LOST


def _signal_of(code: int) -> Any:
    return signal.Signals(-code if code < 0 else code - 128).name
