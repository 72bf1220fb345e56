"""What schema.json says of the prepared tables."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from surefoot.base.documents import Count, Document
from surefoot.data.batch_index import Scale
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column, index_names, left_out, names_in
from surefoot.data.features import FeatureDict, transform
from surefoot.data.fitting.arrays import ArraysFit
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.fitting.fit_columns import fitted_features
from surefoot.data.kept_preparation import KeptPreparation
from surefoot.data.parquet_tables import read_row_groups
from surefoot.data.part_files import PartFile, PartFileRows
from surefoot.data.splits import SPLITS
from surefoot.data.targets import Targets
from surefoot.params.prepare_section import MISSING_VALUES, PrepareParams

# A row's split follows from these, and from the rows before it.
SPLIT_PARAMS = {"target", "task", "validation", "test", "validation_source", "test_source", "split", "missing"}


class PreparedSchema(Document):
    """`schema.json`. The fields are written in this order."""

    source: str
    task: Literal["classification", "binary", "regression"]
    target: str
    classes: list[str]
    rows: dict[str, Count]
    """By split."""
    dropped: dict[str, Count]
    """How many rows were, by the reason."""
    missing: dict[str, dict[str, Count]]
    """Of each column that lacks values: how many, by what stands for them."""
    left_out: list[str]
    """Columns."""
    split: dict[str, Any]
    """What a row's split follows from."""
    parts: list[PartFile]
    features: list[FeatureDict]
    dtype: str
    """Of inputs, as their shape and scale."""
    shape: list[Count]
    scale: Scale | None
    target_scale: Scale | None = None
    examples: list[Any]
    """Raw rows."""
    notation: dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """What was learned and counted while the rows went into their tables."""

    cleaner: Cleaner
    fits: list[Fit]
    targets: Targets
    parts: list[PartFileRows]


def describe_tables(
    out: Path, prepare: PrepareParams, seed: int, main: pa.Schema, learned: Learned, keep: KeptPreparation | None
) -> PreparedSchema:
    """What `schema.json` says of the tables in the directory `out`; `main` is the main source's schema."""
    train, cleaner, targets = out / "train.parquet", learned.cleaner, learned.targets

    def values(column: str) -> Callable[[], Iterator[pa.Array]]:
        return lambda: (batch.column(0) for batch in read_row_groups(train, [column]))

    described = {
        "source": prepare.source,
        "task": prepare.task,
        "target": prepare.target,
        "classes": targets.classes(),
        "rows": dict(zip(SPLITS, targets.rows, strict=True)),
        "dropped": cleaner.dropped,
        "missing": cleaner.missing,
        "left_out": left_out(names_in(main), prepare, index_names(main)),
        "split": {"seed": seed} | {f"prepare.{name}": value for name, value in _deciding_splits(prepare).items()},
        "parts": [part for parts in learned.parts for part in parts.describe()],
        "features": keep.plain()["features"] if keep else fitted_features(learned.fits, values),
        **_inputs_form(learned.fits),
        **({} if keep else targets.scale()),
        "examples": _examples(train, cleaner.columns),
        "notation": {
            "missing": list(prepare.missing.values),
            "decimal": prepare.csv.decimal,
            "thousands": prepare.csv.thousands,
        },
    }
    if keep:
        kept_scale = {"target_scale": keep.plain()["target_scale"]} if keep.target_scale else {}
        described |= {"classes": keep.classes, "scale": keep.scale, **kept_scale}
    if described["shape"] is None:
        last = described["features"][-1]
        described["shape"] = [last["first"] + last["width"]]
    return PreparedSchema.model_validate(described)


def _inputs_form(fits: list[Fit]) -> dict[str, Any]:
    """Dtype, shape and scale of the inputs; of columns the shape follows from the features."""
    first, *_ = fits
    if not isinstance(first, ArraysFit):
        return {"dtype": "float32", "shape": None, "scale": None}
    dtype = str(first.column.array[0]) if first.column.array else ""
    return {
        "dtype": "float32" if dtype.startswith("float") else dtype,
        "shape": list(first.shape),
        "scale": first.scale(),
    }


def _examples(table: Path, columns: list[Column], rows: int = 2) -> list[list[Any]]:
    """The first training rows, as they come: for the model's input example."""
    for batch in read_row_groups(table):
        given = [_plain(batch.column(column.name).slice(0, rows), column) for column in columns]
        return [list(row) for row in zip(*given, strict=True)]
    return []


def _plain(array: pa.Array, column: Column) -> list[Any]:
    if column.array is not None:
        raw = {"column": column.name, "kind": "array", "dtype": column.array[0], "subtract": None}
        return list(transform({column.name: array}, [raw]).reshape(-1, *column.array[1]).tolist())
    return [value.isoformat() if isinstance(value, date | time) else value for value in array.to_pylist()]


def _deciding_splits(prepare: PrepareParams) -> dict[str, Any]:
    """What a row's split follows from; texts that stand for a missing value where they aren't the usual ones."""
    given = prepare.model_dump(mode="json", include=SPLIT_PARAMS)
    if prepare.missing.values == MISSING_VALUES:
        del given["missing"]["values"]
    return given
