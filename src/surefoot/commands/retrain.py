"""Train some epochs of a run anew, from the states before them: what `surefoot verify --epochs` runs at a run's commit.

    python -m surefoot.commands.retrain A-B STORE [A-B STORE ...]

Each STORE is a trajectory store that holds the state before epoch A, and then those up to B. `origin.json` in it says
what was determined. If the key of the state before A is another one here, nothing is trained.
"""

import sys
from pathlib import Path

from surefoot.base import errors, paths, terminal, writing
from surefoot.data.batch_store import open_store
from surefoot.params.reading import load
from surefoot.run import planning
from surefoot.training import numerics


def main() -> None:
    """Read `params.yaml` and `data/batches/`; write to the stores."""
    params = load(paths.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    from surefoot.run.trajectory_store import TrajectoryStore

    batches = open_store(paths.BATCHES)
    plan = planning.plan(params, batches)
    for epochs, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        first, last = map(int, epochs.split("-"))
        store = TrajectoryStore(Path(path))
        with planning.chain(params, batches, plan, store, keep_states=last) as chain:
            for reached in chain.follow(first, last):
                terminal.print_lines(
                    f"epoch {reached.record['epoch']} trained again ({reached.record['seconds']:.2f} s)"
                )
        writing.write_json(Path(path) / "origin.json", plan.origin)


if __name__ == "__main__":
    errors.run_process(main)
