"""Rows split by time: the latest for the test, those before them for validation."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.base.wording import yaml_key
from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.parquet_tables import RowGroupWriter, read_row_groups
from surefoot.data.quantiles import numbers_at_ranks, sortable
from surefoot.data.splits import Splits
from surefoot.data.splitting.clean_rows import RowsToSplit


def split_by_time(rows: RowsToSplit) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """The latest rows for the test, those before them for validation; of the same time, the rows that stand last."""
    # Which rows are the latest, the last of them tells: so they are laid aside first.
    aside = rows.out / "rows.parquet"
    key = "time"
    while key in rows.cleaner.schema.names:
        key += "_"
    schema = rows.cleaner.schema.append(pa.field(key, pa.uint64()))
    total = 0
    with RowGroupWriter(aside, schema, []) as writer:
        for raw, batch, numbered in rows.clean():
            image = _time_image(rows.column(raw, numbered), rows)
            times = pa.Array.from_buffers(pa.uint64(), len(image), [None, pa.py_buffer(image)])
            writer.write(pa.RecordBatch.from_arrays([*batch.columns, times], schema=schema))
            total += batch.num_rows
    tests = round(Fraction(str(rows.test)) * total)
    validations = round(Fraction(str(rows.validation)) * total)
    starts = [total - tests - validations, total - tests]
    limits = (
        numbers_at_ranks(
            lambda: (numpy_values(batch.column(0))[0] for batch in read_row_groups(aside, [key])),
            [min(start, max(total - 1, 0)) for start in starts],
        )
        if total
        else []
    )
    equal_before = [0, 0]
    for batch in read_row_groups(aside):
        image = numpy_values(batch.column(key))[0]
        splits = np.zeros(batch.num_rows, np.int8)
        for number, (limit, rank) in enumerate(limits):
            equal = image == np.uint64(limit)
            here = equal_before[number] + np.cumsum(equal)
            late = (image > np.uint64(limit)) | equal & (here > rank)
            splits += late & np.bool_(starts[number] < total)
            equal_before[number] += int(equal.sum())
        if not tests or not validations:
            splits = np.where(splits > 0, np.int8(2 if tests else 1), np.int8(0))
        yield batch.select(rows.cleaner.schema.names), splits
    aside.unlink()


def _time_image(column: pa.Array, rows: RowsToSplit) -> NDArray[np.uint64]:
    if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
        return sortable(numpy_values(column)[0].astype(np.int64))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = numpy_values(column)[0]
        return (
            sortable(values.astype(np.int64))
            if pa.types.is_integer(column.type)
            else sortable(values.astype(np.float64))
        )
    name = rows.prepare.split.column
    raise UserError(
        f"{rows.prepare.source}: column {name!r} (prepare.split.column) has type {column.type}; a split by time needs"
        f" dates or numbers: set prepare.kinds: {{{yaml_key(str(name))}: date}}"
    )
