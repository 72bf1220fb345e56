"""What every section of params.yaml shares, and the types that several of them have."""

import math
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from surefoot.params.dotted_keys import flatten

Positive = Annotated[int, Field(gt=0)]


def _dvc_must_see(arguments: dict[str, Any]) -> dict[str, Any]:
    # DVC's run cache overlooks keys of these names in a section (dvc issue 10296): a change would not be seen.
    for name in flatten(arguments):
        if {"size", "nfiles"} & set(name.split(".")):
            raise ValueError(
                f"`{name}` can't be an argument's name: DVC overlooks changes of keys `size` and `nfiles`; rename it"
            )
    return arguments


def _plain(values: Any) -> Any:
    """Pydantic looks at the values of typed fields alone.

    These are recorded as JSON: YAML has sets, dates and bytes, too.
    """
    if isinstance(values, dict):
        if {type(key) for key in values} not in ({str}, {int}, set()):
            raise ValueError("keys in arguments must be texts, or all integers")
        for value in values.values():
            _plain(value)
    elif isinstance(values, list):
        for value in values:
            _plain(value)
    elif isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"arguments must be finite numbers, and {values} is none")
    elif not isinstance(values, str | int | float | None):
        raise ValueError(
            f"arguments must be numbers, texts, true, false, null, lists and mappings, and a {type(values).__name__} is"
            " none; a date is a text in quotes"
        )
    elif isinstance(values, str) and any("\ud800" <= character <= "\udfff" for character in values):
        raise ValueError(f"arguments must be texts that UTF-8 can hold, and {values[:20]!r} is none")
    return values


Arguments = Annotated[dict[str, Any], AfterValidator(_dvc_must_see), AfterValidator(_plain)]


class Section(BaseModel):
    """What every section shares: no unknown keys, no coercion, no NaN or infinity, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def inner_section(annotation: Any) -> type[Section] | None:
    """The section that a field is, or is a list of."""
    kinds = [annotation, *get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
