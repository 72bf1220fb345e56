"""train: minibatch SGD from the batch store to the chosen model, by one process or several."""

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from surefoot.base import errors, paths, terminal
from surefoot.run.processes import wanted
from surefoot.run.start_tracking import start_tracking
from surefoot.run.stopping import parent_check

if TYPE_CHECKING:
    from surefoot.run.record import Record


def main(judge: "Callable[[Record], str | None]" = lambda record: None) -> None:
    """Read `data/batches/`; write the chosen model and the history; bring the run to MLflow.

    Args:
        judge: of a search; looks at each epoch in turn, and gives the reason why the trial is pruned after it, or None.

    Raises:
        Pruned: for that reason.
    """
    check_parent = parent_check()  # before the imports, which take seconds
    with start_tracking() as tracking:  # and so that its own take place beside these
        from surefoot.params.params_yaml import load_params
        from surefoot.run.pinned_params import pin_by

        params = load_params(wanted.params_file() if wanted.is_launched() else paths.PARAMS)
        terminal.print_lines(f"training {params.train.model.factory}")
        pin_by(params)
        from surefoot.run.processes.leader import joined_group
        from surefoot.run.train_run import train_run

        with joined_group() as leader:
            train_run(params, leader, tracking, check_parent, judge)


def main_of_processes() -> None:
    """As `main`; by several processes where the environment says so, of which this may be one."""
    if not wanted.is_asked():
        main()
    elif not wanted.is_launched():
        _launch()
    elif wanted.rank() == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the launcher blocks it until here
            main()
        except errors.Stopped as stopped:  # the launcher says so
            sys.exit(128 + stopped.signum)
    else:
        for number in (signal.SIGTERM, signal.SIGINT):  # the launcher says so
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        from surefoot.run.pinned_params import load_and_pin

        params = load_and_pin(wanted.params_file())
        from surefoot.run.processes.follower import follow_leader

        follow_leader(params)


def _launch() -> None:
    """Start the processes that the environment asks for, if there are to be several, here or on other machines."""
    check_parent = parent_check()
    from surefoot.params.params_yaml import load_params

    params, params_file = load_params(paths.PARAMS), paths.PARAMS.read_bytes()
    processes, machines = wanted.wanted_processes(params.train.shards, params.threads), wanted.wanted_machines()
    place = wanted.wanted_place(machines[1])
    if processes == machines[1] == 1:
        main()
        return
    wanted.check_machines(machines, processes, params.train.shards)
    wanted.silence_torch()
    if place:
        from surefoot.run.pinned_params import pin_by

        pin_by(params)
    from surefoot.run.processes.lead import lead_run

    lead_run(params, params_file, processes, machines, place, check_parent)


if __name__ == "__main__":
    errors.run_process(main_of_processes)
