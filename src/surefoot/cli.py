"""`surefoot <command>`: all commands, beside the stages, which `dvc repro` runs."""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from surefoot.base import errors, installation, paths, terminal
from surefoot.base.errors import UserError
from surefoot.commands.options import OPTIONS

COMMANDS = {  # by name: the module in `surefoot.commands`, imported when it is called, and what it does
    "init": (
        "init.command",
        "put a pipeline into a Git repository of yours: for data that --data names, or with digits as an example",
    ),
    "check": (
        "check",
        "check params.yaml, and add to it and to dvc.yaml what DVC must find there; says nothing if all is right",
    ),
    "upgrade": (
        "upgrade",
        "bring dvc.yaml and params.yaml of a repository of yours to the installed version; shows what changes first",
    ),
    "ui": (
        "ui",
        "serve the MLflow UI on 127.0.0.1, and open it on the latest comparison: a sweep's runs, or the latest 20",
    ),
    "run": (
        "run",
        "`dvc repro` for a batch job: here, or in a checkout of its own; a signal ends it at the last state",
    ),
    "store": ("store", "list the runs in the trajectory store, their sizes and what they share; free space"),
    "sync": ("sync", "bring to MLflow what it lacks of the runs, as after an outage of the server"),
    "schedule": ("schedule", "draw the learning rate over the steps, before anything is trained"),
    "lr-find": ("lr_find", "find a learning rate: train a few steps with one that rises until the loss explodes"),
    "verify": (
        "verify.command",
        "make a run again, elsewhere, and compare bits; exit code 0: identical, 1: differs, 3: cannot say",
    ),
    "compare": (
        "compare",
        "show runs side by side: params that differ, metrics with intervals, and a picture of their curves",
    ),
    "join": (
        "join",
        "train along in a run that another machine has, at HOST:PORT; exit code 75: that machine is gone",
    ),
    "predict": ("predict.command", "write predictions beside the rows of a file, as CSV or Parquet"),
    "search": (
        "search.command",
        "search params with Optuna: seeded, pruned, resumable, each trial a run in MLflow",
    ),
    "fingerprint": (
        "fingerprint",
        "print the numerics fingerprint: machines that share it compute the same bits",
    ),
    "schema": ("schema", "print the JSON schema of params.yaml, or its reference as Markdown"),
}


class Parser(argparse.ArgumentParser):
    """Its errors repeat what was given, as text."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message; exit code 2."""
        terminal.print_lines(*self.format_usage().splitlines(), f"{self.prog}: error: {message}", error=True)
        sys.exit(2)


def main() -> None:
    """Entry point of the `surefoot` command."""
    errors.begin_process()
    errors.run_process(_call)


def _call() -> None:
    parser = Parser(
        prog="surefoot",
        description="Minibatch SGD whose every number can be made again. The pipeline itself runs by `dvc repro`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    called = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        for names, settings in OPTIONS.get(name, []):
            command.add_argument(*names, **settings)
        command.set_defaults(module=module)
    given = vars(parser.parse_args())
    if called != "init" and not paths.PARAMS.is_file():
        raise UserError(
            f"there is no {paths.PARAMS} here; run surefoot in the directory that has it, the repository's root"
        )
    if installation.is_installed():  # in a clone src is on the path; a stage has both by `python -m` and PYTHONPATH
        sys.path[:0] = [str(Path.cwd()), str(Path("src").absolute())]
    import_module(f"surefoot.commands.{given.pop('module')}").main(**given)
