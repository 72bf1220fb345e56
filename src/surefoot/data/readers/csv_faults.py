"""What to tell of a fault that Arrow's reader finds in a CSV file."""

import re
from pathlib import Path

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import number_of, yaml_key
from surefoot.data.number_notation import not_a_number, told_notation, what_it_may_be
from surefoot.data.readers import csv_text
from surefoot.data.readers.csv_batches import CsvFault, read_batches
from surefoot.data.readers.csv_dialect import encoding_by_mark
from surefoot.data.readers.csv_likely_cause import likely_cause, looks_like_comment
from surefoot.data.readers.source import BytesRead
from surefoot.params.prepare_section import PrepareParams

WANTED = ((pa.types.is_integer, "a whole number"), (pa.types.is_boolean, "true or false"))


def find_fault(
    prepare: PrepareParams, files: list[Path], schema: pa.Schema, inferred: set[str], fault: CsvFault
) -> UserError:
    """What to tell of a fault. Of several files, read one by one, it is the first that has one."""
    if len(files) == 1:
        return _explain(prepare, files[0], schema, inferred, fault)
    for file in files:
        try:
            for _ in read_batches(prepare, [file], schema, BytesRead()):
                pass
        except CsvFault as found:
            return _explain(prepare, file, schema, inferred, found)
    return _explain(prepare, files[0].parent, schema, inferred, fault)


def _explain(prepare: PrepareParams, file: Path, schema: pa.Schema, inferred: set[str], fault: CsvFault) -> UserError:
    """Arrow says `In CSV column #3: Row #7: CSV conversion error to double: invalid value 'x'`."""
    header = prepare.csv.header is True
    message = str(fault)
    found = re.search(
        r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid (?:value '(.*)'|UTF8 data)", message, re.DOTALL
    )
    if found:
        column, row, value = found.groups()
        name = fault.names[int(column)]
        place = f"{file}: row {int(row) + header}, column {name!r}"
        if value is None:
            return UserError(
                f"{place}: a text that is not UTF-8; save it as such, or name its encoding in prepare.csv.encoding"
            )
        kind = schema.field(name).type if name in schema.names else pa.float64()
        hint = (
            f"; or say what the column holds: prepare.kinds: {{{yaml_key(name)}: {_wider(kind)}}}"
            if name in inferred
            else ""
        )
        if name == prepare.target and not what_it_may_be(value, told_notation(prepare)):
            hint = "; or prepare.task: classification, where it is a class"
        if pa.types.is_floating(kind):
            return UserError(f"{place}: {not_a_number(value, told_notation(prepare))}{hint}")
        wanted = next(
            (text for test, text in WANTED if test(kind)), "a date or time such as 2024-12-31 or 2024-12-31 23:59:59"
        )
        return UserError(
            f"{place}: {value!r} is not {wanted}{', as those before it' if name in inferred else ''}{hint}"
        )
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if found:
        row, expected, got = found.groups()
        by = "the header" if header else "prepare.csv.names" if prepare.csv.names else "prepare.csv.header"
        told = looks_like_comment(message.partition(f"got {got}: ")[2]) or likely_cause(
            prepare, file, encoding_by_mark(file) or prepare.csv.encoding
        )
        return UserError(
            f"{file}: row {int(row) + header}: has {number_of(int(got), 'value')}; {by} has"
            f" {expected}{'; ' * bool(told)}{told}"
        )
    if "straddl" in message:
        return UserError(
            f"{file}: a row is longer than {csv_text.BLOCK_BYTES} bytes, or a quote is opened and never closed"
        )
    return UserError(f"{file}: not a CSV table: {message.splitlines()[0]}")


def _wider(kind: pa.DataType) -> str:
    return "numeric" if pa.types.is_integer(kind) else "date" if pa.types.is_date(kind) else "category"
