"""CSV text as Arrow's batches: its reader, and the fault that it finds."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv

from surefoot.data.readers.csv_text import CsvText
from surefoot.data.readers.source import BytesRead
from surefoot.params.prepare_section import PrepareParams


class CsvFault(Exception):
    """What Arrow's reader says of a row, with the names of all columns."""

    def __init__(self, error: Exception, names: list[str]) -> None:
        super().__init__(str(error))
        self.names = names


def read_batches(
    prepare: PrepareParams, files: list[Path], schema: pa.Schema, progress: BytesRead
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Batches, each with the file it is from.

    Raises CsvFault for what Arrow refuses, with its row number across `files`.
    """
    text = CsvText(prepare, files, progress)
    try:
        for number, batch in enumerate(
            arrow_reader(prepare, text, schema.names, dict(zip(schema.names, schema.types, strict=True)))
        ):
            yield text.blocks[number], batch  # Arrow gives a batch for each block that it reads
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise CsvFault(error, text.names) from None
    finally:
        text.close()


def arrow_reader(
    prepare: PrepareParams, text: CsvText, columns: list[str], types: dict[str, pa.DataType]
) -> csv.CSVStreamingReader:
    """Arrow's reader of some columns, each of its type, or of what its values in the first block look like."""
    # Also with a blank before or after; texts keep what stands for a missing value, so that it can be counted, and
    # written beside predictions.
    nulls = [
        f"{before}{value}{after}"
        for value in ("", *prepare.missing.values)
        for before in ("", " ", "  ")
        for after in ("", " ")
    ]
    return csv.open_csv(
        pa.PythonFile(text, mode="r"),
        # Threads don't make this reader faster, and without them it knows in which row a fault is.
        read_options=csv.ReadOptions(use_threads=False, block_size=text.block_bytes, column_names=text.names),
        parse_options=csv.ParseOptions(delimiter=text.delimiter, quote_char=prepare.csv.quote, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=columns, null_values=nulls, decimal_point=prepare.csv.decimal
        ),
    )
