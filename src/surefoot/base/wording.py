"""How messages name things: numbers with their noun, names in quotes, the first few of many."""

import json
import re
from collections.abc import Iterable

from surefoot.base import terminal

NO_KEYS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # which YAML takes for something else


def yaml_key(name: str) -> str:
    """A name as a key in params.yaml, in quotes where YAML needs them."""
    plain = re.fullmatch(r"[^\W\d][\w.-]*( [\w.-]+)*", name) and name.lower() not in NO_KEYS
    return name if plain else json.dumps(name, ensure_ascii=False)


def number_of(number: int, noun: str) -> str:
    """A number with its noun: 1 row, 1,234 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def shown_name(name: str) -> str:
    """A name as a message shows it: in quotes where it would else be misread."""
    return name if name and name == name.strip() and name.isprintable() and "," not in name else repr(name)


def without_password(text: str) -> str:
    """The same text without user and password in the addresses in it."""
    # A password may hold a slash, as AWS's keys do; what follows a port is no password.
    return re.sub(r"://([^/\s]*@|[^/\s:@]+:(?!\d+(/|\s|$))\S*@)", "://", text)


def quoted_names(names: Iterable[str], most: int = 8) -> str:
    """The first few of the names, in quotes."""
    return terminal.first_few(map(repr, names), most)


def listed_names(names: Iterable[str], most: int = 8) -> str:
    """The first few of the names."""
    return terminal.first_few(map(shown_name, names), most)


def describe_dropped(dropped: dict[str, int]) -> str:
    """How many rows were dropped, by the reason, in a line."""
    return ", ".join(f"{number:,} where {reason}" for reason, number in dropped.items())
