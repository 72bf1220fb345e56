"""params.yaml as a text, from values: above each key stands what it means, by the typed model."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from surefoot.base.wording import NO_KEYS
from surefoot.params.section_base import Section, inner_section
from surefoot.params.sections import Params

WIDTH = 100
"""Characters of a line of comment."""


def commented_yaml(values: Mapping[str, Any]) -> str:
    """The values, nested as params.yaml has them, with comments; what is a section there is one here."""
    return "\n".join(_lines(values, Params, "")) + "\n"


def _lines(values: Mapping[str, Any], section: type[Section], indent: str) -> Iterator[str]:
    for key, value in values.items():
        field = section.model_fields[key]
        inside = inner_section(field.annotation)
        meaning = field.description or (inside.__doc__ if inside else "") or ""
        if not indent and inside:
            yield ""
        yield from textwrap.wrap(
            _first_sentence(meaning.rpartition(f"{key}: ")[2]),
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_on_hyphens=False,
        )
        if inside and isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, inside, f"{indent}  ")
        else:
            yield f"{indent}{key}: {yaml_value(value)}"


def _first_sentence(text: str) -> str:
    """As a comment begins: with a capital letter."""
    plain = " ".join(text.split())
    sentence = re.split(r"(?<=[.])\s+(?=[A-Z`])", plain, maxsplit=1)[0]
    return sentence[:1].upper() + sentence[1:]


def yaml_value(value: Any) -> str:
    """A value on one line, as YAML 1.2 and 1.1 both read it: JSON, but for plain words."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*(:[A-Za-z]\w*)?|\d+(\.\d+){2,}", value, re.ASCII):
        return value if value.lower() not in NO_KEYS else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)
