"""What a search varies, each a dotted key with a distribution, as `train.lr=log(1e-3,1)`."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from surefoot.base.errors import UserError
from surefoot.base.yaml12 import UnreadableYaml, from_yaml

FORMS = "log(low,high), uniform(low,high), int(low,high) or choice(one,other,...)"
DIGITS = 3  # significant ones, of what is drawn: enough to search by, short enough to read


@dataclass(frozen=True)
class Distribution:
    """`kind` is log, uniform, int or choice; `values` the two bounds, or the choices."""

    kind: str
    values: tuple[Any, ...]

    def rounded(self, value: Any) -> Any:
        """A value that was drawn, shortened, within the bounds."""
        if self.kind not in ("log", "uniform"):
            return value
        low, high = self.values
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def parse_space(texts: list[str]) -> dict[str, Distribution]:
    """`KEY=KIND(...)` each, sorted by key.

    Raises:
        UserError: one of them isn't that, or a key is given twice.
    """
    space: dict[str, Distribution] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([\w.]+)\s*=\s*(\w+)\((.*)\)\s*", text)
        if not match or match[2] not in ("log", "uniform", "int", "choice"):
            raise UserError(f"-S {text}: must be KEY=... with {FORMS}")
        key, kind, inside = match.groups()
        if key in space:
            raise UserError(f"-S {text}: {key} is given twice; keep one")
        space[key] = Distribution(kind, _choices(text, inside) if kind == "choice" else _bounds(text, kind, inside))
    if not space:
        raise UserError(f"-S: give at least one key to vary: KEY=... with {FORMS}")
    return dict(sorted(space.items()))


def _choices(text: str, inside: str) -> tuple[Any, ...]:
    try:
        values = from_yaml(f"[{inside}]")
        if not isinstance(values, list):
            raise ValueError
        spelled = [json.dumps(value, allow_nan=False) for value in values]
    except (UnreadableYaml, ValueError, TypeError):
        raise UserError(f"-S {text}: choices must be values as in params.yaml, with commas between them") from None
    if len(set(spelled)) < max(2, len(spelled)):
        raise UserError(f"-S {text}: choice needs at least two different values")
    return tuple(values)


def _bounds(text: str, kind: str, inside: str) -> tuple[float, float]:
    number = int if kind == "int" else float
    try:
        low, high = (number(part) for part in inside.split(","))
    except ValueError:
        raise UserError(
            f"-S {text}: {kind} needs two {'whole ' if kind == 'int' else ''}numbers: {kind}(low,high)"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"-S {text}: the first number must be less than the second")
    if kind == "log" and low <= 0:
        raise UserError(f"-S {text}: on a logarithmic scale both numbers must be above 0")
    return low, high


def dvc_override(key: str, value: Any) -> str:
    """`KEY=VALUE` as `dvc exp run -S` takes it, in the grammar of Hydra's overrides."""
    return f"{key}={_hydra(value)}"


def _hydra(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_hydra(item)}" for name, item in value.items()) + "}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w./:-]*", value):
        return "'" + value.replace("'", "\\'") + "'"
    return value if isinstance(value, str) else json.dumps(value)
