"""Which of a source's text columns hold dates, and in which format: told by params.yaml, or found in the first rows
where they can be read in one way only.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surefoot.base.errors import UserError
from surefoot.base.wording import yaml_key
from surefoot.data.arrow_numpy import is_text, numpy_values
from surefoot.data.columns import KIND, Column, format_told, is_input, kind_of_type, kind_told, told_of_column
from surefoot.data.dates import (
    DATE,
    FORMAT,
    INSTANT,
    KNOWN,
    MOMENT,
    TIME,
    TWO_DIGITS,
    as_date_type,
    date_texts,
    read_dates,
    to_date_column,
)
from surefoot.data.number_notation import Notation, nulls_for_missing, told_notation
from surefoot.data.readers.source import RowSource
from surefoot.data.stray_texts import few_strays
from surefoot.params.date_formats import CLOCK, ISO, is_time_format
from surefoot.params.prepare_section import PrepareParams

SAMPLE_ROWS = 1 << 12
"""The first rows, or a batch, in which formats are looked for."""
LOOKS = 20
"""If none of so many texts is a date, the column isn't looked through."""
Form = tuple[str, pa.DataType]
"""A format, and the type in which its dates are kept."""


def with_dates(source: RowSource, prepare: PrepareParams, of_main: Sequence[Column] = ()) -> RowSource:
    """The source with the dates that are texts, or numbers with a format by params.yaml, as dates; their format in the
    field's metadata.

    Args:
        source: a source as its reader gives it.
        prepare: what params.yaml says.
        of_main: for a separate source the columns of the main one: their dates are read as those there.

    Raises:
        UserError: dates that can be read two ways, or in no one way. The batches raise it for a text that isn't as the
        first ones.
    """
    given = {column.name: column for column in of_main if column.kind == "date"}
    asked = [
        field.name
        for field in source.schema
        if field.name in given or (not of_main and _may_hold_dates(field, prepare))
    ]
    if not asked:
        return source
    first = _first_rows(source.batches)
    forms, notation = {}, told_notation(prepare)
    for column in asked:
        if column in given:
            # What is finer than the main source's is cut off when it is cleaned.
            forms[column] = given[column].format or "", MOMENT if given[column].type == DATE else given[column].type
        elif found := _form(_Texts(first, column, notation), column, prepare, source):
            forms[column] = found
    batches = chain(first, source.batches)
    fields = [_field(field, *forms[field.name]) if field.name in forms else field for field in source.schema]
    schema = pa.schema(fields, source.schema.metadata)
    return dataclasses.replace(
        source, schema=schema, batches=_converted(batches, forms, schema, source, notation) if forms else batches
    )


def _may_hold_dates(field: pa.Field, prepare: PrepareParams) -> bool:
    if (field.metadata or {}).get(KIND):  # texts of which the reader knows what they hold
        return False
    of_time = field.name == prepare.split.column and prepare.split.by == "time"
    if not (of_time or is_input(field.name, prepare)) or kind_told(field.name, prepare) not in (None, "date"):
        return False
    kind = kind_of_type(field.type)
    return kind == "category" or (kind == "numeric" and format_told(field.name, prepare) is not None)


