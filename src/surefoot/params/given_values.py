"""Values that are given in place of those in params.yaml."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from surefoot.base.errors import UserError
from surefoot.params.section_base import inner_section
from surefoot.params.sections import Params


def given_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values by dotted key. A mapping for a section of params.yaml gives values of its keys; one for a key that has
    a mapping itself, such as `train.model.arguments`, is its whole value.

    Raises:
        UserError: a key is given twice, or isn't text; a value has no place in YAML.
    """
    values: dict[str, Any] = {}
    for key, value in _by_key(given, ""):
        if key in values:
            raise UserError(f"{key}: given twice; keep one")
        values[key] = _plain_value(key, value)
    return values


def _by_key(given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if not isinstance(name, str):
            raise UserError(f"{prefix}{name}: a key is text, as 'train.lr'")
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and _is_section(key):
            yield from _by_key(value, f"{key}.")
        else:
            yield key, value


def _is_section(key: str) -> bool:
    section: Any = Params
    for name in key.split("."):
        field = section.model_fields.get(name) if section else None
        section = inner_section(field.annotation) if field else None
    return section is not None


def _plain_value(key: str, value: Any) -> Any:
    """The value as JSON has it; a number of NumPy's is one of Python's."""
    if isinstance(value, Mapping):
        return {name: _plain_value(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(key, inner) for inner in value]
    if hasattr(value, "item") and not getattr(value, "shape", None):
        value = value.item()
    if not isinstance(value, str | int | float | None):
        raise UserError(
            f"{key}: a {type(value).__name__} can't stand in params.yaml; numbers, texts, true, false, null, lists and"
            " mappings can"
        )
    return value


def put_values(text: str, values: Mapping[str, Any]) -> str:
    """The text of a params.yaml with other values of some dotted keys, and its comments.

    Raises:
        UserError: a key goes through what isn't a section.
    """
    from ruamel.yaml import YAML  # which keeps comments

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    params = yaml.load(text)
    for key, value in values.items():
        *sections, name = key.split(".")
        place = params
        for section in sections:
            if not isinstance(place, dict) or not isinstance(place.get(section, {}), dict):
                raise UserError(f"{key}: {section} in params.yaml isn't a section with names")
            place = place.setdefault(section, {})
        place[name] = value
    written = io.StringIO()
    yaml.dump(params, written)
    return written.getvalue()
