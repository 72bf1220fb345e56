"""How a command declares its options: as decorators of its `main`, which carries it out."""

from collections.abc import Callable
from typing import Any, TypeVar

Main = TypeVar("Main", bound=Callable[..., None])

A_RUN = "a run, by its id in MLflow or in `surefoot store`, the start of one, its name, or a DVC experiment's name"


def option(*names: str, **settings: Any) -> Callable[[Main], Main]:
    """An option or argument of a command, as argparse's `add_argument` takes it; `main` is given its value by name."""

    def put(main: Main) -> Main:
        vars(main).setdefault("options", []).insert(0, (names, settings))  # decorators are called from below
        return main

    return put
