"""`params.yaml` as it is read: YAML to values, and what is wrong with them, with its line."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from surefoot.base import installation, limits
from surefoot.base.errors import UserError
from surefoot.base.reading import read_file
from surefoot.base.yaml12 import UnreadableYaml, from_yaml, from_yaml_with_lines
from surefoot.params.section_base import inner_section
from surefoot.params.sections import Params

VERSION = "surefoot"  # the key
LARGEST = 128 << 10  # bytes of params.yaml


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        UserError: it is of another version of Surefoot than the one that is installed; for each of the first two faults
        a line `file:line: dotted.key: what is wrong and what would be right`.
    """
    values, lines = _read_yaml(path)
    _refuse_other_version(path, lines, values.get(VERSION))
    try:
        params = Params.model_validate(values)
        _refuse_huge(path, lines, values)
        return params
    except ValidationError as invalid:
        # Where a value may be one of two things, each has an error; pydantic names them by a part of the path that is
        # in no file.
        found: dict[tuple[str, ...], list[ErrorDetails]] = {}
        for error in _causes(invalid.errors()):
            keys = tuple(
                str(part)
                for part in error["loc"]
                if not str(part).startswith(("literal[", "tuple[")) and part != "bool"
            )
            found.setdefault(keys, []).append(error)
        faults = [_explain(path, lines, list(keys), errors) for keys, errors in found.items()]
        more = f" (and {len(faults) - 2} more)" if len(faults) > 2 else ""
        raise UserError(*faults[: min(2, len(faults)) - 1], faults[:2][-1] + more) from None


def lines_of(path: Path) -> dict[str, int]:
    """The line of each dotted key."""
    return _read_yaml(path)[1]


def values_of(path: Path) -> dict[str, Any]:
    """What stands in a file that `load_params` takes, without defaults; merge keys (`<<`) followed."""
    return _read_yaml(path)[0]


def parse_params(text: bytes) -> Params | None:
    """The params that a text says; None where it isn't right, as an older commit's may be."""
    try:
        return Params.model_validate(from_yaml(text.decode()))
    except (ValueError, UnreadableYaml):  # a ValidationError is a ValueError
        return None


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML file, and the line of each dotted key."""
    with reading_yaml(path):
        data = read_file(path)
        if len(data) > LARGEST:
            raise UserError(
                f"{path}: has {len(data):,} bytes; a params.yaml has {LARGEST:,} at most: name columns by patterns,"
                " such as pixel_*"
            )
        values, lines = from_yaml_with_lines(data.decode())
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of sections, such as `seed: 0`")
    return values, lines


@contextmanager
def reading_yaml(path: Path) -> Iterator[None]:
    """Surrounds what reads a YAML file.

    Raises:
        UserError: it can't be read, or is no YAML.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: can't be read: {limits.system_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    except UnreadableYaml as error:
        raise UserError(error.told(path)) from None


def _refuse_other_version(path: Path, lines: dict[str, int], wanted: Any) -> None:
    """Before anything else is looked at: another version may know other keys."""
    installed = installation.installed_version() if isinstance(wanted, str) else None
    if installed is None or wanted == installed:
        return
    from packaging.version import InvalidVersion, Version

    try:
        newer = Version(wanted) > Version(installed)
    except InvalidVersion:
        raise UserError(
            f"{path}:{lines.get(VERSION, 1)}: {VERSION}: {wanted!r} is no version; {installed} is installed"
        ) from None
    raise UserError(
        f"{path}:{lines.get(VERSION, 1)}: {VERSION}: it is of Surefoot {wanted}, and {installed} is installed:"
        f" {installation.install_version(wanted)}"
        + (
            f", or bring {path.name} and dvc.yaml back from a commit that has {VERSION}: {installed}"
            if newer
            else f", or `surefoot upgrade` brings {path.name} and dvc.yaml to {installed}"
        )
    )


def _refuse_huge(path: Path, lines: dict[str, int], values: Any, keys: tuple[str, ...] = ()) -> None:
    """No integer that is too large to count with, in any key and any argument."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        _refuse_huge(path, lines, value, (*keys, str(key)))
    if isinstance(values, int) and abs(values) >= 2**63:
        line = next((lines[".".join(keys[:n])] for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in lines), 1)
        raise UserError(
            f"{path}:{line}: {'.'.join(keys)}: an integer of {len(str(abs(values)))} digits; it must be below 2 ** 63"
        )


# Pydantic speaks of Python's types; the file has YAML's.
OF_YAML = {
    "tuple_type": "input should be a list",
    "model_type": "input should be a mapping, `key: value`",
    "dict_type": "input should be a mapping, `key: value`",
    "too_short": "list should have an item",
}


def _causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without lists that are too short only because an item of theirs, which has an error of its own, doesn't count."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short" or not any(place[:-1][: len(error["loc"])] == error["loc"] for place in places)
    ]


def _explain(path: Path, lines: dict[str, int], keys: list[str], errors: list[ErrorDetails]) -> str:
    error = errors[0]
    dotted = ".".join(keys)
    # A missing key has no line of its own: its section's does.
    line = next((lines[".".join(keys[:n])] for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in lines), 1)
    shown = f"{path}:{line}: {dotted}: " if dotted else f"{path}: "
    if error["type"] == "missing":
        return f"{shown}missing"
    if error["type"] == "extra_forbidden":
        known = list(_section(keys[:-1]).model_fields)
        # A right key in the wrong section, and a dotted one, are mistakes too.
        meant = {key: dotted for dotted in _all_keys() for key in (dotted, dotted.rpartition(".")[2])} | {
            key: key for key in known
        }
        near = difflib.get_close_matches(keys[-1], meant, n=1)
        hint = f"did you mean `{meant[near[0]]}`?" if near else f"known here: {', '.join(known)}"
        return f"{shown}unknown key; {hint}"
    messages = [OF_YAML.get(other["type"], other["msg"].removeprefix("Value error, ")) for other in errors]
    message = ", or ".join(text[0].lower() + text[1:] for text in messages)
    given = error["input"]
    if isinstance(given, str) and error["type"] in ("tuple_type", "model_type") and _has_name(keys):
        message = f"input should be a mapping, such as {{name: {given}}}"
    return f"{shown}{message}" + (
        "" if isinstance(given, dict) else ", got null" if given is None else f", got {given!r}"
    )


def _has_name(keys: list[str]) -> bool:
    """Whether a key has a section, or a list of them, in which the key `name` says the most."""
    *above, key = [key for key in keys if not key.isdigit()]
    inner = inner_section(_section(above).model_fields[key].annotation)
    return inner is not None and "name" in inner.model_fields


def _section(keys: list[str]) -> type[BaseModel]:
    section: type[BaseModel] = Params
    for key in keys:
        if not key.isdigit():  # an item of a list is what the list is of
            inner = inner_section(section.model_fields[key].annotation)
            assert inner
            section = inner
    return section


def _all_keys() -> list[str]:
    def walk(section: type[BaseModel], prefix: str) -> list[str]:
        keys = []
        for name, field in section.model_fields.items():
            keys.append(f"{prefix}{name}")
            inner = inner_section(field.annotation)
            if inner:
                keys += walk(inner, f"{prefix}{name}.")
        return keys

    return walk(Params, "")
