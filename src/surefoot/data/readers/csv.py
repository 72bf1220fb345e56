"""CSV files as one stream of bytes for Arrow's reader, their header rows taken out, however many the files are."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from surefoot.base import terminal
from surefoot.base.errors import UserError
from surefoot.data.arrow import text_array
from surefoot.data.columns import kind_told, many, yaml_key
from surefoot.data.readers.csv_header import cause, comment, names_told
from surefoot.data.readers.csv_text import Text, by_mark
from surefoot.data.readers.source import Places, Progress, Source, check_columns, naming
from surefoot.data.texts import (
    NOTHING,
    Mixture,
    elsewhere,
    missing_in,
    mixture,
    no_number,
    notation_of,
    nullified,
    of_any,
    plain,
    to_numbers,
    what_it_may_be,
)
from surefoot.params.prepare_section import PrepareParams

BLOCK_BYTES = 1 << 20  # fits a CPU's cache: Arrow is a third slower by blocks of 4 MB
KINDS = {"numeric": pa.float64(), "boolean": pa.bool_(), "category": pa.string(), "date": pa.string()}
WANTED = ((pa.types.is_integer, "a whole number"), (pa.types.is_boolean, "true or false"))


def open_csv(prepare: PrepareParams, files: list[Path], _labels: Path | None) -> Source:
    """The rows of CSV files that have the same columns, file after file.

    A column is of the type of its kind, where prepare.kinds names it; else of the type that fits its values in the
    first megabyte. The target is a string; in regression a float64. Columns that aren't needed aren't parsed.

    Raises:
        UserError: naming file, row and column. Rows count from 1, a header included, empty lines not.
    """
    header = int(prepare.csv.header is True)
    progress, places = Progress(), Places(header)
    places.start(files[0], 0)
    schema, inferred = _infer(prepare, files)

    def batches() -> Iterator[pa.RecordBatch]:
        rows, at = 0, files[0]
        try:
            for file, batch in _read(prepare, files, schema, progress):
                if file is not at:
                    places.start(file, rows)
                    at = file
                rows += batch.num_rows
                yield pa.RecordBatch.from_arrays(
                    batch.columns, schema=schema
                )  # with what the metadata says of a column
        except _Fault as fault:
            raise _find(prepare, files, schema, inferred, fault) from None
        if not rows:
            place = files[0] if len(files) == 1 else files[0].parent
            raise UserError(f"{place}: has {'a header but ' * header}no rows")

    return Source(schema, batches(), places, None, lambda: progress.read, places)


class _Fault(Exception):
    """What Arrow's reader says of a row, with the names of all columns."""

    def __init__(self, error: Exception, names: list[str]) -> None:
        super().__init__(str(error))
        self.names = names


def _infer(prepare: PrepareParams, files: list[Path]) -> tuple[pa.Schema, set[str]]:
    """The columns that are needed with their types, and which of the types are guessed from the first block."""
    text = Text(prepare, files, Progress(), BLOCK_BYTES, joined=True)
    try:
        try:
            needed = check_columns(prepare, text.names, files[0])
        except UserError as error:
            raise names_told(error, prepare, files[0], text.decoder) from None
        strings = dict.fromkeys(needed, pa.string())
        try:
            sample = _reader(prepare, text, needed, strings).read_next_batch()
        except (pa.ArrowInvalid, StopIteration) as error:
            if isinstance(error, pa.ArrowInvalid) and "Empty CSV file" not in str(error):
                raise _find(
                    prepare, files, pa.schema(list(strings.items())), set(), _Fault(error, text.names)
                ) from None
            told = {name: _declared(prepare, name) or pa.float64() for name in needed}
            return naming(pa.schema(list(told.items())), text.names), set()
    finally:
        text.close()
    types = {name: kind for name in needed if (kind := _declared(prepare, name))}
    guessed = _guess(prepare, files, needed, types)
    fields = [_field(prepare, files, guessed.field(name), sample.column(name)) for name in needed]
    return naming(pa.schema(fields), text.names), {*needed} - types.keys()


