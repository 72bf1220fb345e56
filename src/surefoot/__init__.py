"""Surefoot: minibatch SGD whose every number can be made again, bit for bit.

From Python and notebooks: `surefoot.run({"train.lr": 0.1})`.
"""

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

from surefoot.base.errors import UserError

if TYPE_CHECKING:
    from surefoot.notebook.result import Result

__all__ = ["UserError", "run"]

import_module("surefoot.run")  # the room; imported later, it would take the place of the function of this name


def run(params: Mapping[str, Any] | None = None, project: str | PathLike[str] | None = None) -> "Result":
    """Run the pipeline with other params than params.yaml has, as `dvc repro` would; the project's files stay as they
    are.

    It runs in a process and a checkout of its own. A run of these params that is known isn't trained again; one that
    was interrupted goes on where it was.

    Args:
        params: values of params.yaml's keys, dotted or in sections: `{"train.lr": 0.1}`, `{"train": {"lr": 0.1}}`.
        project: the directory that has params.yaml; None: the current one, or the nearest above it.

    Returns:
        history, metrics, plots and the model of the run; it shows itself in a notebook.

    Raises:
        UserError: what `dvc repro` would say, in the same words.
    """
    from surefoot.notebook.start_run import run_elsewhere

    return run_elsewhere(params or {}, project)
