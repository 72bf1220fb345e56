"""`surefoot <command>`: what there is beside the stages, which `dvc repro` runs."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from surefoot import errors, files
from surefoot.errors import UserError


def main() -> None:
    """Entry point of the `surefoot` command."""
    parser = argparse.ArgumentParser(
        prog="surefoot", description="Minibatch SGD whose every number can be made again. The pipeline itself runs by `dvc repro`."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        for option, settings in OPTIONS.get(name, {}).items():
            sub.add_argument(option, **settings)
    arguments = parser.parse_args()
    errors.run(lambda: _at_root(arguments))


def _at_root(arguments: argparse.Namespace) -> None:
    if not files.PARAMS.is_file():
        raise UserError(f"there is no {files.PARAMS} here; run surefoot in the directory that has it, the repository's root")
    arguments.command(arguments)


def check(_arguments: argparse.Namespace) -> None:
    """Check params.yaml."""
    from surefoot.params import load

    load(files.PARAMS)


def schema(arguments: argparse.Namespace) -> None:
    """Print the JSON schema of params.yaml, or its reference for people."""
    from surefoot.params import json_schema
    from surefoot.reference import markdown

    print(markdown() if arguments.markdown else json.dumps(json_schema(), indent=2), end="" if arguments.markdown else "\n")


def fingerprint(_arguments: argparse.Namespace) -> None:
    """Print the numerics fingerprint of this machine."""
    from surefoot.params import load
    from surefoot.training import numerics

    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    print(numerics.fingerprint(params.device))


def ui(arguments: argparse.Namespace) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    from surefoot import tracking

    uri = tracking.configure()
    if uri.startswith(("http:", "https:", "databricks")):
        print(f"the runs are on the server at {uri}: open it in a browser")
        return
    if not 1 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: must be from 1 to 65535")
    # Without the workflow type MLflow opens its pages for language models.
    print(f"MLflow UI: http://127.0.0.1:{arguments.port}/#/experiments?workflowType=machine_learning  (Ctrl-C stops it)", flush=True)
    mlflow = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execv(
        sys.executable, [*mlflow, "--default-artifact-root", (files.root() / "mlartifacts").as_uri(), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    )


def store(arguments: argparse.Namespace) -> None:
    """List, prune or forget what lies in the trajectory store."""
    from surefoot import store_command
    from surefoot.training.trajectory_store import TrajectoryStore

    trajectories = TrajectoryStore(files.trajectory())
    for run in arguments.forget or []:
        print(f"forgotten: {store_command.forget(trajectories, run)}")
    if arguments.prune:
        states, size = store_command.prune(trajectories)
        print(f"{states} states deleted, {size / 1e6:,.1f} MB freed")
    if not (arguments.prune or arguments.forget):
        rows = store_command.table(trajectories)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(store_command.total(trajectories))


def sync(_arguments: argparse.Namespace) -> None:
    """Bring to MLflow what it lacks of the runs in the trajectory store."""
    from surefoot import runs
    from surefoot.params import load
    from surefoot.training import numerics
    from surefoot.training.trajectory_store import TrajectoryStore

    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    trajectories = TrajectoryStore(files.trajectory())
    locks = files.Locks(trajectories.path / "lock")
    # The shorter ones first: a longer one links to the one that it goes on from.
    for identity, run in sorted(trajectories.runs().items(), key=lambda item: len(item[1]["epoch_keys"])):
        name = run["description"]["name"]
        if not run["last"] or "chosen" not in run:
            print(f"unfinished, left as it is: {name}" if not run["last"] else f"of an older Surefoot, left as it is: {name}")
            continue
        tracker = runs.publish(identity, run, trajectories, locks)
        if tracker.run_id is None:
            raise UserError("MLflow can't be reached; nothing is lost: run `surefoot sync` again once it is back")
        print(f"up to date: {name} ({tracker.run_id})")


def verify(arguments: argparse.Namespace) -> None:
    """Make a run again and compare bits."""
    from surefoot.verification.command import verify

    sys.exit(verify(arguments.run, epochs=arguments.epochs, sample=arguments.sample, anyway=arguments.anyway, environment=arguments.environment))


def search(arguments: argparse.Namespace) -> None:
    """Search params with Optuna."""
    from surefoot.search.command import search

    found = {name: getattr(arguments, name) for name in ("trials", "metric", "prune", "name", "seed")}
    search(arguments.set_param or [], **found, say=lambda text: print(text, flush=True))


OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "ui": {"--port": {"type": int, "default": 5000, "help": "port on 127.0.0.1 (default: %(default)s)"}},
    "store": {
        "--prune": {"action": "store_true", "help": "delete all states but the best and the last of each run, and the latest of an unfinished one"},
        "--forget": {"action": "append", "metavar": "RUN", "help": "forget a run, so that pruning frees its states, too; may be given several times"},
    },
}

OPTIONS["verify"] = {
    "run": {"nargs": "?", "metavar": "RUN", "help": "an MLflow run's id or name, or a DVC experiment's name (default: this workspace's last run)"},
    "--epochs": {"metavar": "A-B", "help": "look at these epochs alone, from the stored state before A"},
    "--sample": {"type": int, "metavar": "N", "help": "look at N epochs drawn at random, in parallel processes"},
    "--anyway": {"action": "store_true", "help": "go on where this machine or its packages differ, and show how far the results do"},
    "--environment": {"action": "store_true", "help": "where the packages differ, build the recorded ones in a temporary environment; takes minutes"},
}

OPTIONS["search"] = {
    "-S": {"dest": "set_param", "action": "append", "metavar": "KEY=SPACE", "help": "a key and what it may be: log(low,high), uniform, int, choice(a,b)"},
    "--trials": {"type": int, "default": 20, "metavar": "N", "help": "how many, with those that are there already (default: %(default)s)"},
    "--metric": {
        "default": "validation/loss",
        "help": "of an epoch: accuracies should rise, others fall; that of the kept model counts (default: %(default)s)",
    },
    "--prune": {"choices": ["median", "none"], "default": "median", "help": "end a trial that is worse than the median at an epoch (default: %(default)s)"},
    "--name": {"help": "of the search, in MLflow and to go on with it (default: made from what it is)"},
    "--seed": {"type": int, "default": 0, "help": "decides what is tried (default: %(default)s)"},
}
OPTIONS["schema"] = {"--markdown": {"action": "store_true", "help": "as the page docs/params.md: each key, what it takes, its default and meaning"}}

COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {
    "check": (check, "check params.yaml: says nothing if it is right"),
    "ui": (ui, "open the MLflow UI on 127.0.0.1"),
    "store": (store, "list the runs in the trajectory store, their sizes and what they share; free space"),
    "sync": (sync, "bring to MLflow what it lacks of the runs, as after an outage of the server"),
    "verify": (verify, "make a run again, elsewhere, and compare bits; exit code 0: identical, 1: differs, 3: cannot say"),
    "search": (search, "search params with Optuna: seeded, pruned, resumable, each trial a run in MLflow"),
    "fingerprint": (fingerprint, "print the numerics fingerprint: machines that share it compute the same bits"),
    "schema": (schema, "print the JSON schema of params.yaml, or its reference as Markdown"),
}
