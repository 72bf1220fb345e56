"""CSV files, however many, as one stream of rows. What lies beside in csv_*.py is for these alone."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.data.readers.csv_batches import CsvFault, read_batches
from surefoot.data.readers.csv_faults import find_fault
from surefoot.data.readers.csv_types import infer_schema
from surefoot.data.readers.source import BytesRead, Places, RowSource
from surefoot.params.prepare_section import PrepareParams


def open_csv(prepare: PrepareParams, files: list[Path], _labels: Path | None) -> RowSource:
    """The rows of CSV files that have the same columns, file after file.

    A column is of the type of its kind, where prepare.kinds names it; else of the type that fits its values in the
    first megabyte. The target is a string; in regression a float64. Columns that aren't needed aren't parsed.

    Raises:
        UserError: naming file, row and column. Rows count from 1, a header included, empty lines not.
    """
    header = int(prepare.csv.header is True)
    progress, places = BytesRead(), Places(header)
    places.start(files[0], 0)
    schema, inferred = infer_schema(prepare, files)

    def batches() -> Iterator[pa.RecordBatch]:
        rows, at = 0, files[0]
        try:
            for file, batch in read_batches(prepare, files, schema, progress):
                if file is not at:
                    places.start(file, rows)
                    at = file
                rows += batch.num_rows
                # The schema's metadata says more of some columns.
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except CsvFault as fault:
            raise find_fault(prepare, files, schema, inferred, fault) from None
        if not rows:
            place = files[0] if len(files) == 1 else files[0].parent
            raise UserError(f"{place}: has {'a header but ' * header}no rows")

    return RowSource(schema, batches(), places, None, lambda: progress.read, places)
