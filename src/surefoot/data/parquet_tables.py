"""Prepared tables as Parquet files: written and read in row groups that fit in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surefoot.base import paths, reading, writing
from surefoot.data.cleaning import Cleaner

GROUP_BYTES = 4 << 20
GROUP_ROWS = 1 << 17


@contextmanager
def _telling_of_full_disks() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise writing.unwritable(paths.PREPARED, error) from None


class RowGroupWriter:
    """Writes batches of any size as row groups of one size, that fit in memory whatever a row's width."""

    def __init__(self, path: Path, schema: pa.Schema, dictionaries: list[str]) -> None:
        self._schema = schema
        # No statistics, and few dictionaries: what they cost, nobody gains.
        with _telling_of_full_disks():
            self._writer = pq.ParquetWriter(
                path, self.stored(), use_dictionary=dictionaries, write_statistics=False, compression="lz4"
            )
        self._rows = group_rows(schema)
        self._pending: list[pa.RecordBatch] = []
        self._count = 0

    def stored(self) -> pa.Schema:
        """The schema of the file."""
        return self._schema

    def store(self, table: pa.Table) -> pa.Table:
        """A row group as it is written."""
        return table

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""
        self._pending.append(batch)
        self._count += batch.num_rows
        if self._count >= self._rows:
            table = pa.Table.from_batches(self._pending, self._schema)
            start = 0
            while self._count - start >= self._rows:
                self._write(table.slice(start, self._rows))
                start += self._rows
            self._pending = table.slice(start).to_batches()
            self._count -= start

    def _write(self, table: pa.Table) -> None:
        stored = self.store(table)
        with _telling_of_full_disks():
            self._writer.write_table(stored, row_group_size=self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._count:
                self._write(pa.Table.from_batches(self._pending, self._schema))
        finally:
            with _telling_of_full_disks():
                self._writer.close()


class TableWriter(RowGroupWriter):
    """A split's table: the numbers of categories and classes are stored as the texts that they stand for."""

    def __init__(self, path: Path, cleaner: Cleaner, target: str) -> None:
        self._vocabularies = cleaner.vocabularies | (
            {} if cleaner.schema.field(target).type == pa.float64() else {target: cleaner.classes}
        )
        super().__init__(path, cleaner.schema, list(self._vocabularies))

    def stored(self) -> pa.Schema:
        """The schema of the file."""
        texts = pa.dictionary(pa.int32(), pa.string())
        metadata = [field.with_type(texts) if field.name in self._vocabularies else field for field in self._schema]
        return pa.schema(metadata)

    def store(self, table: pa.Table) -> pa.Table:
        """A row group with texts in place of their numbers."""
        for name, vocabulary in self._vocabularies.items():
            codes = table.column(name).combine_chunks()
            values = np.from_dlpack(codes)
            valid = None if (values >= 0).all() else pa.py_buffer(np.packbits(values >= 0, bitorder="little"))
            indices = pa.Array.from_buffers(pa.int32(), len(values), [valid, pa.py_buffer(values)])
            table = table.set_column(
                table.schema.get_field_index(name), name, pa.DictionaryArray.from_arrays(indices, vocabulary.values)
            )
        return table


def group_rows(schema: pa.Schema) -> int:
    """Rows in a row group."""
    width = sum(max(1, field.type.bit_width // 8) for field in schema)
    return int(max(1, min(GROUP_ROWS, GROUP_BYTES // width)))


def read_row_groups(table: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, or some columns of them, a row group at a time."""
    with reading.reading_made(table, "prepare", pa.ArrowInvalid, pa.ArrowNotImplementedError):
        reading.open_file(table).close()
        with pq.ParquetFile(table) as file:
            for group in range(file.num_row_groups):  # not iter_batches, which keeps what it has read until the end
                yield from file.read_row_group(group, columns).combine_chunks().to_batches()