def _guess(prepare: PrepareParams, files: list[Path], needed: list[str], types: dict[str, pa.DataType]) -> pa.Schema:
    """The types by which Arrow would read the first block; texts where numbers are told, as these may be written in
    many ways.
    """
    text = Text(prepare, files, Progress(), BLOCK_BYTES, joined=True)
    given = {name: pa.string() if pa.types.is_floating(kind) else kind for name, kind in types.items()}
    try:
        schema = _reader(prepare, text, needed, given).schema
    except pa.ArrowInvalid as error:
        raise _find(prepare, files, pa.schema(list(types.items())), set(), _Fault(error, text.names)) from None
    finally:
        text.close()
    # An empty column: numbers, if anything comes.
    return pa.schema(
        [
            field.with_type(types.get(field.name, pa.float64() if pa.types.is_null(field.type) else field.type))
            for field in schema
        ]
    )


def _field(prepare: PrepareParams, files: list[Path], field: pa.Field, sample: pa.Array) -> pa.Field:
    """A column as it is to be read: by Arrow, or as text where its values are written as Arrow can't read them; then
    the metadata says the kind.

    Raises:
        UserError: it is one of numbers but for a few texts; or its numbers are written otherwise than params.yaml says.
    """
    name, notation = field.name, notation_of(prepare)
    told = kind_told(name, prepare) or ("numeric" if name == prepare.target and prepare.task == "regression" else None)
    if told not in (None, "numeric") or (told is None and name in (prepare.target, prepare.split.column)):
        return field
    texts = plain(sample)
    words = nullified(texts, notation)
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        integer = {"integer": "true"} if pa.types.is_integer(field.type) else {}
        if integer and pc.any(pc.match_substring_regex(words, r"^[+-]?0\d")).as_py():
            integer |= {"zeros": "true"}
        unit = mixture(words, notation, any_unit=True).unit if told else None
        marked = missing_in(texts, notation).true_count > missing_in(texts, NOTHING).true_count
        if marked or unit or notation.thousands:
            return _as_text(name, "numeric", integer | ({"unit": unit} if unit else {}))
        # As floats, also whole numbers: later ones may have decimals.
        return pa.field(name, pa.float64(), metadata=integer)
    if not pa.types.is_string(field.type) or told or not len(words.drop_null()):
        return field
    if pc.all(pc.is_in(pc.utf8_lower(words.drop_null()), value_set=text_array(["true", "false"]))).as_py():
        return _as_text(name, "boolean", {})
    if pc.any(pc.match_substring_regex(words, r"\d")).as_py():
        found = mixture(words, notation)
        if found.is_numbers:
            return _as_text(name, "numeric", {"unit": found.unit} if found.unit else {})
        if odd := of_any(words, [notation, *elsewhere(notation)]):
            raise _numbers_but(prepare, files, name, words, odd)
    if prepare.csv.quote != "'" and pc.all(pc.match_substring_regex(words.drop_null(), "^'.*'$")).as_py():
        raise UserError(f'{files[0]}: column {name!r}: its values stand in single quotes: prepare.csv.quote: "\'"')
    return field


def _as_text(name: str, kind: str, more: dict[str, str]) -> pa.Field:
    return pa.field(name, pa.string(), metadata={"kind": kind, **more})


def _numbers_but(prepare: PrepareParams, files: list[Path], name: str, texts: pa.Array, odd: Mixture) -> UserError:
    """What to tell of a column that seems to hold numbers, but for some texts; or numbers that are
    written otherwise.
    """
    ours = notation_of(prepare)
    category = f"prepare.kinds: {{{yaml_key(name)}: category}} where the column holds no numbers"
    _, bad = to_numbers(texts, ours, odd.unit)
    first = texts[int(np.flatnonzero(bad)[0])].as_py()
    at = f"{_place(prepare, files, name, first)}, column {name!r}: {first!r}"
    if odd.mixed:
        other = texts[int(np.flatnonzero(odd.numbers)[0])].as_py()
        return UserError(
            f"{at} is a number of another unit than {other!r}, or one of them has none: write all in one way; or"
            f" {category}"
        )
    place = f"{at} is not a number"
    if first not in odd.strays:
        mend = f"but {what_it_may_be(first, ours, odd.unit)}"
    else:
        mend = f"as almost all of the others are; {what_it_may_be(first, ours, odd.unit)}".removesuffix("; ")
    if not odd.strays:
        return UserError(f"{place}, {mend}; or {category}")
    strays = [f"{text!r} ({number:,})" for text, number in odd.strays.items()]
    words = [text for text in odd.strays if not what_it_may_be(text, ours, odd.unit)]
    values = f", such as {', '.join(map(repr, words[:3]))}" if words else ""
    header = " (or is row 1 a header? prepare.csv.header: true, and its names in `names`)" * (
        prepare.csv.header is not True and first == texts[0].as_py()
    )
    return UserError(
        f"{place}, {mend}{header}",
        f"texts among its numbers, with their count: {terminal.first_few(strays, 5)}: mend them, or add to"
        f" prepare.missing.values what stands for a missing value{values}; or {category}",
    )


