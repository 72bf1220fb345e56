"""What a run is called, and what its plots are."""

import json
from pathlib import Path
from typing import Any

from surefoot.base import paths
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import parse_params
from surefoot.params.sections import NO_RESULT, Params
from surefoot.reproduction import git

NOT_GIVEN = object()


def group_names(params: Params) -> list[str]:
    """What to call each group of the optimizer: its pattern.

    The last are the parameters of no pattern, if there are any.
    """
    return [*(group.parameters for group in params.train.optimizer.groups if not group.frozen), "all others"]


def schedule_title(params: Params) -> str:
    """What a plot of the schedule is called."""
    parts = params.train.schedule
    lengths = [f", {part.length} {part.per}s" if part.length else "" for part in parts]
    return ", then ".join(f"{part.name}{length}" for part, length in zip(parts, lengths, strict=True))


def run_name(params: Params, label: str | None) -> str:
    """What a run is called: its data set, what differs from the last commit, and what it is otherwise; at the end the
    experiment's or trial's name.
    """
    now = flatten(params.model_dump(mode="json"))
    committed = parse_params(git.committed_file(str(paths.PARAMS)) or b"")
    before = flatten(committed.model_dump(mode="json")) if committed else now
    told = _told(params)
    differs = [
        key
        for key, value in now.items()
        if key not in ("prepare.source", *NO_RESULT) and before.get(key, NOT_GIVEN) != value
    ]
    if label:  # in a sweep what others vary is told, too
        differs = list(dict.fromkeys(["train.lr", "batch.size", *differs]))
    texts = [told.get(key, f"{key.partition('.')[2] or key}={_short(now[key])}") for key in differs]
    others = [] if label else [text for key, text in told.items() if key not in differs]
    return " ".join(
        text[:60] for text in dict.fromkeys([_data_set(params.prepare.source), *texts, *others, label or ""]) if text
    )[:200]


def _data_set(source: str) -> str:
    """What the data are called: `digits` for data/raw/digits.csv and for sklearn:digits."""
    name = Path(source.removeprefix("sklearn:")).name
    return name.partition(".")[0] if ":" not in name and not name.startswith(".") else name


def _told(params: Params) -> dict[str, str]:
    """In a few words, what tells one run from another, by dotted key."""
    train = params.train
    schedules = " ".join(part.name.rpartition(":")[2] for part in train.schedule if part.name != "constant")
    return {
        "train.model.factory": train.model.factory.partition(":")[2],
        "train.optimizer.name": "" if train.optimizer.name == "SGD" else train.optimizer.name,
        "train.lr": f"lr={train.lr:g}",
        "train.momentum": f"momentum={train.momentum:g}" if train.optimizer.name == "SGD" or train.momentum else "",
        "train.schedule.name": schedules,
        "batch.size": f"batch={params.batch.size}",
        "train.epochs": f"epochs={train.epochs}",
        "train.start_from": f"from {train.start_from[:32]}" if train.start_from else "",
    }


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))


def sweep_name(experiment: str, baseline: str) -> str:
    """What all runs of a sweep have in common: `--name lr` makes experiments lr-1, lr-2, ...; those without a name
    share the commit they started from.
    """
    prefix, _, number = experiment.rpartition("-")
    return prefix if number.isdecimal() else baseline[:7]
