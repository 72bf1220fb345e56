"""This machine is the first of those that train, or the only one."""

from collections.abc import Callable

from surefoot.base import paths
from surefoot.params.sections import Params
from surefoot.run.processes.addresses import LOOPBACK, talk_by
from surefoot.run.processes.first_machine import FirstMachine
from surefoot.run.processes.launch import launch
from surefoot.run.processes.machines import Machines
from surefoot.run.processes.same_work import describe_work
from surefoot.run.processes.wanted import Place
from surefoot.run.trajectory_store import TrajectoryStore


def lead_run(
    params: Params,
    params_file: bytes,
    processes: int,
    machines: tuple[int, int],
    place: Place | None,
    check: Callable[[], None],
) -> None:
    """Train by processes of this machine, and of others that join; ends this process as the first of them ends.

    Args:
        params: of the run.
        params_file: what stands in params.yaml.
        processes: of this machine.
        machines: how many there are at least, and at most.
        place: where others find this one; None: nothing listens but on loopback. Otherwise numerics must be pinned.
        check: called all the time; raises where there is a reason to stop.

    Raises:
        Stopped: by a signal.
        UserError: a process died again and again; nothing can listen at the place; too few machines have joined.
    """
    progress = TrajectoryStore(paths.trajectory_store()).count_records
    work = describe_work(params) if place else None
    others = Machines(place, machines, processes, params.train.shards, work, progress)
    talk_by(place.host if place else LOOPBACK)
    with FirstMachine(others, check, progress) as meeting:
        launch(meeting, processes, params.device, params_file, check)
