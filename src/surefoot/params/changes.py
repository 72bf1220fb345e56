"""What became of the keys of params.yaml from version to version, and a file of an older one brought to the newest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.version import InvalidVersion, Version

from surefoot.base.errors import UserError
from surefoot.base.yaml12 import UnreadableYaml, from_yaml, yaml_nodes
from surefoot.params.commented_yaml import commented_yaml, yaml_value
from surefoot.params.params_yaml import VERSION
from surefoot.params.sections import default_of
from surefoot.params.yaml_edits import (
    lines_of_key,
    node_at,
    with_before,
    with_first,
    with_last,
    with_value,
    without_key,
)

OLDEST = "0.1.0"  # whose files say no version


@dataclass(frozen=True)
class Change:
    """Of a version: dotted keys that it has and the one before didn't, and those that it calls otherwise, old: new."""

    came: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


# By version, in order; of those since the oldest that `surefoot upgrade` knows.
CHANGES: dict[str, Change] = {}


def upgraded_params(text: str, installed: str) -> str:
    """The text of a params.yaml, of an older version or of none, brought to the installed one.

    Raises:
        UserError: it is of a newer version; or it can't be edited.
        UnreadableYaml: it is no YAML.
    """
    values = from_yaml(text)
    if not isinstance(values, dict):
        raise UserError("params.yaml: must be a mapping of sections, such as `seed: 0`")
    was = _version(values.get(VERSION) or OLDEST)
    if was > Version(installed):
        raise UserError(f"params.yaml: {VERSION}: it is of {was}, and {installed} is installed, which is older")
    try:
        for version, change in CHANGES.items():
            if was < Version(version) <= Version(installed):
                for old, new in change.renamed.items():
                    text, values = _renamed(text, values, old, new)
                for key in change.came:
                    text, values = _added(text, values, key)
        if values.get(VERSION) != installed:
            text = _with_version(text, installed)
            values = {**values, VERSION: installed}
        edited = from_yaml(text) == values
    except (UnreadableYaml, StopIteration):  # what came of it; a key that another one merges in
        edited = False
    if not edited:
        raise UserError(
            "params.yaml: it is written in a way that can't be edited; bring its keys to the new version by hand"
        )
    return text


def _version(text: object) -> Version:
    try:
        return Version(str(text))
    except InvalidVersion:
        raise UserError(f"params.yaml: {VERSION}: {text!r} is no version") from None


def _renamed(text: str, values: dict[str, Any], old: str, new: str) -> tuple[str, dict[str, Any]]:
    """With a key by its new name, which may be in another section; its comments go with it."""
    if _found(values, old) is None:
        return text, values
    if _found(values, new) is not None:
        raise UserError(f"params.yaml: {old} is called {new} now, and both are given; keep one")
    (*section, name), (*other, new_name) = old.split("."), new.split(".")
    value = _found(values, old)
    after = _put(_dropped(values, old), new, value[0] if value else None)
    parent = node_at(yaml_nodes(text), *section)
    key = next(key for key, _ in parent.value if key.value == name)
    text = with_value(text, key, new_name)
    if section != other:
        parent = node_at(yaml_nodes(text), *section)
        lines = lines_of_key(text, parent, new_name)
        text = _inserted(without_key(text, parent, new_name), other, lines)
    return text, after


def _added(text: str, values: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    """With a new key and its default, where its section is there; elsewhere the default counts by itself."""
    section = key.split(".")[:-1]
    if _found(values, key) is not None or (section and not isinstance(_value(values, ".".join(section)), dict)):
        return text, values
    default = default_of(key)
    nested: Any = default
    for part in reversed(key.split(".")):
        nested = {part: nested}
    lines = commented_yaml(nested).strip("\n").splitlines()
    starts = [number for number, line in enumerate(lines) if section and line.strip() == f"{section[-1]}:"]
    own = lines[starts[-1] + 1 if starts else 0 :]
    indent = len(own[0]) - len(own[0].lstrip())
    return _inserted(text, section, "\n".join(line[indent:] for line in own)), _put(values, key, default)


def _inserted(text: str, section: list[str], lines: str) -> str:
    """With the lines of a key, the last in its section, or before all sections."""
    top: Any = yaml_nodes(text)
    if not section:
        names = [key.value for key, _ in top.value if key.value != VERSION]  # which stays the first
        return with_before(text, top, names[0], lines) if names else with_last(text, top, lines)
    node = node_at(top, *section)
    if node is not None and getattr(node, "value", None):
        return with_last(text, node, lines)
    if len(section) == 1 and node is None:
        return with_last(text, top, "\n".join([f"{section[0]}:", *(f"  {line}" for line in lines.splitlines())]))
    raise UserError(
        f"params.yaml: {'.'.join(section)} is written in a way that can't be edited; write there by hand:",
        lines.splitlines()[-1],
    )


def _with_version(text: str, installed: str) -> str:
    top: Any = yaml_nodes(text)
    node = node_at(top, VERSION)
    if node is not None:
        return with_value(text, node, yaml_value(installed))
    return with_first(text, top, commented_yaml({VERSION: installed}).strip("\n"))


def _found(values: Any, key: str) -> tuple[Any] | None:
    """The value of a dotted key, in a tuple; None where it isn't given."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return (values,)


def _value(values: Any, key: str) -> Any:
    found = _found(values, key)
    return found[0] if found else None


def _dropped(values: dict[str, Any], key: str) -> dict[str, Any]:
    name, _, below = key.partition(".")
    inner = {name: _dropped(values[name], below)} if below else {}
    return {other: value for other, value in values.items() if other != name} | inner


def _put(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    name, _, below = key.partition(".")
    return {**values, name: _put(values.get(name) or {}, below, value) if below else value}
