"""How a command declares its options: as decorators of its `main`, which carries it out."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from surefoot.base.errors import UserError

Main = TypeVar("Main", bound=Callable[..., None])

A_RUN = "a run, by its id in MLflow or in `surefoot store`, the start of one, its name, or a DVC experiment's name"


def option(*names: str, **settings: Any) -> Callable[[Main], Main]:
    """An option or argument of a command, as argparse's `add_argument` takes it; `main` is given its value by name."""

    def put(main: Main) -> Main:
        vars(main).setdefault("options", []).insert(0, (names, settings))  # decorators are called from below
        return main

    return put


def check_name(name: str | None) -> None:
    """See whether what `--name` says can name a directory.

    Raises:
        UserError: it can't.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z][\w-]{0,60}", name):
        raise UserError(f"--name {name}: must be letters, digits, - and _, beginning with a letter")
