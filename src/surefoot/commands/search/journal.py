"""`.surefoot/search/NAME.json`: what a search is, and what came of each trial: all that a killed one needs to go on
alike.
"""

import json
from pathlib import Path
from typing import Any, Literal

from surefoot.base import digests, reading, terminal
from surefoot.base.documents import Digest, Document, Malformed, parse_document
from surefoot.base.errors import UserError
from surefoot.commands.search.study import Trial
from surefoot.reproduction import provenance

FORMAT: Literal[1] = 1


class SearchStart(Document):
    """The code that a search started with."""

    commit: str | None
    patch: Digest


class Journal(Document):
    """A search."""

    format: Literal[1]
    settings: dict[str, Any]
    start: SearchStart
    base: str
    trials: list[Trial]


def known_or_new_journal(journal: Path, settings: dict[str, Any], base: str, source: provenance.CodeState) -> Journal:
    """The search as its journal has it, or one that starts now; where the code isn't that of its start, it is told."""
    known, start = _read(journal, settings), code_at_start(source)
    if known and known.start != start:
        terminal.print_lines(
            f"note: {journal.stem} goes on with the code of its start, commit {str(known.start.commit)[:7]};"
            " --name starts another one with that of now"
        )
    return known or Journal(format=FORMAT, settings=settings, start=start, base=base, trials=[])


def code_at_start(source: provenance.CodeState) -> SearchStart:
    """What of the code a search remembers as that of its start."""
    return SearchStart(commit=source.commit, patch=digests.sha256(source.patch))


def _read(journal: Path, settings: dict[str, Any]) -> Journal | None:
    """What is known of a search.

    Raises:
        UserError: it can't be read, or it is another search.
    """
    try:
        found = parse_document(Journal, reading.read_file(journal))
        before = found.settings
    except FileNotFoundError:
        return None
    except (OSError, Malformed):
        raise UserError(
            f"{journal} can't be read; delete it to start the search anew: what was trained is kept"
        ) from None
    other = [key for key in settings if before.get(key) != json.loads(json.dumps(settings[key]))]
    if other:
        what = {"space": "what -S says", "params": "params.yaml"}
        raise UserError(
            f"a search {journal.stem} was started with another {what.get(other[0], other[0])}; give --name a new name,"
            " or say what it was"
        )
    return found
