"""Train some epochs of a run anew, from the states before them: what `surefoot verify --epochs` runs at a run's commit.

    python -m surefoot.commands.retrain A-B STORE [A-B STORE ...]

Each STORE is a trajectory store that holds the state before epoch A, and then those up to B. `origin.json` in it says
what was determined. If the key of the state before A is another one here, nothing is trained.
"""

import sys
from pathlib import Path

from surefoot.base import errors, paths, terminal, writing
from surefoot.data.batch_store import open_store
from surefoot.run.pinned_params import load_and_pin


def main() -> None:
    """Read `params.yaml` and `data/batches/`; write to the stores."""
    params = load_and_pin()
    from surefoot.run.plan.planning import plan_run
    from surefoot.run.trajectory_store import TrajectoryStore

    plan = plan_run(params, open_store(paths.BATCHES))
    for epochs, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        first, last = map(int, epochs.split("-"))
        store = TrajectoryStore(Path(path))
        with plan.chain(store, keep_states=last) as chain:
            for reached in chain.follow(first, last):
                terminal.print_lines(f"epoch {reached.record.epoch} trained again ({reached.record.seconds:.2f} s)")
        writing.write_json(Path(path) / "origin.json", plan.origin)


if __name__ == "__main__":
    errors.run_process(main)
