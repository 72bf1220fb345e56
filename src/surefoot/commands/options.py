"""The options of all commands: apart from what carries them out, so that help and mistakes cost no imports."""

import re
from pathlib import Path
from typing import Any

from surefoot.base.errors import UserError

A_RUN = "a run, by its id in MLflow or in `surefoot store`, the start of one, its name, or a DVC experiment's name"
TRUST = "--trust-recorded-code"

Option = tuple[tuple[str, ...], dict[str, Any]]


def _option(*names: str, **settings: Any) -> Option:
    """An option or argument as argparse's `add_argument` takes it."""
    return names, settings


# By command; its `main` is given each value by name.
OPTIONS: dict[str, list[Option]] = {
    "init": [
        _option(
            "directory", metavar="DIR", nargs="?", default=".", help="where the pipeline is to lie; by default here"
        ),
        _option(
            "--data",
            metavar="FILE",
            help="your data: a CSV or Parquet file, a folder with a folder of images for each class, an IDX, NPZ or NPY"
            " file",
        ),
        _option("--target", metavar="COLUMN", help="the column to predict, in a table"),
        _option(
            "--labels", metavar="FILE", help="the file of the targets where they lie apart: of IDX, NPZ and NPY files"
        ),
    ],
    "upgrade": [
        _option("--yes", action="store_true", help="write it without asking"),
    ],
    "ui": [
        _option("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)"),
        _option("--no-browser", action="store_true", help="print the address alone"),
    ],
    "run": [
        _option(
            "--in-checkout", action="store_true", help="in a checkout of its own, beside other runs, and while you edit"
        ),
        _option("--name", help="of the checkout, to go on with it (default: made from code, params and data)"),
        _option(
            "--later", action="store_true", help="only make the checkout: what the run of this name will train is fixed"
        ),
    ],
    "store": [
        _option(
            "--prune",
            action="store_true",
            help="delete all states but the best and the last of each run, and the latest of an unfinished one; what is"
            " shared stays",
        ),
        _option(
            "--forget",
            action="append",
            metavar="RUN",
            help="forget a run, so that pruning frees its states, too; may be given several times",
        ),
    ],
    "schedule": [
        _option("--out", type=Path, metavar="FILE", help="where to write the PNG (default: .surefoot/schedule.png)"),
    ],
    "lr-find": [
        _option(
            "--min",
            dest="lowest",
            type=float,
            default=1e-6,
            metavar="LR",
            help="the learning rate of the first step (default: %(default)s)",
        ),
        _option(
            "--max",
            dest="highest",
            type=float,
            default=10.0,
            metavar="LR",
            help="that of the last step, if the loss doesn't explode before (default: %(default)s)",
        ),
        _option(
            "--steps",
            type=int,
            metavar="N",
            help="steps to take (default: 100, or ten times what the momentum remembers)",
        ),
        _option(
            "--out",
            type=Path,
            metavar="DIR",
            help="where to write lr-find.csv and lr-find.png (default: .surefoot/lr-find)",
        ),
    ],
    "verify": [
        _option("run", nargs="?", metavar="RUN", help=f"{A_RUN} (default: this workspace's last run)"),
        _option("--epochs", metavar="A-B", help="look at these epochs alone, from the stored state before A"),
        _option("--sample", type=int, metavar="N", help="look at N epochs drawn at random, in parallel processes"),
        _option(
            "--anyway",
            action="store_true",
            help="go on where this machine or its packages differ, and show how far the results do",
        ),
        _option(
            "--environment",
            action="store_true",
            help="where the packages differ, build the recorded ones in a temporary environment; takes minutes",
        ),
        _option(
            TRUST,
            dest="trusted",
            action="store_true",
            help="run code, too, that MLflow has and this repository's history doesn't: a run's uncommitted changes, a"
            " commit of no branch",
        ),
    ],
    "compare": [
        _option("runs", nargs="+", metavar="RUN", help=A_RUN),
        _option(
            "--out",
            type=Path,
            metavar="FILE",
            help="where the picture of the curves goes (default: compare.png in .surefoot/)",
        ),
    ],
    "join": [
        _option("address", metavar="HOST:PORT", help="where the first machine is, as its SUREFOOT_RENDEZVOUS says"),
    ],
    "predict": [
        _option(
            "file", metavar="FILE", help="a file or directory of any format that prepare reads; it needs no target"
        ),
        _option("--out", metavar="FILE", help="where to write, .csv or .parquet (default: CSV to standard output)"),
        _option(
            "--model",
            metavar="MODEL",
            help="a safetensors file, or models:/NAME@ALIAS of MLflow (default: models/model.safetensors)",
        ),
        _option("--run", metavar="RUN", help=f"use the model of {A_RUN}"),
    ],
    "search": [
        _option(
            "-S",
            dest="texts",
            action="append",
            default=[],
            metavar="KEY=SPACE",
            help="a key and what it may be: log(low,high), uniform, int, choice(a,b)",
        ),
        _option(
            "--trials",
            type=int,
            default=20,
            metavar="N",
            help="how many, with those that are there already (default: %(default)s)",
        ),
        _option(
            "--metric",
            default="validation/loss",
            help="of an epoch: accuracies should rise, others fall; that of the kept model counts (default:"
            " %(default)s)",
        ),
        _option(
            "--prune",
            choices=["median", "none"],
            default="median",
            help="end a trial that is worse than the median at an epoch (default: %(default)s)",
        ),
        _option("--name", help="of the search, in MLflow and to go on with it (default: made from what it is)"),
        _option("--seed", type=int, default=0, help="decides what is tried (default: %(default)s)"),
    ],
    "schema": [
        _option(
            "--markdown",
            action="store_true",
            help="as the page docs/params.md: each key, what it takes, its default and meaning",
        ),
    ],
}


def check_name(name: str | None) -> None:
    """See whether what `--name` says can name a directory.

    Raises:
        UserError: it can't.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z][\w-]{0,60}", name):
        raise UserError(f"--name {name}: must be letters, digits, - and _, beginning with a letter")
