"""Code of the user's by its import path, `module:function`."""

import difflib
import importlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surefoot.base import limits
from surefoot.base.errors import UserError

FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
HERE = str(Path(__file__).parents[1])
NETWORKS = f"{HERE}/networks"  # in a package; a clone has them beside the user's
LONG = 500  # characters of an error; some of torch's list all that it has kernels for


def find_function(key: str, path: str) -> Callable[..., Any]:
    """The function of a `module:function`.

    Raises:
        UserError: naming `key`: it can't be imported, or isn't a function.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # SystemExit: a script that isn't meant to be imported
        raise UserError(f"{key}: {path}: can't import {module_name}: {describe_error(error)}") from None
    function = getattr(module, name, None)
    if function is None:
        raise UserError(f"{key}: {path}: module {module_name} has no {name!r}")
    if not callable(function):
        raise UserError(f"{key}: {path} is a {type(function).__name__}; a function is needed")
    return function  # type: ignore[no-any-return]


def describe_error(error: BaseException) -> str:
    """What went wrong in the user's code, and in which line: the user gets no traceback."""
    operation, refused, _ = str(error).partition(" does not have a deterministic implementation")
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_shown(frame.filename)]
    at = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    if refused:
        return (
            f"torch: {operation}{refused}{at}; replace it, or allow it by deterministic: false in params.yaml, and runs"
            " may then differ"
        )
    said = " ".join(str(error).split())
    if system := limits.explain(error):
        return f"{system}{at}"
    return f"{type(error).__name__}: {said if len(said) <= LONG else f'{said[:LONG]} ...'}{at}"


def _is_shown(file: str) -> bool:
    """Whether a line of a file says something to the user: of their own, or of a network that comes along."""
    if file.startswith(NETWORKS):
        return True
    return "site-packages" not in file and "importlib" not in file and not file.startswith(HERE)


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint for a name that doesn't exist: the nearest one, or all that do."""
    near = {key.lower(): key for key in known}
    found = difflib.get_close_matches(name.lower(), near, n=1)
    return f"did you mean {near[found[0]]}?" if found else f"it has {', '.join(known)}"
