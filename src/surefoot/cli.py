"""`surefoot <command>`: what there is beside the stages, which `dvc repro` runs."""

import argparse
import json
import os
import sys
from collections.abc import Callable

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
        if name == "ui":
            sub.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)")
    arguments = parser.parse_args()
    errors.run(lambda: arguments.command(arguments))


def check(_arguments: argparse.Namespace) -> None:
    """Check params.yaml."""
    from surefoot.params import load

    load(files.PARAMS)


def schema(_arguments: argparse.Namespace) -> None:
    """Print the JSON schema of params.yaml."""
    from surefoot.params import json_schema

    print(json.dumps(json_schema(), indent=2))


def fingerprint(_arguments: argparse.Namespace) -> None:
    """Print the numerics fingerprint of this machine."""
    from surefoot.params import load
    from surefoot.training import numerics

    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads)
    print(numerics.fingerprint())


def ui(arguments: argparse.Namespace) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    from surefoot import tracking

    uri = tracking.configure()
    if uri.startswith(("http:", "https:", "databricks")):
        print(f"the runs are on the server at {uri}: open it in a browser")
        return
    if not 1 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: must be from 1 to 65535")
    print(f"MLflow UI: http://127.0.0.1:{arguments.port}  (Ctrl-C stops it)", flush=True)
    mlflow = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execv(sys.executable, [*mlflow, "--default-artifact-root", (files.root() / "mlartifacts").as_uri(), "--workers", "1"])


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {
    "check": (check, "check params.yaml: says nothing if it is right"),
    "ui": (ui, "open the MLflow UI on 127.0.0.1"),
    "fingerprint": (fingerprint, "print the numerics fingerprint: machines that share it compute the same bits"),
    "schema": (schema, "print the JSON schema of params.yaml"),
}
