"""What params.yaml is to say of somebody's data: found by the code that prepares them, in two passes.

The first takes every row as it comes and looks at each column; the second prepares the rows as params.yaml will have
it, so that nothing is written that `dvc repro` would refuse.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surefoot.base.wording import listed_names, number_of
from surefoot.commands.init.raw_data_named import NamedData
from surefoot.data.arrow_numpy import is_text
from surefoot.data.casting import nan_to_null
from surefoot.data.cleaning import Cleaner
from surefoot.data.column_notes import column_lines
from surefoot.data.columns import choose_columns
from surefoot.data.date_columns import with_dates
from surefoot.data.fitting.categories import CategoriesFit
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.fitting.fit_columns import new_fit
from surefoot.data.number_notation import nulls_for_missing, texts_to_numbers, told_notation
from surefoot.data.readers.open_source import open_source
from surefoot.data.schema_json import PreparedSchema
from surefoot.data.separate_sources import OpenSource
from surefoot.data.streams import gather
from surefoot.data.tables import write_tables
from surefoot.data.targets import are_measured
from surefoot.data.vocabulary import Vocabulary, texts_of_categories
from surefoot.params.prepare_section import MissingParams, PrepareParams, SplitSource

GATHER_BYTES = 8 << 20
FEW_ROWS = 8
"""A class of fewer rows may have none in one of the splits."""
ANY_NUMBER = 1 << 62
FILLED = {"numeric": "mean", "boolean": "constant", "category": "constant", "date": "mean", "target": "drop"}
"""What becomes of missing values, by kind of column: they are filled; a row without a target is left out."""
TEACHES_NOTHING = {
    "empty": "empty",
    "constant": "the same in every row",
    "distinct": "another text in every row",
    "counting": "counts the rows",
}


@dataclass(frozen=True)
class Looked:
    """What the data are, and what `prepare` in params.yaml says of them, but for where they lie."""

    values: dict[str, Any]
    schema: PreparedSchema
    told: list[str]


@dataclass(frozen=True)
class _Rows:
    """What the first pass has seen."""

    fits: list[Fit]
    targets: dict[str, int]
    """The rows of each value of the target."""
    without_target: int
    dropped: int
    """Rows of arrays in which a number is missing."""


def look_at_data(raw: NamedData) -> Looked:
    """See what somebody's data are.

    Raises:
        UserError: they can't be read, or not be learned from, and why.
    """
    values: dict[str, Any] = {**raw.values, **{key: str(path) for key, path in raw.files.items()}}
    rows = _all_rows(PrepareParams.model_validate(values))
    chosen = dict(_choices(rows, values["target"]))
    found = {key: value for key, (value, _) in chosen.items()}
    schema = _prepared(PrepareParams.model_validate(values | found))
    told = [*raw.told, *(f"prepare.{key}: {why}" for key, (_, why) in chosen.items()), *column_lines(schema)]
    return Looked({**raw.values, **found}, schema, told)


def _all_rows(prepare: PrepareParams) -> _Rows:
    """The first pass: no value that is missing, and no number of categories, is refused."""
    prepare = prepare.model_copy(update={"missing": MissingParams.model_validate(FILLED), "max_categories": ANY_NUMBER})
    source = with_dates(open_source(prepare, prepare.source, prepare.labels), prepare)
    columns = choose_columns(source.schema, prepare, prepare.source)
    arrays = any(column.kind == "array" for column in columns)  # which nothing can be filled into
    missing = MissingParams(numeric="drop") if arrays else prepare.missing
    cleaner = Cleaner(columns, prepare.model_copy(update={"target": "", "missing": missing}))
    fits = [new_fit(column, prepare, cleaner.vocabularies) for column in columns]
    targets, counts, without, first = Vocabulary(), np.zeros(0, np.int64), 0, 0
    for batch in gather(source.batches, GATHER_BYTES):
        inputs, _ = cleaner.clean(batch, first, source.where)
        for fitted in fits:
            fitted.add(inputs.column(fitted.column.name))
        codes = targets.encode(_target_texts(batch.column(prepare.target), prepare))
        counts = np.pad(counts, (0, len(targets) - len(counts))) + np.bincount(
            codes[codes >= 0], minlength=len(targets)
        )
        without += int((codes < 0).sum())
        first += batch.num_rows
    return _Rows(
        fits, dict(zip(targets.labels(), counts.tolist(), strict=True)), without, sum(cleaner.dropped.values())
    )


def _target_texts(column: pa.Array, prepare: PrepareParams) -> pa.Array:
    if is_text(column.type):
        texts = nulls_for_missing(column, told_notation(prepare))
        if prepare.csv.decimal == ".":
            return texts
        numbers, _ = texts_to_numbers(texts, told_notation(prepare))
        return pc.coalesce(texts_of_categories(numbers), texts)
    return texts_of_categories(nan_to_null(column) if pa.types.is_floating(column.type) else column)


def _choices(rows: _Rows, target: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Keys of `prepare` with a value, and why."""
    yield "task", _task(rows.targets, target)
    ignored = dict(_ignored(rows.fits, sum(rows.targets.values()) + rows.without_target))
    if ignored:
        yield "ignore", (list(ignored), ", ".join(f"{name!r} ({why})" for name, why in ignored.items()))
    yield from _missing(rows, ignored)
    if not are_measured(rows.targets) and (few := [label for label, count in rows.targets.items() if count < FEW_ROWS]):
        why = f"by row, as there are too few rows of {listed_names(few)} for a share of them in each split"
        yield "split", ({"by": "row"}, why)


