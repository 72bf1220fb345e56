"""Starts the processes that train, by torchrun's agent, and all of them again when one dies."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.agent.server.api import RunResult, Worker, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from surefoot.base.errors import Stopped
from surefoot.base.job_control import stopping_together
from surefoot.run.processes.endings import is_final
from surefoot.run.processes.meeting import Meeting
from surefoot.run.processes.wanted import PARAMS, RANK

SECONDS_TO_STOP = 30  # for the processes, when the user ends the run
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # each ends the run
SECONDS_TO_END = 5  # for those that are to be started again


class Agent(LocalElasticAgent):
    """Starts the processes of this machine as the meeting says.

    Args:
        spec: what to start.
        logs: where what they write goes.
        meeting: of the machines.
        params_file: what stands in params.yaml.
        check: raises where there is a reason to stop.
    """

    def __init__(
        self, spec: WorkerSpec, logs: DefaultLogsSpecs, meeting: Meeting, params_file: bytes, check: Callable[[], None]
    ) -> None:
        super().__init__(spec, logs)
        self._meeting, self._params_file, self._check = meeting, params_file, check
        self._starting, self._heard = False, 0

    def _assign_worker_ranks(self, _store: object, _rank: int, _size: int, spec: WorkerSpec) -> list[Worker]:
        # The agent would ask the other machines, and wait for one that is gone.
        first, size = self._meeting.first_rank, self._meeting.size
        return [Worker(n, first + n, first + n, size, size) for n in range(spec.local_world_size)]

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, str]:
        path = Path(os.environ[PARAMS])
        path.parent.mkdir(exist_ok=True)  # in a training of weeks somebody may clean up /tmp
        path.write_bytes(self._params_file)
        self._starting = True
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for them: until they can end by it
        started: dict[int, str] = super()._start_workers(worker_group)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._starting = False
        if self._heard:
            raise Stopped(self._heard)
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._check()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state in (WorkerState.FAILED, WorkerState.SUCCEEDED):
            codes = {rank: failure.exitcode for rank, failure in result.failures.items()}
            result.state = self._meeting.ended(codes)
            if any(map(is_final, codes.values())):
                self._remaining_restarts = 0
        return result

    def _stop_workers(self, _group: WorkerGroup) -> None:
        # They are to be started again. What they have stored is whole at any time, so they end at once.
        super()._shutdown(signal.SIGTERM, SECONDS_TO_END)

    def _shutdown(self, _signal: signal.Signals = signal.SIGINT, timeout: int = SECONDS_TO_STOP) -> None:
        # The user ends the run, or DVC is gone: the first process says so to MLflow. Others have nothing to say.
        super()._shutdown(signal.SIGTERM if self._meeting.first_rank else signal.SIGINT, timeout)

    def stop_or_go_on(self, stop: bool) -> None:
        """Stop the processes of this machine, or let them go on; each has a session of its own."""
        for worker in self._worker_group.workers:
            with suppress(ProcessLookupError, TypeError):  # it has ended, or not begun
                os.killpg(worker.id, signal.SIGSTOP if stop else signal.SIGCONT)

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """End the run by a signal; while processes are started only when all are known, so that none is left behind."""
        for another in SIGNALS:  # must not interrupt the clean-up; those that are started don't inherit a function
            signal.signal(another, lambda *_: None)
        self._heard = number
        if not self._starting:
            raise Stopped(number)

    def _exit_barrier(self) -> None:
        """The meeting says how the run ends."""


def launch(
    meeting: Meeting,
    processes: int,
    device: str,
    params_file: bytes,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Train by so many processes of this machine; ends this process as the first of them ends.

    Args:
        meeting: of the machines.
        processes: so many.
        device: what trains; each process has a GPU of its own.
        params_file: what stands in params.yaml, which may be edited meanwhile.
        check: called all the time; raises where there is a reason to stop.

    Raises:
        Stopped: by a signal.
        UserError: one died again and again; too few machines have joined.
    """
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it tells is told by us, in fewer words
    os.environ[RANK] = str(os.getpid())
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # it would raise between a process's start and its being known
    with tempfile.TemporaryDirectory(prefix="surefoot-") as directory:
        os.environ[PARAMS] = str(Path(directory) / "params.yaml")
        spec = WorkerSpec(
            role="surefoot",
            local_world_size=processes,
            rdzv_handler=meeting,
            entrypoint=sys.executable,
            args=("-m", "surefoot.stages.train"),
            max_restarts=1_000_000,
            monitor_interval=0.1,
            virtual_local_rank=device == "cuda",
        )
        agent = Agent(spec, DefaultLogsSpecs(log_dir=directory), meeting, params_file, check)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as whoever started this wants it
                signal.signal(number, agent.stop)
        with stopping_together(agent.stop_or_go_on):
            result = agent.run()
        codes = [failure.exitcode for _, failure in sorted(result.failures.items())] if result else []
        if final := [code for code in codes if is_final(code)]:
            sys.stdout.flush()
            sys.exit(final[0])
