"""A user's dvc.yaml brought to the stages of the template: their own stages, comments, deps and settings stay."""

import re
from pathlib import PurePosixPath
from typing import Any

from yaml import SequenceNode

from surefoot.base.errors import UserError
from surefoot.base.yaml12 import UnreadableYaml, from_yaml, yaml_nodes
from surefoot.params.yaml_edits import (
    lines_of_key,
    node_at,
    with_before,
    with_item,
    with_last,
    with_value,
    without_item,
)

Stage = dict[str, Any]
LISTS = ("deps", "params", "outs", "metrics")
OUTPUTS = ("outs", "metrics", "plots")  # a user may have an output under another of them
# As a clone has it, whose environment has Surefoot's source; a command of the user's own stays.
OF_A_CLONE = re.compile(r'exec env PYTHONPATH=src "\$DVC_ROOT"/\.venv/bin/python -m surefoot\.stages\.\w+')
SOURCE = PurePosixPath("src/surefoot")


def upgraded_pipeline(text: str, template: str) -> str:
    """The text of a dvc.yaml with what the template's stages have and it lacks, and without Surefoot's own source.

    Raises:
        UserError: it has no stage of Surefoot's, or can't be edited.
        UnreadableYaml: it is no YAML.
    """
    others = _without_stages(text)
    before, wanted = _stages(text), _stages(template)
    names = {name: _name_in(before, name) for name in wanted}
    if not any(names.values()):
        raise UserError("dvc.yaml: it has no stage of Surefoot's; `surefoot init` makes a pipeline in another folder")
    for name, called in names.items():
        if called is None and name in before:
            raise UserError(f"dvc.yaml: its stage {name} isn't Surefoot's, which has one of that name: rename it")
    try:
        for name in reversed(wanted):
            if names[name] is None:
                text, names[name] = _with_stage(text, template, name, names), name
        for name, stage in wanted.items():
            text = _with_lists(text, str(names[name]), template, name, stage)
        _check(before, _stages(text), {name: str(names[name]) for name in wanted}, wanted)
        edited = _without_stages(text) == others
    except UnreadableYaml:  # what came of it, as where a stage is an alias
        edited = False
    if not edited:
        raise UserError("dvc.yaml: its stages are written in a way that can't be edited; change them by hand")
    return text


def _without_stages(text: str) -> dict[str, Any]:
    values = from_yaml(text)
    return {key: value for key, value in values.items() if key != "stages"} if isinstance(values, dict) else {}


def _stages(text: str) -> dict[str, Stage]:
    values = from_yaml(text)
    stages = values.get("stages") if isinstance(values, dict) else None
    return stages if isinstance(stages, dict) else {}


def _name_in(stages: dict[str, Stage], name: str) -> str | None:
    """What the user calls a stage of Surefoot's."""
    called = re.compile(rf"-m surefoot\.stages\.{name}(?!\w)")
    return next(
        (
            key
            for key, stage in stages.items()
            if isinstance(stage, dict) and called.search(str(stage.get("cmd", stage.get("do", ""))))
        ),
        None,
    )


def _with_stage(text: str, template: str, name: str, names: dict[str, str | None]) -> str:
    """With a stage of the template, before the one that follows it there."""
    stages = node_at(yaml_nodes(text), "stages")
    lines = lines_of_key(template, node_at(yaml_nodes(template), "stages"), name)
    order = list(names)
    after = next((names[other] for other in order[order.index(name) + 1 :] if names[other]), None)
    return with_before(text, stages, after, lines) if after else with_last(text, stages, lines)


def _with_lists(text: str, key: str, template: str, name: str, wanted: Stage) -> str:
    """With the command of the template in place of a clone's, and what the lists of a stage lack."""
    theirs = _stages(text)[key]
    if "cmd" not in theirs:
        raise UserError(f"dvc.yaml: the stage {key} is made several by DVC, and can't be edited; change it by hand")
    if isinstance(theirs["cmd"], str) and OF_A_CLONE.fullmatch(theirs["cmd"].strip()):
        text = with_value(text, node_at(yaml_nodes(text), "stages", key, "cmd"), wanted["cmd"])
    for kind in LISTS:
        for number, item in enumerate(wanted.get(kind, [])):
            if not _is_there(_stages(text)[key], kind, item):
                node = node_at(yaml_nodes(template), "stages", name, kind).value[number]
                text = _with_list_item(text, key, kind, template[node.start_mark.index : node.end_mark.index])
        while (surplus := _surplus(_stages(text)[key], kind)) is not None:
            text = without_item(text, node_at(yaml_nodes(text), "stages", key, kind), surplus)
    return text


def _with_list_item(text: str, key: str, kind: str, item: str) -> str:
    stage = node_at(yaml_nodes(text), "stages", key)
    node = node_at(stage, kind)
    if node is None:
        return with_last(text, stage, f"{kind}: [{item}]")
    if not isinstance(node, SequenceNode):
        raise UserError(f"dvc.yaml: write {item} into the {kind} of the stage {key}, which can't be edited as they are")
    return with_item(text, node, item)


def _names(stage: Stage, kind: str) -> list[str]:
    items = stage.get(kind)
    return [str(next(iter(item), "") if isinstance(item, dict) else item) for item in items or []]


def _is_there(stage: Stage, kind: str, item: Any) -> bool:
    (name,) = _names({kind: [item]}, kind)
    if kind == "params":
        return name in _names(stage, kind) or {"params.yaml": None} in (stage.get(kind) or [])
    if kind == "deps":
        return any(PurePosixPath(name).is_relative_to(dep) for dep in _names(stage, kind))
    return any(name in _names(stage, each) for each in OUTPUTS)


def _surplus(stage: Stage, kind: str) -> int | None:
    """The place of a dependency on Surefoot's source, which a package has elsewhere."""
    deps = _names(stage, "deps") if kind == "deps" else []
    return next((number for number, dep in enumerate(deps) if PurePosixPath(dep).is_relative_to(SOURCE)), None)


def _check(before: dict[str, Stage], after: dict[str, Stage], names: dict[str, str], wanted: dict[str, Stage]) -> None:
    """See whether all is as it was but for what was to be changed.

    Raises:
        UserError: it can't be edited.
    """
    ours = {key: name for name, key in names.items()}
    for key, stage in after.items():
        old = before.get(key, stage)
        edited = {"cmd", *LISTS} if key in ours else set()
        same = all(stage.get(part) == old.get(part) for part in {*stage, *old} - edited)
        kept = all(
            item in (stage.get(kind) or []) or (kind == "deps" and PurePosixPath(str(item)).is_relative_to(SOURCE))
            for kind in LISTS
            for item in old.get(kind) or []
        )
        whole = key not in ours or all(
            _is_there(stage, kind, item) for kind in LISTS for item in wanted[ours[key]].get(kind, [])
        )
        if not (same and kept and whole):
            raise UserError(f"dvc.yaml: the stage {key} is written in a way that can't be edited; change it by hand")
    if lost := before.keys() - after.keys():
        raise UserError(f"dvc.yaml: the stage {min(lost)} is written in a way that can't be edited; change it by hand")
