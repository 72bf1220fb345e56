"""New rows for a model whose preparation is kept: the same inputs, of the same kinds, in the same order."""

from collections.abc import Collection, Iterable, Mapping
from math import prod

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import number_of, quoted_names
from surefoot.data.columns import Column, format_told, kind_told
from surefoot.data.dates import INSTANT
from surefoot.data.kept_preparation import Feature, KeptPreparation
from surefoot.params.prepare_section import PrepareParams

WHOSE = "the model that training starts from (train.start_from)"
ANEW = "or fit the preparation anew (prepare.refit: true)"
FRESH = "or train from fresh weights (train.start_from: null)"


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
