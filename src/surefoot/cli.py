"""`surefoot <command>`: what there is beside the stages, which `dvc repro` runs."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from surefoot.base import errors, paths, terminal
from surefoot.base.errors import UserError


class Parser(argparse.ArgumentParser):
    """Its errors repeat what was given, as text."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message; exit code 2."""
        terminal.say(*self.format_usage().splitlines(), f"{self.prog}: error: {message}", error=True)
        sys.exit(2)


def main() -> None:
    """Entry point of the `surefoot` command."""
    parser = Parser(
        prog="surefoot",
        description="Minibatch SGD whose every number can be made again. The pipeline itself runs by `dvc repro`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        for option, settings in OPTIONS.get(name, {}).items():
            sub.add_argument(option, **settings)
    arguments = parser.parse_args()
    errors.begin()
    errors.run(lambda: _at_root(arguments))


def _at_root(arguments: argparse.Namespace) -> None:
    if not paths.PARAMS.is_file():
        raise UserError(
            f"there is no {paths.PARAMS} here; run surefoot in the directory that has it, the repository's root"
        )
    arguments.command(arguments)


def check(_arguments: argparse.Namespace) -> None:
    """Check params.yaml; bring what DVC must know to it and to dvc.yaml."""
    from surefoot.commands import check_names
    from surefoot.params import dvc_yaml
    from surefoot.params.reading import load
    from surefoot.reproduction import provenance

    check_names.check(load(paths.PARAMS))
    for line in dvc_yaml.complete():
        terminal.say(line)
    if dvc_yaml.PIPELINE.is_file() and (why := provenance.trouble()):
        errors.say(
            "warning",
            "Git is out of reach, so a run would be recorded without its commit, and `surefoot verify` couldn't make"
            f" it again: {why}",
        )


def schema(arguments: argparse.Namespace) -> None:
    """Print the JSON schema of params.yaml, or its reference for people."""
    from surefoot.params.reference import json_schema, params_page

    terminal.say(
        *(params_page() if arguments.markdown else json.dumps(json_schema(), indent=2)).splitlines(), longest=100_000
    )


def fingerprint(_arguments: argparse.Namespace) -> None:
    """Print the numerics fingerprint of this machine."""
    from surefoot.params.reading import load
    from surefoot.training import numerics

    params = load(paths.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    terminal.say(numerics.fingerprint(params.device, params.train.precision))


def ui(arguments: argparse.Namespace) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    from surefoot.commands.ui import serve

    serve(arguments.port, browser=not arguments.no_browser)


def store(arguments: argparse.Namespace) -> None:
    """List, prune or forget what lies in the trajectory store."""
    from surefoot.commands.store import forget, prune, table, total
    from surefoot.run.trajectory_store import TrajectoryStore

    trajectories = TrajectoryStore(paths.trajectory())
    for run in arguments.forget or []:
        terminal.say(f"forgotten: {forget(trajectories, run)}")
    if arguments.prune:
        states, size = prune(trajectories)
        terminal.say(f"{states} states deleted, {size / 1e6:,.1f} MB freed")
    if not (arguments.prune or arguments.forget):
        terminal.say(*terminal.table(table(trajectories)), total(trajectories))


def sync(_arguments: argparse.Namespace) -> None:
    """Bring to MLflow what it lacks of the runs in the trajectory store."""
    from surefoot.commands.sync import sync

    sync()


def schedule(arguments: argparse.Namespace) -> None:
    """Draw the schedule."""
    from surefoot.commands.schedule import draw

    draw(arguments.out)


def lr_find(arguments: argparse.Namespace) -> None:
    """Find a learning rate by the range test."""
    from surefoot.commands.lr_find import find

    find(arguments.min, arguments.max, arguments.steps, arguments.out)


def verify(arguments: argparse.Namespace) -> None:
    """Make a run again and compare bits."""
    from surefoot.commands.verify.command import verify

    given = {name: getattr(arguments, name) for name in ("epochs", "sample", "anyway", "environment")}
    sys.exit(verify(arguments.run, **given, trusted=arguments.trust_recorded_code))


def compare(arguments: argparse.Namespace) -> None:
    """Show runs side by side."""
    from surefoot.commands import compare as compare_module

    if len(arguments.runs) < 2:
        raise UserError(
            "compare takes two runs or more: surefoot compare RUN RUN; RUN is an MLflow run's id or name, or a DVC"
            " experiment's name"
        )
    terminal.say(*compare_module.compare(arguments.runs, arguments.out))


def predict(arguments: argparse.Namespace) -> None:
    """Write predictions beside the rows of a file."""
    from surefoot.commands.predict import predict

    predict(Path(arguments.file), Path(arguments.out) if arguments.out else None, arguments.model, arguments.run)


def search(arguments: argparse.Namespace) -> None:
    """Search params with Optuna."""
    from surefoot.commands.search.command import search

    found = {name: getattr(arguments, name) for name in ("trials", "metric", "prune", "name", "seed")}
    search(arguments.set_param or [], **found, say=terminal.say)


A_RUN = "a run, by its id in MLflow or in `surefoot store`, the start of one, its name, or a DVC experiment's name"

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "ui": {
        "--port": {"type": int, "default": 5000, "help": "port on 127.0.0.1 (default: %(default)s)"},
        "--no-browser": {"action": "store_true", "help": "print the address alone"},
    },
    "store": {
        "--prune": {
            "action": "store_true",
            "help": "delete all states but the best and the last of each run, and the latest of an unfinished one",
        },
        "--forget": {
            "action": "append",
            "metavar": "RUN",
            "help": "forget a run, so that pruning frees its states, too; may be given several times",
        },
    },
}

OPTIONS["compare"] = {
    "runs": {"nargs": "+", "metavar": "RUN", "help": A_RUN},
    "--out": {
        "type": Path,
        "metavar": "FILE",
        "help": "where the picture of the curves goes (default: compare.png in .surefoot/)",
    },
}

OPTIONS["verify"] = {
    "run": {"nargs": "?", "metavar": "RUN", "help": f"{A_RUN} (default: this workspace's last run)"},
    "--epochs": {"metavar": "A-B", "help": "look at these epochs alone, from the stored state before A"},
    "--sample": {"type": int, "metavar": "N", "help": "look at N epochs drawn at random, in parallel processes"},
    "--anyway": {
        "action": "store_true",
        "help": "go on where this machine or its packages differ, and show how far the results do",
    },
    "--environment": {
        "action": "store_true",
        "help": "where the packages differ, build the recorded ones in a temporary environment; takes minutes",
    },
    "--trust-recorded-code": {
        "action": "store_true",
        "help": (
            "run code, too, that MLflow has and this repository's history doesn't: a run's uncommitted changes, a"
            " commit of no branch"
        ),
    },
}

OPTIONS["predict"] = {
    "file": {"metavar": "FILE", "help": "a file or directory of any format that prepare reads; it needs no target"},
    "--out": {"metavar": "FILE", "help": "where to write, .csv or .parquet (default: CSV to standard output)"},
    "--model": {
        "metavar": "MODEL",
        "help": "a safetensors file, or models:/NAME@ALIAS of MLflow (default: models/model.safetensors)",
    },
    "--run": {"metavar": "RUN", "help": f"use the model of {A_RUN}"},
}

OPTIONS["schedule"] = {
    "--out": {"type": Path, "metavar": "FILE", "help": "where to write the PNG (default: .surefoot/schedule.png)"}
}
OPTIONS["lr-find"] = {
    "--min": {
        "type": float,
        "default": 1e-6,
        "metavar": "LR",
        "help": "the learning rate of the first step (default: %(default)s)",
    },
    "--max": {
        "type": float,
        "default": 10.0,
        "metavar": "LR",
        "help": "that of the last step, if the loss doesn't explode before (default: %(default)s)",
    },
    "--steps": {
        "type": int,
        "metavar": "N",
        "help": "steps to take (default: 100, or ten times what the momentum remembers)",
    },
    "--out": {
        "type": Path,
        "metavar": "DIR",
        "help": "where to write lr-find.csv and lr-find.png (default: .surefoot/lr-find)",
    },
}

OPTIONS["search"] = {
    "-S": {
        "dest": "set_param",
        "action": "append",
        "metavar": "KEY=SPACE",
        "help": "a key and what it may be: log(low,high), uniform, int, choice(a,b)",
    },
    "--trials": {
        "type": int,
        "default": 20,
        "metavar": "N",
        "help": "how many, with those that are there already (default: %(default)s)",
    },
    "--metric": {
        "default": "validation/loss",
        "help": (
            "of an epoch: accuracies should rise, others fall; that of the kept model counts (default: %(default)s)"
        ),
    },
    "--prune": {
        "choices": ["median", "none"],
        "default": "median",
        "help": "end a trial that is worse than the median at an epoch (default: %(default)s)",
    },
    "--name": {"help": "of the search, in MLflow and to go on with it (default: made from what it is)"},
    "--seed": {"type": int, "default": 0, "help": "decides what is tried (default: %(default)s)"},
}
OPTIONS["schema"] = {
    "--markdown": {
        "action": "store_true",
        "help": "as the page docs/params.md: each key, what it takes, its default and meaning",
    }
}

COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {
    "check": (
        check,
        "check params.yaml, and add to it and to dvc.yaml what DVC must find there; says nothing if all is right",
    ),
    "ui": (
        ui,
        "serve the MLflow UI on 127.0.0.1, and open it on the latest comparison: a sweep's runs, or the latest 20",
    ),
    "store": (store, "list the runs in the trajectory store, their sizes and what they share; free space"),
    "sync": (sync, "bring to MLflow what it lacks of the runs, as after an outage of the server"),
    "schedule": (schedule, "draw the learning rate over the steps, before anything is trained"),
    "lr-find": (lr_find, "find a learning rate: train a few steps with one that rises until the loss explodes"),
    "verify": (
        verify,
        "make a run again, elsewhere, and compare bits; exit code 0: identical, 1: differs, 3: cannot say",
    ),
    "compare": (
        compare,
        "show runs side by side: params that differ, metrics with intervals, and a picture of their curves",
    ),
    "predict": (predict, "write predictions beside the rows of a file, as CSV or Parquet"),
    "search": (search, "search params with Optuna: seeded, pruned, resumable, each trial a run in MLflow"),
    "fingerprint": (fingerprint, "print the numerics fingerprint: machines that share it compute the same bits"),
    "schema": (schema, "print the JSON schema of params.yaml, or its reference as Markdown"),
}
