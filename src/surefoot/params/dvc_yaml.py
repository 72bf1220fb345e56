"""What DVC must be told of, as it looks at nothing but what dvc.yaml names: code of the user's, and keys of params.yaml
that have a default.
"""

import json
import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

from yaml import SequenceNode

from surefoot.base import code_digests, installation, paths, writing
from surefoot.base.errors import UserError
from surefoot.base.reading import read_file
from surefoot.base.yaml12 import UnreadableYaml, from_yaml, yaml_nodes
from surefoot.params.commented_yaml import yaml_value
from surefoot.params.params_yaml import VERSION, load_params, parse_params, values_of
from surefoot.params.sections import Params
from surefoot.params.yaml_edits import node_at, with_first, with_item

PIPELINE = Path("dvc.yaml")
# The keys that dvc.yaml names one by one, where a stage doesn't depend on all of params.yaml or on a whole section.
BY_NAME = (VERSION, "seed", "batch.size", "train.start_from")


def add_what_dvc_needs() -> list[str]:
    """Write into params.yaml and dvc.yaml what DVC lacks there; a line for each change.

    Raises:
        UserError: they can't be written, or in no simple way.
    """
    params = load_params(paths.PARAMS)
    said: list[str] = []
    if not PIPELINE.is_file():
        return said
    if lacking := _lacking():
        text = _with_defaults(paths.PARAMS.read_bytes().decode("utf-8-sig"), lacking)
        # A value may stand there in a way that no text can be put before, such as an alias.
        added = parse_params(text.encode())
        if not added or added.model_dump() != params.model_dump():  # but for the version, which isn't in it
            raise UserError(
                f"{paths.PARAMS}: {' and '.join(lacking)}: DVC needs to find it there; give its default,"
                f" {_shown(lacking)}"
            )
        _write_text(paths.PARAMS, text)
        said.append(f"{paths.PARAMS}: added {_shown(lacking)}: the default, which DVC needs to find there")
    if found := unwatched_code(params, "prepare", "train", "evaluate"):
        _add_dependencies(found)
        said += [f"{PIPELINE}: {', '.join(files)}: added to what {stage} depends on" for stage, files in found.items()]
    return said


def unwatched_code(params: Params, *stages: str) -> dict[str, list[str]]:
    """The files of this project whose code these stages call, and that they don't depend on in dvc.yaml, by stage."""
    text, functions, found = _text(), _functions(params), {}
    for stage in stages:
        deps = _dependencies(text, stage)
        own, _ = code_digests.modules_behind(functions[stage])
        files = {path.resolve().relative_to(Path.cwd()) for path in own.values() if code_digests.in_project(path)}
        found[stage] = sorted(
            path.as_posix() for path in files if deps is not None and not any(path.is_relative_to(dep) for dep in deps)
        )
    return {stage: files for stage, files in found.items() if files}


def require_watched(params: Params, stage: str) -> None:
    """See whether DVC runs the stage again when code of the user's that it calls changes.

    Raises:
        UserError: it wouldn't.
    """
    if found := unwatched_code(params, stage):
        place = "src" if stage != "prepare" or installation.is_installed() else "src/sources"
        raise UserError(
            f"{', '.join(found[stage])}: {stage} calls this code, but doesn't depend on it in {PIPELINE}, so DVC"
            f" wouldn't see a change: move it into {place}, or let `surefoot check` name it there"
        )


def watched_paths(stage: str) -> list[str]:
    """The paths that a stage depends on in dvc.yaml, as they stand there; none where that can't be read."""
    return _dependencies(_text(), stage) or []


def _functions(params: Params) -> dict[str, list[str]]:
    """The user's functions that each stage calls."""
    trained = params.train.model_dump(mode="json", include={"model": {"factory"}, "loss": {"name"}, "schedule": True})
    readers = [each.source for each in params.prepare.sources if not each.source.startswith("sklearn:")]
    return {
        "prepare": code_digests.functions_in(readers),
        **dict.fromkeys(("train", "evaluate"), code_digests.functions_in(trained)),
    }


def _text() -> str:
    """What dvc.yaml holds; nothing where it can't be read."""
    try:
        return read_file(PIPELINE).decode("utf-8-sig")  # places in it are counted without the mark
    except (OSError, UnicodeDecodeError):
        return ""


def _write_text(path: Path, text: str) -> None:
    """Write a file anew, with the byte order mark that it begins with, if it does."""
    mark = BOM_UTF8 if path.read_bytes().startswith(BOM_UTF8) else b""
    writing.write_bytes(path.resolve(), mark + text.encode())


def _dependencies(text: str, stage: str) -> list[str] | None:
    """The paths that a stage depends on by the text of dvc.yaml; None where it doesn't say."""
    try:
        deps = from_yaml(text)["stages"][stage]["deps"]
        return [str(next(iter(dep)) if isinstance(dep, dict) else dep) for dep in deps]
    except (UnreadableYaml, KeyError, TypeError):
        return None


def _add_dependencies(found: dict[str, list[str]]) -> None:
    text = _text()
    for stage, lacking in found.items():
        for path in lacking:
            node = node_at(yaml_nodes(text), "stages", stage, "deps")
            # Two stages may share a list, by an alias; one may stand there in a way that nothing can be put into.
            if path not in (_dependencies(text, stage) or []) and isinstance(node, SequenceNode) and node.value:
                text = with_item(text, node, _item(path))
        if not {*lacking} <= {*(_dependencies(text, stage) or [])}:
            raise UserError(f"{PIPELINE}: {stage} must depend on {', '.join(lacking)}; name it in its deps")
    _write_text(PIPELINE, text)


def _item(path: str) -> str:
    """As YAML."""
    return path if re.fullmatch(r"\w[\w./-]*", path) else json.dumps(path, ensure_ascii=False)


def _lacking() -> list[str]:
    values = values_of(paths.PARAMS)
    return [
        key
        for key in BY_NAME
        if (key != VERSION or _names_version())
        and (
            key not in values if "." not in key else key.partition(".")[2] not in values.get(key.partition(".")[0], {})
        )
    ]


def _names_version() -> bool:
    """Whether a stage depends on the version: in a clone none does."""
    try:
        stages = from_yaml(_text())["stages"].values()
        return any(VERSION in stage.get("params", []) for stage in stages)
    except (UnreadableYaml, KeyError, TypeError, AttributeError):
        return False


def _default(key: str) -> str:
    """As YAML."""
    if key == VERSION:
        return yaml_value(installation.installed_version())
    section, _, name = key.rpartition(".")
    kind: Any = Params.model_fields[section].annotation if section else Params
    return json.dumps(kind.model_fields[name].default)


def _shown(keys: list[str]) -> str:
    return ", ".join(f"{key}: {_default(key)}" for key in keys)


def _with_defaults(text: str, keys: list[str]) -> str:
    """The text of params.yaml with these keys, each before all others of its section; the other lines
    stay as they are.
    """
    for key in keys:
        section, _, name = key.rpartition(".")
        top: Any = yaml_nodes(text)
        node = node_at(top, section) if section else top
        if node is None:
            node, name, value = top, section, f"{{{name}: {_default(key)}}}"
        else:
            value = _default(key)
        text = with_first(text, node, f"{name}: {value}")
    return text