def _place(prepare: PrepareParams, files: list[Path], name: str, text: str) -> str:
    """The file and row of a text, where it first comes."""
    rows, at = 0, files[0]
    for file, batch in _read(prepare, files, pa.schema([(name, pa.string())]), Progress()):
        rows, at = (rows if file == at else 0), file
        found = pc.index(plain(batch.column(0)), text_array([text])[0]).as_py()
        if found >= 0:
            return f"{file}: row {rows + found + 1 + (prepare.csv.header is True)}"
        rows += batch.num_rows
    return str(files[0])


def _declared(prepare: PrepareParams, name: str) -> pa.DataType | None:
    """The type that params.yaml gives a column."""
    if name == prepare.target:
        return pa.float64() if prepare.task == "regression" else pa.string()
    kind = kind_told(name, prepare)
    return KINDS[kind] if kind else None


def _read(
    prepare: PrepareParams, files: list[Path], schema: pa.Schema, progress: Progress
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Batches, each with the file it is from.

    Raises _Fault for what Arrow refuses, with its row number across `files`.
    """
    text = Text(prepare, files, progress, BLOCK_BYTES)
    try:
        for number, batch in enumerate(
            _reader(prepare, text, schema.names, dict(zip(schema.names, schema.types, strict=True)))
        ):
            yield text.blocks[number], batch  # Arrow gives a batch for each block that it reads
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise _Fault(error, text.names) from None
    finally:
        text.close()


def _reader(
    prepare: PrepareParams, text: Text, columns: list[str], types: dict[str, pa.DataType]
) -> csv.CSVStreamingReader:
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
        read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=text.names),
        parse_options=csv.ParseOptions(delimiter=text.delimiter, quote_char=prepare.csv.quote, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=columns, null_values=nulls, decimal_point=prepare.csv.decimal
        ),
    )


def _find(prepare: PrepareParams, files: list[Path], schema: pa.Schema, inferred: set[str], fault: _Fault) -> UserError:
    """What to tell of a fault. Of several files, read one by one, it is the first that has one."""
    if len(files) == 1:
        return _explain(prepare, files[0], schema, inferred, fault)
    for file in files:
        try:
            for _ in _read(prepare, [file], schema, Progress()):
                pass
        except _Fault as found:
            return _explain(prepare, file, schema, inferred, found)
    return _explain(prepare, files[0].parent, schema, inferred, fault)


def _explain(prepare: PrepareParams, file: Path, schema: pa.Schema, inferred: set[str], fault: _Fault) -> UserError:
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
        if name == prepare.target and not what_it_may_be(value, notation_of(prepare)):
            hint = "; or prepare.task: classification, where it is a class"
        if pa.types.is_floating(kind):
            return UserError(f"{place}: {no_number(value, notation_of(prepare))}{hint}")
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
        told = comment(message.partition(f"got {got}: ")[2]) or cause(
            prepare, file, by_mark(file) or prepare.csv.encoding
        )
        return UserError(
            f"{file}: row {int(row) + header}: has {many(int(got), 'value')}; {by} has"
            f" {expected}{'; ' * bool(told)}{told}"
        )
    if "straddl" in message:
        return UserError(f"{file}: a row is longer than {BLOCK_BYTES} bytes, or a quote is opened and never closed")
    return UserError(f"{file}: not a CSV table: {message.splitlines()[0]}")


def _wider(kind: pa.DataType) -> str:
    return "numeric" if pa.types.is_integer(kind) else "date" if pa.types.is_date(kind) else "category"
