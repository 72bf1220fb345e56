"""The preparation of the model that training starts from (`train.start_from`).

It is kept, so that the model's weights fit whatever new rows bring.
"""

from collections.abc import Collection, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from surefoot.base import paths, reading
from surefoot.base.errors import UserError
from surefoot.base.wording import number_of, quoted_names
from surefoot.data.columns import Column, format_told, kind_told
from surefoot.data.dates import INSTANT
from surefoot.params.date_formats import check_format
from surefoot.params.prepare_section import PrepareParams

FILE = paths.START_FROM / "preparation.json"
BYTES = 256 << 20  # more than any: it has a text for each category
WHOSE = "the model that training starts from (train.start_from)"
ANEW = "or fit the preparation anew (prepare.refit: true)"
FRESH = "or train from fresh weights (train.start_from: null)"
Number = Annotated[float, Field(strict=False)]
Size = Annotated[int, Field(ge=0, lt=2**31)]


class Feature(BaseModel):
    """What becomes of an input column: the dict that `surefoot.data.features` describes, checked."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    column: str
    kind: Literal["numeric", "boolean", "category", "date", "array"]
    first: Size
    width: Size
    names: list[str] = []
    fill: list[Number] | None = None
    indicator: bool = False
    subtract: list[Number] | None = None
    divide: list[Annotated[Number, Field(gt=0)]] | None = None
    parts: list[Literal["year", "month", "day", "weekday", "hour", "minute", "second"]] = []
    unit: str | None = None
    zone: Literal["UTC"] | None = None
    format: Annotated[str, AfterValidator(check_format)] | None = None
    values: list[str | None] = []
    encode: Literal["onehot", "codes"] = "onehot"
    dtype: Literal["uint8", "int64", "float32", "float64"] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> "Feature":
        if self.kind == "array":
            numbers, width = self.width if self.subtract is not None else 0, self.width
        elif self.kind == "category":
            numbers, width = 0, 1 + len(self.values) if self.encode == "onehot" else 1
        else:
            numbers = len(self.parts) if self.kind == "date" else 1
            width = numbers + self.indicator
        scaling = (
            len(self.subtract or []),
            len(self.divide or []),
            len(self.fill) if self.fill is not None else numbers,
        )
        if (
            self.width != width
            or scaling != (numbers, numbers, numbers)
            or (self.kind == "array" and self.dtype is None)
        ):
            raise ValueError("its numbers don't add up")
        return self


class KeptPreparation(BaseModel):
    """A model's preparation: its classes, the features of its inputs, the scale of bytes, and that of a number to
    predict.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    task: Literal["classification", "binary", "regression"]
    classes: list[str]
    features: Annotated[list[Feature], Field(min_length=1)]
    scale: dict[Literal["subtract", "divide"], list[Number]] | None
    target_scale: (
        dict[Literal["subtract", "divide"], Annotated[list[Number], Field(min_length=1, max_length=1)]] | None
    ) = None

    @model_validator(mode="after")
    def _adds_up(self) -> "KeptPreparation":
        first = 0
        for feature in self.features:
            if feature.first != first:
                raise ValueError(f"column {feature.column!r} has no place")
            first += feature.width
        for scale in (self.scale, self.target_scale):
            if scale is not None and (
                scale.keys() != {"subtract", "divide"}
                or len(scale["subtract"]) != len(scale["divide"])
                or 0 in scale["divide"]
            ):
                raise ValueError("a scale's numbers don't add up")
        if (self.task == "regression") != (not self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError("its classes don't fit its task")
        return self

    def plain(self) -> dict[str, Any]:
        """As dicts, as `schema.json` has them; the same preparation gives the same bytes."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse_preparation(given: Any) -> KeptPreparation | None:
    """A preparation that comes from elsewhere, or None where it isn't one."""
    try:
        return KeptPreparation.model_validate(given)
    except (ValidationError, RecursionError):
        return None


def read_preparation(prepare: PrepareParams, path: Path = FILE) -> KeptPreparation | None:
    """The preparation that is to be kept; None where training starts from fresh weights, where it isn't known, or
    params.yaml wants it fitted anew.

    Raises:
        UserError: it can't be read, or is damaged.
    """
    if prepare.refit or not path.exists():
        return None
    try:
        data = reading.read_file(path, BYTES)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    if data.strip() == b"null":
        return None
    try:
        return KeptPreparation.model_validate_json(data)
    except ValidationError:
        raise UserError(
            f"{path} is damaged; `dvc checkout {paths.START_FROM}` brings it back, or `dvc repro --force start_from`"
            " looks it up anew"
        ) from None


def as_kept(prepare: PrepareParams, kept: KeptPreparation) -> PrepareParams:
    """How to prepare new rows for the same features: each column is of the kind that it was.

    Raises:
        UserError: params.yaml says otherwise than the preparation that is kept.
    """
    if prepare.task != kept.task:
        _refuse("prepare.task", prepare.task, kept.task)
    for feature in kept.features:
        told, form = kind_told(feature.column, prepare), format_told(feature.column, prepare)
        if feature.kind == "date" and form and form != feature.format:
            _refuse(f"prepare.dates: {feature.column}", form, feature.format)
        if told and told != feature.kind:
            _refuse(f"prepare.kinds: {feature.column}", told, feature.kind)
        if feature.kind == "category" and feature.encode != prepare.categories:
            _refuse("prepare.categories", prepare.categories, feature.encode)
        _check_fill(feature, prepare)
    _check_normalize(prepare, kept)
    scaled = "none" if kept.target_scale is None else "standard"
    if prepare.task == "regression" and prepare.normalize_target != scaled:
        _refuse("prepare.normalize_target", prepare.normalize_target, scaled)
    kinds = {feature.column: feature.kind for feature in kept.features if feature.kind != "array"}
    dates = {feature.column: feature.format for feature in kept.features if feature.format}
    return prepare.model_copy(update={"kinds": prepare.kinds | kinds, "dates": prepare.dates | dates})


def _refuse(key: str, now: object, before: object) -> None:
    raise UserError(
        f"params.yaml: {key} is {now}, but {before} in the preparation of the model that training starts from"
        " (train.start_from), which is kept",
        f"put that back, {ANEW}",
    )


def _check_fill(feature: Feature, prepare: PrepareParams) -> None:
    if feature.kind == "array":
        return
    policy = getattr(prepare.missing, feature.kind)
    filled = None in feature.values if feature.kind == "category" else feature.fill is not None
    if policy not in ("error", "drop") and not filled:
        raise UserError(
            f"params.yaml: prepare.missing.{feature.kind} is {policy}, but the preparation that is kept, of the model"
            " that training starts from (train.start_from), has nothing for a missing value in column"
            f" {feature.column!r}",
            f"put error or drop, {ANEW}",
        )


def _check_normalize(prepare: PrepareParams, kept: KeptPreparation) -> None:
    numbers = [
        feature
        for feature in kept.features
        if feature.kind in ("numeric", "date") or (feature.kind == "array" and feature.dtype != "int64")
    ]
    plain = kept.scale is None and all(
        not any(feature.subtract or []) and set(feature.divide or [1.0]) == {1.0} for feature in numbers
    )
    if numbers and plain != (prepare.normalize == "none"):
        _refuse("prepare.normalize", prepare.normalize, "none" if plain else "standard")


def check_inputs_there(kept: KeptPreparation, names: Collection[str], source: str) -> None:
    """See whether a source has all inputs of the model among its columns.

    Raises:
        UserError: it hasn't.
    """
    if lacking := [feature.column for feature in kept.features if feature.column not in names]:
        raise UserError(
            f"{source}: {quoted_names(lacking)}: no such input, but {WHOSE} has it", f"bring it back, {FRESH}"
        )


def columns_as_kept(kept: KeptPreparation, chosen: list[Column], source: str) -> list[Column]:
    """The columns of a source in the order in which the model takes them.

    Raises:
        UserError: one is new, or isn't there any more, or is an array of another type or size.
    """
    there = {column.name: column for column in chosen}
    check_inputs_there(kept, there, source)
    known = [feature.column for feature in kept.features]
    if new := [name for name in there if name not in known]:
        raise UserError(
            f"{source}: {quoted_names(new)}: an input that {WHOSE} doesn't have",
            f"leave it out (prepare.ignore), {FRESH}",
        )
    for feature in kept.features:
        _check_form(feature, there[feature.column], source)
    return [there[name] for name in known]


def _check_form(feature: Feature, column: Column, source: str) -> None:
    """Dates, times of day and instants are three kinds, and arrays have a type and a size."""
    told = None
    if feature.kind == "date" and pa.types.is_time(column.type) != ("year" not in feature.parts):
        told = ("times of day", "dates") if "year" in feature.parts else ("dates", "times of day")
    elif feature.kind == "date" and (column.type == INSTANT) != (feature.zone is not None):
        told = ("times without a zone", "with one") if feature.zone else ("times with a zone", "without one")
    if told:
        now, before = told
        raise UserError(
            f"{source}: column {feature.column!r} holds {now}, but {before} in {WHOSE}", f"bring it to that, {FRESH}"
        )
    array, size = column.array, prod(column.array[1]) if column.array else 1
    if (array[0], size) != (feature.dtype, feature.width) if array else feature.kind == "array":
        now = f"{array[0]} of {size} values" if array else "no arrays"
        raise UserError(
            f"{source}: its rows are {now}, but {WHOSE} takes {feature.dtype} of {feature.width} values",
            f"bring them to that, {FRESH}",
        )


def unseen_values(kept: KeptPreparation, counted: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    """For each category column the values that the model hasn't seen, and in how many rows; `counted`: rows by value,
    by column.
    """
    for feature in kept.features:
        known = set(feature.values)
        new = {value: rows for value, rows in counted.get(feature.column, {}).items() if value not in known}
        if new:
            yield f"{feature.column!r}: {quoted_names(new, 3)} ({number_of(sum(new.values()), 'row')})"
