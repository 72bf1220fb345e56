"""What was recorded of a run against what was made again: where they differ, why, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from surefoot.base import terminal
from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import NO_RESULT
from surefoot.run.record import Epoch

IDENTICAL, DIFFERS, CANNOT_SAY = "identical", "differs", "cannot say"
EXIT_CODES = {IDENTICAL: 0, DIFFERS: 1, CANNOT_SAY: 3}

PARAM_LENGTH = 6000  # characters of a param that MLflow keeps
SHOWN = 200  # of a param that differs

# What in a run's origin lies in the machine and its packages rather than in the run. By prefix of the dotted key.
SURROUNDINGS = ("numerics.fingerprint", "versions.")
# What in an origin is a param, and named as such.
FROM_PARAMS = (
    *("seed", "numerics.profile", "numerics.threads", "numerics.device", "numerics.deterministic"),
    *("model.", "loss.", "optimizer.", "step.", "average", "schedule.", "start."),
)
# What in it is code, though a param names it.
CODE = ("model.source.", "loss.source.")
CAUSES = {
    "seed": "the seed",
    "numerics.profile": "the numerics profile",
    "numerics.threads": "the number of threads",
    "numerics.device": "the device that trains",
    "numerics.deterministic": "whether operations must be deterministic",
    "numerics.fingerprint": "the numerics fingerprint: this machine rounds differently",
    "versions.": "the version of {}",
    "code.": "Surefoot's own code, {}",
    "model.source.": "the model's code, {}",
    "model.": "the model's {}",
    "first_state": "the weights that training starts from",
    "loss.source.": "the loss's code, {}",
    "loss.": "the loss's {}",
    "optimizer.": "the optimizer's {}",
    "step.": "the step's {}",
    "average": "the average of the weights",
    "average.": "the average's {}",
    "schedule.": "the schedule's {}",
    "start.": "what training starts from (train.start_from), its {}",
    "data.": "the data that is trained on, {}",
}


@dataclass(frozen=True)
class Row:
    """A line of the table; `same` is None where there is nothing to compare with."""

    what: str
    recorded: str
    again: str
    same: bool | None


def differing_origins(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two origins: dotted key to a line that names it with both values."""
    one, other = flatten(dict(recorded)), flatten(dict(again))
    if any(one.get(key) != other.get(key) for key in ("numerics.profile", "numerics.threads")):
        other["numerics.fingerprint"] = one.get("numerics.fingerprint")  # it differs because of them
    found = {}
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            prefix = next(
                (prefix for prefix in CAUSES if key == prefix or (prefix.endswith(".") and key.startswith(prefix))),
                None,
            )
            named = CAUSES[prefix].format(key.removeprefix(prefix)) if prefix else key
            found[key] = f"{named} (recorded {_short(one.get(key))}, now {_short(other.get(key))})"
    return found


