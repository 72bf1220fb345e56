"""What schema.json says of the prepared tables."""

from datetime import date, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from surefoot.data.columns import Column
from surefoot.data.features import transform
from surefoot.data.fitting import ArraysFit, Fit
from surefoot.data.parquet_tables import read_row_groups
from surefoot.params.prepare_section import MISSING_VALUES, PrepareParams

# A row's split follows from these, and from the rows before it.
SPLIT_PARAMS = {"target", "task", "validation", "test", "validation_source", "test_source", "split", "missing"}


def inputs_form(fits: list[Fit]) -> dict[str, Any]:
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


def examples_of(table: Path, columns: list[Column], rows: int = 2) -> list[list[Any]]:
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


def deciding_splits(prepare: PrepareParams) -> dict[str, Any]:
    """What a row's split follows from; texts that stand for a missing value where they aren't the usual ones."""
    given = prepare.model_dump(mode="json", include=SPLIT_PARAMS)
    if prepare.missing.values == MISSING_VALUES:
        del given["missing"]["values"]
    return given
