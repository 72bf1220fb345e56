"""Rows as a CSV or Parquet file, or as CSV on standard output: all of them, or nothing."""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from surefoot.base import terminal, writing


def write_rows(stack: ExitStack, batches: Iterator[pa.RecordBatch], out: Path | None) -> int:
    """Write batches beside, then rename; or, where there is no name, to standard output when all is well.

    Returns the rows.
    """
    if out is None:
        spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        rows = _write_csv(spool, batches)
        spool.seek(0)
        sys.stdout.flush()
        if terminal.is_terminal(sys.stdout):
            terminal.print_lines(
                *(line.rstrip("\n") for line in io.TextIOWrapper(spool, encoding="utf-8", newline="\n")),
                longest=sys.maxsize,
            )
        else:
            shutil.copyfileobj(spool, sys.stdout.buffer)
        return rows
    try:
        with writing.written_beside(out) as beside, beside.open("wb") as file:
            return (_write_csv if out.suffix.lower() == ".csv" else _write_parquet)(file, batches)
    except OSError as error:
        raise writing.unwritable(out, error) from None


def _write_csv(file: Any, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    for batch in batches:
        # Arrow quotes every text, or none; most need none.
        style = "needed" if any(map(_needs_quotes, [*batch.columns, pa.array(batch.schema.names)])) else "none"
        csv.write_csv(batch, file, csv.WriteOptions(include_header=not rows, quoting_style=style, quoting_header=style))
        rows += batch.num_rows
    return rows


def _needs_quotes(column: pa.Array) -> bool:
    if not pa.types.is_string(column.type):
        return False
    return bool(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py())


def _write_parquet(file: Any, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    with ExitStack() as stack:
        writer = None
        for batch in batches:
            writer = writer or stack.enter_context(pq.ParquetWriter(file, batch.schema))
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