def params_row(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[Row, list[str]]:
    """The params that were recorded, or those that MLflow has (texts, cut if they are long), against those in
    params.yaml; and a line for each that differs.
    """
    both = [key for key in again if key in recorded and key not in NO_RESULT]
    lines = [
        f"{key} (recorded {_cut(recorded[key], again[key])}, now {_cut(again[key], recorded[key])})"
        for key in both
        if not _same_param(recorded[key], again[key])
    ]
    count = f"{len(both)} params"
    return Row("params", count, f"{len(lines)} others" if lines else count, not lines if both else None), lines


def _same_param(recorded: Any, now: Any) -> bool:
    if recorded == now and type(recorded) is type(now):
        return True
    one, other = str(recorded), str(now)
    if isinstance(recorded, str) and len(recorded) == PARAM_LENGTH:
        other = other[:PARAM_LENGTH]
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _cut(value: Any, other: Any) -> str:
    """A param, of a long one what is around the first character that differs."""
    one, two = str(value), str(other)
    if len(one) <= SHOWN:
        return one
    at = next(
        (place for place, (left, right) in enumerate(zip(one, two, strict=False)) if left != right),
        min(len(one), len(two)),
    )
    start = max(0, at - SHOWN // 4)
    return f"{'...' if start else ''}{one[start : start + SHOWN]}{'...' if start + SHOWN < len(one) else ''}"


def data_row(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[Row, list[str]]:
    """Data digests, and what differs in the data."""
    found = []
    source, now = recorded["source"], again["source"]
    if source["md5"] and now["md5"] and source["md5"] != now["md5"]:
        found.append(f"the raw data, {source['path']} (recorded MD5 {_short(source['md5'])}, now {_short(now['md5'])})")
    for split in ("train", "validation", "test"):
        parts = [name for name in recorded[split] if recorded[split][name] != again[split].get(name)]
        if parts:
            found.append(f"the {split} rows' {' and '.join(parts)}")
    same = recorded["digest"] == again["digest"] and all(
        recorded[split] == again[split] for split in ("train", "validation", "test")
    )
    if not same and not found:
        found.append("how the data is described: names, classes or scaling in data/batches/index.json")
    return Row("data", _short(recorded["digest"]), _short(again["digest"]), same), found


def epochs_row(recorded: Sequence[Epoch], again: Sequence[Epoch], first: int, last: int) -> tuple[Row, int | None]:
    """The states from epoch `first` to `last`, and the first epoch whose state or metrics differ."""
    made = {record.epoch: record for record in again}
    span = f"epochs {first}-{last}" if last > first else f"epoch {first}"
    said = {record.epoch: record for record in recorded}
    for epoch in range(first, last + 1):
        one, other = said.get(epoch), made.get(epoch)
        if one is None or other is None or one.state != other.state or one.metrics != other.metrics:
            was, is_now = (f"{epoch}: {_short(record.state if record else None)}" for record in (one, other))
            return Row(span, was, is_now, False), epoch
    states = f"{last - first + 1} state" + ("s" if last > first else "")
    return Row(span, states, states, True), None


def curves_row(recorded: Sequence[Epoch], shown: Sequence[Mapping[str, float]]) -> tuple[Row, str | None]:
    """The metrics of each epoch against those that MLflow shows, and the first that isn't the same."""
    for record, there in zip_longest(recorded, shown, fillvalue=None):
        one, other = record.metrics if record else {}, there or {}
        name = next(
            (name for name in sorted(one.keys() | other.keys()) if not _same(one.get(name), other.get(name))), None
        )
        if name:
            epoch = record.epoch if record else f"after {len(recorded)}"
            where = f"{name}, epoch {epoch}: "
            line = (
                f"MLflow shows another {name} in epoch {epoch} ({_number(other.get(name))}) than was recorded"
                f" ({_number(one.get(name))})"
            )
            return Row("curves in MLflow", where + _number(one.get(name)), _number(other.get(name)), False), line
    points = f"{sum(len(record.metrics) for record in recorded)} points"
    return Row("curves in MLflow", points, points, True), None


def metric_rows(recorded: Mapping[str, float], again: Mapping[str, float]) -> list[Row]:
    """Test metrics, with the difference where there is one."""
    rows = []
    for name in sorted(recorded.keys() | again.keys()):
        one, other = recorded.get(name), again.get(name)
        same = None if one is None else _same(one, other)
        difference = f" ({other - one:+.3g})" if same is False and one is not None and other is not None else ""
        rows.append(Row(name, _number(one), _number(other) + difference, same))
    return rows


def interval_rows(recorded: Mapping[str, float], again: Mapping[str, float]) -> list[Row]:
    """The ends of the test metrics' intervals, in one row; none where none were recorded, as by an older Surefoot."""
    if not recorded:
        return []
    others = sum(not _same(recorded.get(name), again.get(name)) for name in recorded.keys() | again.keys())
    count = f"{len(recorded)} ends"
    return [Row("test intervals", count, f"{others} others" if others else count, not others)]


def model_row(what: str, recorded: str | None, again: str | None) -> Row:
    """The chosen model's digest."""
    return Row(what, _short(recorded), _short(again), None if recorded is None else recorded == again)


def give_verdict(rows: list[Row], origin: Mapping[str, str]) -> str:
    """Identical if all that was compared is; *cannot say* if it isn't, on other numerics or other packages."""
    compared = [row.same for row in rows if row.same is not None]
    if compared and all(compared):
        return IDENTICAL
    return CANNOT_SAY if any(key.startswith(SURROUNDINGS) for key in origin) else DIFFERS


def causes_to_tell(causes: Mapping[str, str], other_params: bool, symptoms: Sequence[str]) -> list[str]:
    """The causes that don't follow from another one.

    Args:
        causes: from `differing_origins`.
        other_params: whether params differ, which are named beside this.
        symptoms: what else is known to differ; in the data, it was named there.
    """
    follows = ("first_state", *(("data.",) if symptoms or other_params else ()), *(FROM_PARAMS if other_params else ()))
    lines = [line for key, line in causes.items() if not key.startswith(follows) or key.startswith(CODE)]
    return lines or ([] if symptoms or other_params else list(causes.values()))


def what_is_identical(rows: Sequence[Row], others: Sequence[str]) -> list[str]:
    """What was compared, what wasn't, and what differed without changing a bit."""
    lines = [f"{', '.join(row.what for row in rows if row.same)}; every bit of them"]
    lacking = [row.what for row in rows if row.same is None]
    lines += [f"not compared, as MLflow has none: {', '.join(lacking)}"] if lacking else []
    return lines + [f"though not the same: {line}" for line in others]


def unexplained(rows: Sequence[Row]) -> list[str]:
    """What to say where nothing is known to be the cause."""
    differing = ", ".join(row.what for row in rows if row.same is False)
    if any(row.what == "model" and row.same for row in rows):
        return [f"{differing}: MLflow has others than come of the same model"]
    return [f"{differing}: other bits, from the same code, data and params"]


def lines_of_rows(rows: list[Row]) -> list[str]:
    """The rows as lines, in columns."""
    words = {True: "same", False: "DIFFERS", None: "-"}
    cells = [
        ("", "recorded", "made again", ""),
        *((row.what, row.recorded, row.again, words[row.same]) for row in rows),
    ]
    return terminal.table_lines(cells)


def first_tensor(recorded: bytes, again: bytes) -> str | None:
    """The first tensor, by name, that differs between two states or networks (safetensors), and by how much."""
    import safetensors.torch

    try:
        one, other = safetensors.torch.load(recorded), safetensors.torch.load(again)
    except safetensors.SafetensorError:  # a damaged file in MLflow
        return None
    # Weights first: what the optimizer keeps differs as soon as they do.
    differing = [
        name
        for name in sorted(one.keys() | other.keys(), key=lambda name: (name.startswith("optimizer."), name))
        if name not in one
        or name not in other
        or one[name].dtype != other[name].dtype
        or one[name].shape != other[name].shape
        or _different_values(one[name], other[name])
    ]
    if not differing:
        return None
    name = differing[0]
    more = f"; {len(differing) - 1} more tensors differ" if len(differing) > 1 else ""
    if name not in one or name not in other or one[name].shape != other[name].shape:
        return f"{name} is there in one of them only, or in another shape{more}"
    if one[name].dtype != other[name].dtype:
        return f"{name} is {one[name].dtype} in one of them, {other[name].dtype} in the other{more}"
    count, apart = _different_values(one[name], other[name]), (one[name].double() - other[name].double()).abs()
    return f"{name} differs in {count:,} of {apart.numel():,} values, by at most {float(apart.max()):.3g}{more}"


def _different_values(one: Any, other: Any) -> int:
    """How many values of two tensors differ, by bytes: NaN is equal to itself, and 0 isn't -0."""
    import torch

    first, second = (tensor.contiguous().reshape(-1, 1).view(torch.uint8) for tensor in (one, other))
    return int((first != second).any(1).sum())


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one != one and other != other)  # NaN


def _short(value: Any) -> str:
    text = str(value)
    return "missing" if value is None else text[:12] if len(text) in (32, 64) else text


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.6g}"