def _task(targets: Mapping[str, int], target: str) -> tuple[str, str]:
    values = f"{target!r} has {number_of(len(targets), 'value')}"
    if are_measured(targets):
        return "regression", f"regression, as {values}, all numbers"
    if len(targets) == 2:
        return "binary", f"binary, as {values}: {listed_names(targets)}"
    return "classification", f"classification, as {values}: {listed_names(targets)}"


def _ignored(fits: list[Fit], rows: int) -> Iterator[tuple[str, str]]:
    """Columns from which nothing is learned, with the reason."""
    most = PrepareParams.model_fields["max_categories"].default
    for fitted in fits:
        doubts = fitted.doubts()
        if why := next((why for doubt, why in TEACHES_NOTHING.items() if doubt in doubts), None):
            yield fitted.column.name, why
        elif isinstance(fitted, CategoriesFit):
            values, there = len(fitted.counts), rows - fitted.missing
            if values > most or (there >= 20 and 2 * values > there):
                yield fitted.column.name, f"{values:,} different texts in {number_of(there, 'row')}"


def _missing(rows: _Rows, ignored: Mapping[str, str]) -> Iterator[tuple[str, tuple[Any, str]]]:
    """What becomes of missing values, of the kinds of columns that have any."""
    counts: dict[str, int] = {}
    for fitted in rows.fits:
        if fitted.missing and fitted.column.name not in ignored:
            counts[fitted.column.kind] = counts.get(fitted.column.kind, 0) + fitted.missing
    if rows.without_target:
        counts["target"] = rows.without_target
    if not counts and not rows.dropped:
        return
    values: dict[str, Any] = {kind: FILLED[kind] for kind in counts} | ({"numeric": "drop"} if rows.dropped else {})
    found = counts | ({"numeric": rows.dropped} if rows.dropped else {})
    why = ", ".join(f"{kind}: {values[kind]} ({count:,} missing)" for kind, count in found.items())
    if counts.keys() & {"numeric", "boolean", "date"}:
        values["indicator"] = True
        why += "; a column beside each that is filled says where (indicator)"
    yield "missing", (values, why)


def _prepared(prepare: PrepareParams) -> PreparedSchema:
    """The second pass: what prepare makes of the data."""

    def opener(each: SplitSource) -> OpenSource:
        return lambda told: open_source(told, each.source, each.labels)

    main, *separate = prepare.sources
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(prepare, main.source, main.labels)
        openers = {each.split: opener(each) for each in separate}
        return write_tables(Path(scratch), prepare, 0, source, openers)[0]
