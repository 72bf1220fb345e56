"""A source's batches made clean: one type a kind, nothing infinite, missing values as nulls or, by policy, refused or
dropped with their row.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.base.installation import included_network
from surefoot.base.wording import listed_names, yaml_key
from surefoot.data.arrow_numpy import arrow_mask, null_where, numpy_values
from surefoot.data.casting import (
    EXACT,
    FLOAT32_MAX,
    arrays_to_bytes,
    cast_or_refuse,
    nan_to_null,
    nulls_of,
    to_dates,
    to_numbers,
)
from surefoot.data.columns import Column, kind_of_type, told_unit
from surefoot.data.number_notation import (
    missing_in,
    not_a_number,
    text_counts,
    texts_to_numbers,
    told_notation,
    trimmed,
    without_missing_numbers,
)
from surefoot.data.stray_texts import stray_texts
from surefoot.data.vocabulary import Vocabulary, texts_of_categories
from surefoot.params.prepare_section import PrepareParams

Where = Callable[[int], str]


class Cleaner:
    """Makes a source's batches clean; categories and classes get numbers, which the sources of one
    preparation share.
    """

    def __init__(self, columns: list[Column], prepare: PrepareParams, known: Sequence[str] | None = None) -> None:
        self.columns = columns
        self.vocabularies = {column.name: Vocabulary() for column in columns if column.kind == "category"}
        self.classes = Vocabulary()
        self._known = known  # the classes of the model that training starts from: there can't be another one
        self.dropped: dict[str, int] = {}
        self.missing: dict[str, dict[str, int]] = {}
        """How many values are missing, by column and by the text that stands for them; empty: nothing stands there."""
        self._prepare = prepare
        self._notation = told_notation(prepare)
        self._table = not any(column.kind == "array" for column in columns)
        self._first = 0
        types = [(column.name, column.type) for column in columns]
        target = (
            [(prepare.target, pa.float64() if prepare.task == "regression" else pa.int32())] if prepare.target else []
        )
        self.schema = pa.schema([*types, *target])

    def clean(self, batch: pa.RecordBatch, first: int, where: Where) -> tuple[pa.RecordBatch, NDArray[np.bool_] | None]:
        """A batch of `self.schema`, and which rows of the given one it has; None: all.

        Categories, and the target in classification, are numbers from `vocabularies` and `classes`, -1 where missing.
        `first` is the place in the source of the batch's first row, for messages.

        Raises:
            UserError: naming the row and column of a value that can't be.
        """

        def at(bad: NDArray[np.bool_], name: str) -> str:
            return f"{where(first + int(np.flatnonzero(bad)[0]))}, column {name!r}"

        self._first = first
        arrays, drop = [], np.zeros(batch.num_rows, np.bool_)
        for column in self.columns:
            given = batch.column(column.name)
            array, missing = self._input(column, given, at, told_unit(batch.schema.field(column.name)) or column.unit)
            if missing is not None:
                policy = getattr(self._prepare.missing, "numeric" if column.kind == "array" else column.kind)
                if policy == "error" or (column.kind == "array" and policy != "drop"):
                    raise UserError(f"{at(missing, column.name)}: {_what_stands(given, missing)}{_empty(column)}")
                if policy == "drop":
                    self.drop(f"{column.name!r} is missing", missing & ~drop)
                    drop |= missing
            arrays.append(array)
        if not self._prepare.target:  # rows to predict
            return pa.RecordBatch.from_arrays(arrays, schema=self.schema), None
        given = batch.column(self._prepare.target)
        array, missing = self._target(given, at, told_unit(batch.schema.field(self._prepare.target)))
        if missing is not None:
            if self._prepare.missing.target == "error":
                told = (
                    f"{_what_stands(given, missing)}; a target is needed in every row (or prepare.missing.target: drop)"
                )
                raise UserError(f"{at(missing, self._prepare.target)}: {told}")
            self.drop(f"{self._prepare.target!r} (the target) is missing", missing & ~drop)
            drop |= missing
        cleaned = pa.RecordBatch.from_arrays([*arrays, array], schema=self.schema)
        return (cleaned.filter(arrow_mask(~drop)), ~drop) if drop.any() else (cleaned, None)

    def drop(self, reason: str, rows: NDArray[np.bool_]) -> None:
        """Count rows that are left out."""
        if number := int(rows.sum()):
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def _input(
        self, column: Column, array: pa.Array, at: Callable[..., str], unit: str | None
    ) -> tuple[pa.Array, NDArray[np.bool_] | None]:
        if pa.types.is_null(array.type):
            missing = np.ones(len(array), np.bool_)
            self._count(column.name, "", len(array))
            return (
                _codes(np.full(len(array), -1, np.int32))
                if column.kind == "category"
                else pa.nulls(len(array), column.type)
            ), missing
        if column.kind == "array":
            return arrays_to_bytes(column, array, at)
        if column.kind == "category":
            vocabulary = self.vocabularies[column.name]
            codes = vocabulary.encode(self._coded(column.name, array), self._first)
            if len(vocabulary) > self._prepare.max_categories:
                odd, key = next(iter(stray_texts(dict.fromkeys(vocabulary.labels(), 1))), None), yaml_key(column.name)
                mend = (
                    "leave the column out (prepare.ignore), or raise the limit, best with prepare.categories: codes and"
                    f" {included_network('table:table')}, which embeds them"
                    if odd is None
                    else (
                        f"almost all are numbers: mend {odd!r}, or name it in prepare.missing.values, and set"
                        f" prepare.kinds: {{{key}: numeric}}"
                    )
                )
                raise UserError(
                    f"{at(codes >= self._prepare.max_categories, column.name)}: the category has more than"
                    f" {self._prepare.max_categories} different values (prepare.max_categories); {mend}"
                )
            missing = codes < 0
            return _codes(codes), missing if missing.any() else None
        array = self._present(column.name, array)
        if column.kind == "numeric":
            return self._numbers(column, array, at, self._limit(column), unit)
        if column.kind == "date":
            return to_dates(column, array, at)
        cast = cast_or_refuse(array, column.type, lambda bad: f"{at(bad, column.name)}: ", f"a {column.kind}")
        return cast, nulls_of(cast)

    def _count(self, name: str, text: str, number: int) -> None:
        if number:
            of_column = self.missing.setdefault(name, {})
            of_column[text] = of_column.get(text, 0) + number

    def _coded(self, name: str, array: pa.Array) -> pa.DictionaryArray:
        """Texts by number, without blanks around them; null where one stands for a missing value."""
        coded = texts_of_categories(array).dictionary_encode()
        if not self._table:  # the names of directories, say
            return coded
        self._count(name, "", coded.null_count)
        texts = trimmed(coded.dictionary)
        gone = missing_in(texts, self._notation)
        if gone.true_count:
            codes, valid = numpy_values(coded.indices)
            times = np.bincount(codes if valid is None else codes[valid], minlength=len(texts))
            for number in np.flatnonzero(numpy_values(gone)[0]):
                self._count(name, str(texts[int(number)]), int(times[number]))
            texts = null_where(gone, texts)
        return pa.DictionaryArray.from_arrays(coded.indices, texts)

    def _present(self, name: str, array: pa.Array) -> pa.Array:
        """Values that aren't coded; of texts those that stand for a missing value are nulls."""
        self._count(name, "", array.null_count)
        if not (pa.types.is_string(array.type) and self._table):
            return array
        texts = trimmed(array)
        gone = missing_in(texts, self._notation)
        if not gone.true_count:
            return texts
        for text, number in text_counts(texts.filter(gone)).items():
            self._count(name, text, number)
        return null_where(gone, texts)

    def _numbers(
        self, column: Column, array: pa.Array, at: Callable[..., str], limit: float, unit: str | None
    ) -> tuple[pa.Array, NDArray[np.bool_] | None]:
        """A column of numbers, given as such or as texts; and which are missing."""
        if pa.types.is_string(array.type):
            texts = array
            array, bad = texts_to_numbers(texts, self._notation, unit)
            if bad.any():
                text = texts[int(np.flatnonzero(bad)[0])].as_py()
                raise UserError(f"{at(bad, column.name)}: {not_a_number(text, self._notation, unit)}")
        codes = self._notation.missing_numbers
        if len(codes) and not pa.types.is_boolean(array.type):
            array = self._without(column.name, array, codes)
        array_nulls = array.null_count
        array, missing = to_numbers(column, array, at, limit)
        if missing is not None:
            self._count(column.name, "NaN", int(missing.sum()) - array_nulls)
        return array, missing

    def _without(self, name: str, array: pa.Array, codes: NDArray[np.float64]) -> pa.Array:
        """Nulls for the numbers that stand for a missing value."""
        kept = without_missing_numbers(array, self._notation)
        if kept.null_count > array.null_count:
            values, valid = numpy_values(array)
            for code in codes:
                self._count(name, f"{code:.10g}", int((values[slice(None) if valid is None else valid] == code).sum()))
        return kept

    def _limit(self, column: Column) -> float:
        # Above 2^24 float32 has no longer every integer: two ids become one. Scaled in float64 first, they keep what
        # matters of them.
        return (
            2.0**24
            if column.integer and self._prepare.normalize == "none"
            else EXACT
            if column.integer
            else FLOAT32_MAX
        )

    def _target(
        self, array: pa.Array, at: Callable[..., str], unit: str | None
    ) -> tuple[pa.Array, NDArray[np.bool_] | None]:
        name = self._prepare.target
        if self._prepare.task == "regression":
            if pa.types.is_null(array.type):
                return pa.nulls(len(array), pa.float64()), np.ones(len(array), np.bool_)
            if kind_of_type(array.type) not in ("numeric", "boolean", "category"):
                raise UserError(
                    f"column {name!r} (prepare.target) has type {array.type}; a number is needed for regression"
                )
            return self._numbers(
                Column(name, "numeric", pa.float64()), self._present(name, array), at, FLOAT32_MAX, unit
            )
        if pa.types.is_floating(array.type):
            # 1.0 is class 1; 0.5 is none.
            array = nan_to_null(array)
            array = cast_or_refuse(
                array,
                pa.int64(),
                lambda bad: f"{at(bad, name)}: ",
                "a class, which is a text or a whole number (prepare.task: regression predicts numbers)",
            )
        elif not pa.types.is_null(array.type) and kind_of_type(array.type) is None:
            raise UserError(
                f"column {name!r} (prepare.target) has type {array.type}; a text or a whole number is needed"
            )
        codes = self.classes.encode(self._coded(str(name), array), self._first)
        if self._prepare.task == "binary" and len(self.classes) > 2:
            labels = ", ".join(map(repr, self.classes.labels()[:3]))
            raise UserError(
                f"{at(codes == 2, name)}: a third class; prepare.task: binary needs two, found {labels} (prepare.task:"
                " classification takes any number)"
            )
        if self._known is not None:
            for number, label in enumerate(self.classes.labels()):
                if label not in self._known:
                    raise UserError(
                        f"{at(codes == number, name)}: class {label!r} is new: the model that training starts from"
                        f" (train.start_from) has outputs for {listed_names(self._known)}",
                        "leave such rows out, or train from fresh weights (train.start_from: null)",
                    )
        missing = codes < 0
        return _codes(codes), missing if missing.any() else None


def _empty(column: Column) -> str:
    if column.kind == "array":
        return "; a number is needed everywhere (or prepare.missing.numeric: drop)"
    what = {"numeric": "a number", "boolean": "true or false", "category": "a category", "date": "a date"}[column.kind]
    return f"; {what} is needed in every row (or another policy, prepare.missing.{column.kind})"


def _what_stands(given: pa.Array, missing: NDArray[np.bool_]) -> str:
    """What is there in place of the first value that is missing."""
    value = given[int(np.flatnonzero(missing)[0])].as_py()
    if isinstance(value, list):
        return "holds NaN"
    return (
        f"{value!r} stands for a missing value (prepare.missing.values)"
        if str(value).strip() and value is not None and value == value
        else "empty"
    )


def _codes(codes: NDArray[np.int32]) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(codes), [None, pa.py_buffer(np.ascontiguousarray(codes))])
