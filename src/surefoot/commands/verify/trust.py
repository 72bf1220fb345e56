"""Code that is to run though this repository's history doesn't hold it: it is named first, and run only after a yes."""

import sys
from collections.abc import Sequence

from surefoot.base import terminal
from surefoot.base.errors import CannotSay
from surefoot.commands.options import TRUST


def allow(foreign: Sequence[str], trusted: bool) -> None:
    """Go on with what isn't of this repository, if the user trusts it: by the option, or by a yes at a terminal.

    Raises:
        CannotSay: they don't.
    """
    if not foreign:
        return
    said = (
        "to make it again, code would run that this repository's history doesn't hold, and it could do all that you can"
    )
    if trusted:
        terminal.print_lines("note: this runs code that this repository's history doesn't hold:", *foreign)
        return
    if sys.stdin.isatty() and terminal.is_terminal(sys.stdout):
        terminal.print_lines(f"{said}:", *foreign, "Run it? yes or no:")
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise CannotSay(
        f"{said}:", *foreign, f"{TRUST} runs it: if you have read it, or trust everyone who can write to this MLflow"
    )
