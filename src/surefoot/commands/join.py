"""`surefoot join`: train along in a run that another machine has."""

from surefoot.base import paths
from surefoot.params.params_yaml import load_params
from surefoot.run.pinned_params import pin_by
from surefoot.run.processes import wanted


def main(address: str) -> None:
    """Train along until the run is over, by as many processes as SUREFOOT_PROCESSES says (default: 1).

    Raises:
        UserError: there is no run; it is of another commit, other params or data, or this machine rounds otherwise; it
        has all machines or processes that it takes.
    """
    place, params = wanted.read_place("HOST:PORT", address), load_params(paths.PARAMS)
    params_file = paths.PARAMS.read_bytes()
    wanted.seconds_to_wait()  # refused here, not by each process
    wanted.seconds_to_join()
    wanted.wanted_processes(params.train.shards, params.threads)
    wanted.silence_torch()
    pin_by(params)
    from surefoot.run.processes.join import join_run

    join_run(params, params_file, place)
