"""start_from: the model that training starts from (`train.start_from`), looked up before anything is prepared."""

from surefoot.base import errors, paths, terminal, writing
from surefoot.params.params_yaml import load_params
from surefoot.run.find_start import find_start
from surefoot.run.start_from import KEY
from surefoot.run.trajectory_store import TrajectoryStore


def main() -> None:
    """Write `data/start_from/`."""
    params = load_params(paths.PARAMS)
    found = find_start(params, TrajectoryStore(paths.trajectory_store()))
    with writing.new_directory(paths.START_FROM) as out:
        for name, data in found.contents().items():
            writing.write_bytes(out / name, data)
    if found.weights is not None:
        terminal.print_lines(
            f"{KEY}: {params.train.start_from}: {found.note.name} (weights {str(found.note.weights)[:12]})"
        )
        if found.preparation is None and not params.prepare.refit:
            terminal.print_lines("how its inputs were prepared isn't known, so the preparation is fitted anew")
    elif params.train.start_from is None:  # of `previous` without a model train tells
        terminal.print_lines(f"{KEY}: no model, so training starts from fresh weights")


if __name__ == "__main__":
    errors.run_process(main)