def _first_rows(batches: Iterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    first: list[pa.RecordBatch] = []
    while sum(batch.num_rows for batch in first) < SAMPLE_ROWS and (batch := next(batches, None)) is not None:
        first.append(batch)
    return first


def _field(field: pa.Field, form: str, type_: pa.DataType) -> pa.Field:
    return pa.field(field.name, type_, metadata={FORMAT: form.encode()} if form not in ("", ISO, CLOCK) else None)


def _converted(
    batches: Iterator[pa.RecordBatch], forms: dict[str, Form], schema: pa.Schema, source: RowSource, notation: Notation
) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in batches:
        arrays = []
        for name, array in zip(schema.names, batch.columns, strict=True):
            if name in forms:
                form, type_ = forms[name]
                array, problem = to_date_column(
                    nulls_for_missing(array, notation) if is_text(array.type) else array, type_, form or None
                )
                if problem:
                    raise UserError(f"{source.where(row + problem[0])}, column {name!r}: {problem[1]}")
            arrays.append(array)
        row += batch.num_rows
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Texts:
    """The different texts of a column in some batches."""

    def __init__(self, batches: list[pa.RecordBatch], column: str, notation: Notation) -> None:
        arrays = [nulls_for_missing(date_texts(batch.column(column)), notation) for batch in batches]
        self._coded = pa.concat_arrays([*arrays, pa.nulls(0, pa.string())]).dictionary_encode()
        self.distinct: pa.Array = self._coded.dictionary
        codes, valid = numpy_values(self._coded.indices)
        self.counts = np.bincount(codes if valid is None else codes[valid], minlength=len(self.distinct))

    def where(self, number: int, source: RowSource, column: str) -> str:
        """File, row, column and text of one of them, by its number."""
        row = int(np.flatnonzero(numpy_values(self._coded.indices)[0] == number)[0])
        return f"{source.where(row)}, column {column!r}: {self.distinct[number].as_py()!r}"


def _form(texts: _Texts, column: str, prepare: PrepareParams, source: RowSource) -> Form | None:
    """The format of a column and the type of its dates, by its first rows; None: it holds no dates."""
    form = format_told(column, prepare)
    are_dates = told_of_column(column, prepare.kinds) == "date"
    if form is None:
        form = _find(texts, column, are_dates, source)
    if form is None:
        return (ISO, MOMENT) if are_dates else None
    if is_time_format(form):
        return form, TIME
    seen = read_dates(texts.distinct, form)
    if seen.zoned.any():
        return form, INSTANT
    # Where prepare.kinds says that they are dates, some may have a time that those seen so far haven't.
    return form, MOMENT if are_dates or seen.timed.any() or not seen.found.any() else DATE


def _find(texts: _Texts, column: str, are_dates: bool, source: RowSource) -> str | None:
    distinct = texts.distinct
    looks = distinct.slice(0, LOOKS)
    if not are_dates and not pc.any(pc.match_substring_regex(looks, r"\d")).as_py():  # quicker than to try all formats
        return None
    if not len(distinct) or not (
        are_dates or any(read_dates(looks, form).found.any() for form in (*KNOWN, *TWO_DIGITS))
    ):
        return None
    found = {form: read_dates(distinct, form).found for form in (*KNOWN, *TWO_DIGITS)}
    fits = [form for form in KNOWN if found[form].all()]
    # Where a text isn't of another format, that reads ISO's, too.
    plain = [form for form in (ISO, CLOCK) if form in fits]
    if plain or len(fits) == 1:
        return (plain or fits)[0]
    if fits:
        raise UserError(_two_ways(texts, column, fits, source))
    best = max(found, key=lambda form: int(found[form].sum()))
    if found[best].all():
        raise UserError(_two_digits(texts, column, [form for form in TWO_DIGITS if found[form].all()], source))
    some = np.logical_or.reduce([*found.values()])
    odd = int(np.flatnonzero(~found[best])[0])
    if some.all():
        other = distinct[int(np.flatnonzero(found[best])[0])].as_py()
        raise UserError(
            f"{texts.where(odd, source, column)} is a date that is written otherwise than {other!r}; write all of them"
            f" in one way{_or_else(column)}"
        )
    if are_dates:
        return best
    if not few_strays(
        int(texts.counts[some].sum()), int(texts.counts[~some].sum()), int(some.sum()), int((~some).sum())
    ):
        return None
    odd = int(np.flatnonzero(~some)[0])
    raise UserError(
        f"{texts.where(odd, source, column)} is not a date, as almost all of the others are: mend it, or where it"
        f" stands for a missing value, name it in prepare.missing.values{_or_else(column)}"
    )


def _two_ways(texts: _Texts, column: str, forms: list[str], source: RowSource) -> str:
    either = [as_date_type(read_dates(texts.distinct, form), MOMENT) for form in forms]
    number = next(
        (number for number in range(len(texts.distinct)) if len({days[number].as_py() for days in either}) > 1), None
    )
    place = texts.where(number or 0, source, column)
    if number is None:
        what = "and the others of the first rows don't tell whether days or months come first"
    else:
        what = (
            f"can be {' or '.join(f'{days[number].as_py():%-d %B}' for days in either)}, and none of the first rows"
            " tells which"
        )
    return f"{place} {what}; say it: prepare.dates: {{{yaml_key(column)}: {_quoted(forms)}{_or_else(column)}"


def _two_digits(texts: _Texts, column: str, forms: list[str], source: RowSource) -> str:
    return (
        f"{texts.where(0, source, column)}: a year of two digits may be of one century or the other; write four, or say"
        f" the format, by which 69 to 99 are 1969 to 1999: prepare.dates: {{{yaml_key(column)}:"
        f" {_quoted(forms)}{_or_else(column)}"
    )


def _quoted(forms: list[str]) -> str:
    return " or ".join(f'"{form}"' for form in forms) + "}"


def _or_else(column: str) -> str:
    return f"; or, if the column holds something else, prepare.kinds: {{{yaml_key(column)}: category}}"
