"""What each column of a CSV file holds, by its first megabyte: numbers, texts, true or false."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surefoot.base import terminal
from surefoot.base.errors import UserError
from surefoot.base.wording import yaml_key
from surefoot.data.arrow_numpy import text_array
from surefoot.data.columns import kind_told
from surefoot.data.number_notation import (
    NOTHING,
    missing_in,
    nulls_for_missing,
    other_notations,
    texts_to_numbers,
    told_notation,
    trimmed,
    what_it_may_be,
)
from surefoot.data.readers.csv_batches import CsvFault, arrow_reader, read_batches
from surefoot.data.readers.csv_faults import find_fault
from surefoot.data.readers.csv_likely_cause import with_likely_cause
from surefoot.data.readers.csv_text import CsvText
from surefoot.data.readers.source import BytesRead, naming_all, needed_columns
from surefoot.data.stray_texts import Mixture, mixture_by_any, mixture_of
from surefoot.params.prepare_section import PrepareParams

KINDS = {"numeric": pa.float64(), "boolean": pa.bool_(), "category": pa.string(), "date": pa.string()}


def infer_schema(prepare: PrepareParams, files: list[Path]) -> tuple[pa.Schema, set[str]]:
    """The columns that are needed with their types, and which of the types are guessed from the first block."""
    text = CsvText(prepare, files, BytesRead(), joined=True)
    try:
        try:
            needed = needed_columns(prepare, text.names, files[0])
        except UserError as error:
            raise with_likely_cause(error, prepare, files[0], text.decoder) from None
        strings = dict.fromkeys(needed, pa.string())
        try:
            sample = arrow_reader(prepare, text, needed, strings).read_next_batch()
        except (pa.ArrowInvalid, StopIteration) as error:
            if isinstance(error, pa.ArrowInvalid) and "Empty CSV file" not in str(error):
                raise find_fault(
                    prepare, files, pa.schema(list(strings.items())), set(), CsvFault(error, text.names)
                ) from None
            told = {name: declared_type(prepare, name) or pa.float64() for name in needed}
            return naming_all(pa.schema(list(told.items())), text.names), set()
    finally:
        text.close()
    types = {name: kind for name in needed if (kind := declared_type(prepare, name))}
    guessed = _guess(prepare, files, needed, types)
    fields = [_field(prepare, files, guessed.field(name), sample.column(name)) for name in needed]
    return naming_all(pa.schema(fields), text.names), {*needed} - types.keys()


def _guess(prepare: PrepareParams, files: list[Path], needed: list[str], types: dict[str, pa.DataType]) -> pa.Schema:
    """The types by which Arrow would read the first block; texts where numbers are told, as these may be written in
    many ways.
    """
    text = CsvText(prepare, files, BytesRead(), joined=True)
    given = {name: pa.string() if pa.types.is_floating(kind) else kind for name, kind in types.items()}
    try:
        schema = arrow_reader(prepare, text, needed, given).schema
    except pa.ArrowInvalid as error:
        raise find_fault(prepare, files, pa.schema(list(types.items())), set(), CsvFault(error, text.names)) from None
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
    name, notation = field.name, told_notation(prepare)
    told = kind_told(name, prepare) or ("numeric" if name == prepare.target and prepare.task == "regression" else None)
    if told not in (None, "numeric") or (told is None and name in (prepare.target, prepare.split.column)):
        return field
    texts = trimmed(sample)
    words = nulls_for_missing(texts, notation)
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        integer = {"integer": "true"} if pa.types.is_integer(field.type) else {}
        if integer and pc.any(pc.match_substring_regex(words, r"^[+-]?0\d")).as_py():
            integer |= {"zeros": "true"}
        unit = mixture_of(words, notation, any_unit=True).unit if told else None
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
        found = mixture_of(words, notation)
        if found.is_numbers:
            return _as_text(name, "numeric", {"unit": found.unit} if found.unit else {})
        if odd := mixture_by_any(words, [notation, *other_notations(notation)]):
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
    ours = told_notation(prepare)
    category = f"prepare.kinds: {{{yaml_key(name)}: category}} where the column holds no numbers"
    _, bad = texts_to_numbers(texts, ours, odd.unit)
    first = texts[int(np.flatnonzero(bad)[0])].as_py()
    at = f"{place_of_text(prepare, files, name, first)}, column {name!r}: {first!r}"
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


def place_of_text(prepare: PrepareParams, files: list[Path], name: str, text: str) -> str:
    """The file and row of a text, where it first comes."""
    rows, at = 0, files[0]
    for file, batch in read_batches(prepare, files, pa.schema([(name, pa.string())]), BytesRead()):
        rows, at = (rows if file == at else 0), file
        found = pc.index(trimmed(batch.column(0)), text_array([text])[0]).as_py()
        if found >= 0:
            return f"{file}: row {rows + found + 1 + (prepare.csv.header is True)}"
        rows += batch.num_rows
    return str(files[0])


def declared_type(prepare: PrepareParams, name: str) -> pa.DataType | None:
    """The type that params.yaml gives a column."""
    if name == prepare.target:
        return pa.float64() if prepare.task == "regression" else pa.string()
    kind = kind_told(name, prepare)
    return KINDS[kind] if kind else None
