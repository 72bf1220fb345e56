"""A machine joins a run that another one has."""

import os
import sys
from typing import NoReturn

from surefoot.base import terminal
from surefoot.params.sections import Params
from surefoot.run.processes.addresses import talk_by
from surefoot.run.processes.endings import LOST
from surefoot.run.processes.joined_machine import FirstMachineGone, JoinedMachine, reach
from surefoot.run.processes.launch import launch
from surefoot.run.processes.meeting import JoinRequest
from surefoot.run.processes.same_work import check_batches, describe_work
from surefoot.run.processes.wanted import Place, wanted_processes


def join_run(params: Params, params_file: bytes, place: Place) -> None:
    """Train along until the run is over; ends this process as the run ends. Numerics must be pinned.

    Args:
        params: of this machine.
        params_file: what stands in params.yaml.
        place: of the first one.

    Raises:
        UserError: there is no run; it refuses this machine; the batches here are damaged.
    """
    processes = wanted_processes(params.train.shards, params.threads)
    work = describe_work(params)
    check_batches()
    address = reach(place)
    talk_by(address)
    try:
        with JoinedMachine(place, JoinRequest(work=work, processes=processes, address=address)) as meeting:
            meeting.join()
            if meeting.over is None:
                launch(meeting, processes, params.device, params_file)
    except FirstMachineGone as gone:
        if gone.was_heard:
            _end_now(f"the first machine, at {place}, is gone", LOST)
        _end_now(f"what listens at {place} doesn't answer as a run of this commit does", 2)
    if meeting.over:
        terminal.print_lines(f"the run has ended on the first machine, with exit code {meeting.over}", error=True)
        sys.exit(meeting.over)
    terminal.print_lines("the run is over")


def _end_now(why: str, code: int) -> NoReturn:
    """End this process, of which a thread may wait for an answer that never comes."""
    terminal.print_error(why)
    sys.stdout.flush()
    os._exit(code)
