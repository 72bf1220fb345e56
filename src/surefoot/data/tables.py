"""Prepared tables: a Parquet file a split, with `schema.json` and `statistics.json` beside them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, time
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from surefoot.base import paths, reading, writing
from surefoot.base.errors import UserError
from surefoot.data import kept_preparation
from surefoot.data.arrow import mask as arrow_mask
from surefoot.data.arrow import numbers
from surefoot.data.cleaning import Cleaner, describe_dropped
from surefoot.data.columns import (
    Column,
    choose,
    index_names,
    is_number,
    kind_of_type,
    kind_told,
    left_out,
    many,
    names_in,
    quoted,
    some,
    yaml_key,
)
from surefoot.data.date_columns import with_dates
from surefoot.data.features import Arrays, Categories, Fit, features, fit, natural, transform
from surefoot.data.kept_preparation import Kept
from surefoot.data.normalization import Statistics, normalize, scaling, select, sortable
from surefoot.data.part_files import Parts
from surefoot.data.readers.source import Source
from surefoot.data.separate_sources import Blocks, Open, as_main, count_shared, told_by
from surefoot.data.splitting import SPLITS, ByClass, hash_texts, split_groups
from surefoot.data.taken_as import alike, doubtful, wide
from surefoot.data.texts import notation_of, nullified
from surefoot.data.vocabulary import keys, texts_of_categories
from surefoot.params.prepare_section import MISSING_VALUES, PrepareParams

GROUP_BYTES = 4 << 20
GROUP_ROWS = 1 << 17
GATHER_BYTES = 8 << 20
GATHER_ROWS = 1 << 12

# A row's split follows from these, and from the rows before it.
SPLIT_PARAMS = {"target", "task", "validation", "test", "validation_source", "test_source", "split", "missing"}

Splits = NDArray[np.int8]
Item = TypeVar("Item")


def write_tables(
    out: Path,
    prepare: PrepareParams,
    seed: int,
    source: Source,
    validation: Open | None = None,
    test: Open | None = None,
    keep: Kept | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Split a source's rows into tables in the directory `out`, and fit the preparation on the training rows, or keep
    one (`kept.as_kept` has given `prepare`).

    Returns what `schema.json` says, and what the user should be warned of. `validation` and `test` open separate
    sources, as the main one's columns are.

    Raises:
        UserError: the data aren't as params.yaml says, or can't be learned from; the disk is full.
    """
    if keep:
        kept_preparation.check_there(keep, names_in(source.schema), prepare.source)
    source = with_dates(source, prepare)
    columns = choose(source.schema, prepare, prepare.source)
    _check_arrays(columns, prepare)
    columns = kept_preparation.columns(keep, columns, prepare.source) if keep else columns
    cleaner = Cleaner(columns, prepare, keep.classes if keep else None)
    own: dict[str, Source] = {}
    for split, opened in (("validation", validation), ("test", test)):
        if opened is not None:
            other = with_dates(opened(told_by(prepare, columns)), prepare, columns)
            own[split] = as_main(
                other, source.schema, columns, prepare, str(getattr(prepare, f"{split}_source")), f"{split}_source"
            )
    fits = [fit(column, prepare, cleaner.vocabularies) for column in columns]
    targets = Targets(cleaner, prepare)
    parts = Parts(source)
    of_others: list[Parts] = []
    with ExitStack() as stack:
        tables = [stack.enter_context(_Table(out / f"{split}.parquet", cleaner, prepare.target)) for split in SPLITS]
        for batch, splits in _split_source(out, prepare, seed, source, cleaner, parts):
            parts.split(splits)
            for number, table in enumerate(tables):
                if not (splits == number).any():
                    continue
                part = batch.filter(arrow_mask(splits == number))
                table.write(part)
                targets.add(number, part.column(prepare.target))
                if number == 0:
                    for fitted in fits:
                        fitted.add(part.column(fitted.column.name))
        targets.check_source()
        for split, other in own.items():
            number = SPLITS.index(split)
            of_others.append(Parts(other))
            for batch, rows in _clean(other, cleaner, of_others[-1]):
                of_others[-1].split(np.full(len(rows), number, np.int8))
                targets.check_known(batch.column(prepare.target), rows, other.where, split)
                tables[number].write(batch)
                targets.add(number, batch.column(prepare.target))
    targets.check_splits()
    _refuse_stray_texts(fits, prepare, cleaner, source)
    described = {
        "source": prepare.source,
        "task": prepare.task,
        "target": prepare.target,
        "classes": targets.classes(),
        "rows": dict(zip(SPLITS, targets.rows, strict=True)),
        "dropped": cleaner.dropped,
        "missing": cleaner.missing,
        "left_out": left_out(names_in(source.schema), prepare, index_names(source.schema)),
        "split": {"seed": seed} | {f"prepare.{name}": value for name, value in _deciding_splits(prepare).items()},
        "parts": [part for some in (parts, *of_others) for part in some.describe()],
        "features": (
            keep.plain()["features"]
            if keep
            else features(
                fits, lambda column: lambda: (batch.column(0) for batch in _read(out / "train.parquet", [column]))
            )
        ),
        **_form(fits),
        **({} if keep else targets.scale()),
        "examples": _examples(out / "train.parquet", columns),
        "notation": {
            "missing": list(prepare.missing.values),
            "decimal": prepare.csv.decimal,
            "thousands": prepare.csv.thousands,
        },
    }
    if keep:
        described |= {
            "classes": keep.classes,
            "scale": keep.scale,
            **({"target_scale": keep.plain()["target_scale"]} if keep.target_scale else {}),
        }
    if described["shape"] is None:
        last = described["features"][-1]
        described["shape"] = [last["first"] + last["width"]]
    writing.write_json(
        out / "statistics.json",
        targets.statistics() | {"training_inputs": {fitted.column.name: fitted.statistics() for fitted in fits}},
    )
    writing.write_json(out / "schema.json", described)
    notes = [
        *doubtful(fits, described["left_out"]),
        *wide(described),
        *alike(described),
        *(_kept_notes(keep, fits) if keep else []),
    ]
    return described, [*notes, *_shared(out, prepare, described["rows"], [*own])]


def read_schema(prepared: Path) -> dict[str, Any]:
    """What `write_tables` said of the tables in the directory `prepared`.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    return reading.read_made_json(prepared / "schema.json", "prepare")


def read_table(prepared: Path, split: str, schema: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a split, block by block; a thread prepares the next one meanwhile.

    Inputs as the network gets them, of the schema's dtype, (rows, *shape); targets (rows,): int64 class indices;
    float32 0 and 1 for binary; the number itself for regression, in float64 where `target_scale` is left to the
    training step, or else in float32.

    Raises:
        UserError: a value that overflows when it is scaled.
    """
    return _ahead(_blocks(prepared, split, schema))


def _blocks(prepared: Path, split: str, schema: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index = {label: number for number, label in enumerate(schema["classes"])}
    for batch in _read(prepared / f"{split}.parquet"):
        inputs = transform(batch, schema["features"])
        if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
            _refuse_overflow(inputs, schema, prepared / f"{split}.parquet")
        target = batch.column(schema["target"])
        if schema["task"] == "regression":
            targets = _numbers_to_predict(np.from_dlpack(target), schema, prepared / f"{split}.parquet")
        else:
            known = np.array([index.get(label, -1) for label in target.dictionary.to_pylist()], dtype=np.int64)
            targets = known[np.from_dlpack(target.indices)].astype(
                np.float32 if schema["task"] == "binary" else np.int64
            )
        yield inputs.reshape(-1, *schema["shape"]), targets


def _refuse_overflow(inputs: np.ndarray, schema: dict[str, Any], table: Path) -> None:
    place = int(np.flatnonzero(~np.isfinite(inputs).all(axis=0))[0])
    column = next(
        feature["column"]
        for feature in schema["features"]
        if feature["first"] <= place < feature["first"] + feature["width"]
    )
    raise UserError(
        f"{table}: column {column!r}: scaled, a value is more than float32 can hold; leave the column out"
        " (prepare.ignore), or mend it"
    )


def _numbers_to_predict(values: np.ndarray, schema: dict[str, Any], table: Path) -> np.ndarray:
    scale = schema.get("target_scale")
    if scale is None:
        return values.astype(np.float32)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(normalize(values, **scale))
    if bad.any():
        where = f"{table}: column {schema['target']!r} (prepare.target)"
        raise UserError(
            f"{where}: {float(values[bad][0])!r}, scaled, is more than float32 can hold; mend it, or leave the row out"
        )
    return values


# --- rows, cleaned and split ----------------------------------------------------------------------


def _clean(source: Source, cleaner: Cleaner, parts: Parts) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
    """The clean batches of a source, each with the places of its rows in the source."""
    for _, batch, rows in _clean_with_raw(source, cleaner, parts):
        yield batch, rows


def _clean_with_raw(
    source: Source, cleaner: Cleaner, parts: Parts, chosen: Callable[[pa.RecordBatch], NDArray[np.bool_]] | None = None
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
    """The same with the batches as they came; of their clean rows those that are chosen."""
    first = 0
    for raw in _gather(source.batches):
        batch, kept = cleaner.clean(raw, first, source.where)
        rows = np.arange(first, first + raw.num_rows)
        first += raw.num_rows
        if kept is not None:
            raw, rows = raw.filter(arrow_mask(kept)), rows[kept]
        if chosen is not None and not (these := chosen(raw)).all():
            raw, batch, rows = raw.filter(arrow_mask(these)), batch.filter(arrow_mask(these)), rows[these]
        parts.keep(rows)
        yield raw, batch, rows


def _missing(array: pa.Array) -> NDArray[np.bool_]:
    return numbers(array.is_null(nan_is_null=True))[0].astype(np.bool_)


def _gather(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of a thousand rows and more, as far as memory goes: what is done once a batch and column costs less."""
    pending, rows, size = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        pending.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GATHER_ROWS or size >= GATHER_BYTES:
            yield pending[0] if len(pending) == 1 else pa.concat_batches(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.concat_batches(pending)


def _split_source(
    out: Path, prepare: PrepareParams, seed: int, source: Source, cleaner: Cleaner, parts: Parts
) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """The clean batches of the main source, and the split of each row: a source of its own has taken a
    split's place.
    """
    fractions = (
        prepare.validation if prepare.validation_source is None else 0.0,
        prepare.test if prepare.test_source is None else 0.0,
    )
    by = _SPLITTERS[prepare.split.by if (prepare.split.by, prepare.task) != ("class", "regression") else "row"]
    return by(_Rows(out, prepare, seed, source, cleaner, parts), *fractions)


class _Rows:
    """What a way to split works on."""

    def __init__(
        self, out: Path, prepare: PrepareParams, seed: int, source: Source, cleaner: Cleaner, parts: Parts
    ) -> None:
        self.out, self.prepare, self.seed, self.source, self.cleaner, self.parts = (
            out,
            prepare,
            seed,
            source,
            cleaner,
            parts,
        )

        name = prepare.split.column
        kind = None if name is None else kind_told(name, prepare) or kind_of_type(source.schema.field(name).type)
        self.missing = str(getattr(prepare.missing, kind, "error")) if kind else "error"
        """What becomes of a row without a value to split by."""
        self._kind = kind

    def with_raw(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.int64]]]:
        """`_clean_with_raw` of the rows that can be split."""
        return _clean_with_raw(self.source, self.cleaner, self.parts, self._there if self.missing == "drop" else None)

    def _there(self, raw: pa.RecordBatch) -> NDArray[np.bool_]:
        there = ~_missing(self._values(raw))
        self.cleaner.drop(f"{self.prepare.split.column!r} (prepare.split.column) is missing", ~there)
        return there

    def _values(self, raw: pa.RecordBatch) -> pa.Array:
        column = raw.column(str(self.prepare.split.column))
        return nullified(column, notation_of(self.prepare)) if pa.types.is_string(column.type) else column

    def column(self, raw: pa.RecordBatch, rows: NDArray[np.int64]) -> pa.Array:
        """The split column; where missing values aren't filled in, or it is a time, without any."""
        name, by = str(self.prepare.split.column), self.prepare.split.by
        column = self._values(raw)
        missing = _missing(column)
        if missing.any() and (self.missing == "error" or by == "time"):
            ways = "drop leaves such rows out" + (", constant makes a group of them" if by == "group" else "")
            raise UserError(
                f"{self.source.where(int(rows[np.flatnonzero(missing)[0]]))}, column {name!r}: empty; prepare.split.by:"
                f" {by} needs a value in every row (prepare.missing.{self._kind}: {ways})"
            )
        return column


def _by_class(rows: _Rows, validation: float, test: float) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    places, labels = ByClass(rows.seed, validation, test), list[str]()
    for batch, _ in _clean(rows.source, rows.cleaner, rows.parts):
        if len(rows.cleaner.classes) > len(labels):
            labels = rows.cleaner.classes.labels()
        yield batch, places.split(numbers(batch.column(rows.prepare.target))[0], labels)


def _by_row(rows: _Rows, validation: float, test: float) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    places = ByClass(rows.seed, validation, test)
    for batch, _ in _clean(rows.source, rows.cleaner, rows.parts):
        yield batch, places.split(np.zeros(batch.num_rows, np.int32), [""])


def _by_group(rows: _Rows, validation: float, test: float) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    for raw, batch, numbered in rows.with_raw():
        column = rows.column(raw, numbered)
        if pa.types.is_nested(column.type):
            raise UserError(
                f"{rows.prepare.source}: column {rows.prepare.split.column!r} (prepare.split.column) holds arrays,"
                " which can't be groups"
            )
        texts = texts_of_categories(column).dictionary_encode("encode")  # all that are missing are one group
        names = pa.concat_arrays([keys(texts.dictionary), pa.nulls(0, pa.string())])
        _, offsets, data = names.buffers()
        bounds = (
            np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1]
            if len(names)
            else np.zeros(1, np.int32)
        )
        hashes = hash_texts(bounds, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8))
        yield batch, split_groups(hashes, rows.seed, validation, test)[np.from_dlpack(texts.indices)]


def _by_time(rows: _Rows, validation: float, test: float) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """The latest rows for the test, those before them for validation; of the same time, the rows that stand last."""
    # Which rows are the latest, the last of them tells: so they are laid aside first.
    aside = rows.out / "rows.parquet"
    key = "time"
    while key in rows.cleaner.schema.names:
        key += "_"
    schema = rows.cleaner.schema.append(pa.field(key, pa.uint64()))
    total = 0
    with _Writer(aside, schema, []) as writer:
        for raw, batch, numbered in rows.with_raw():
            image = _time_image(rows.column(raw, numbered), rows)
            times = pa.Array.from_buffers(pa.uint64(), len(image), [None, pa.py_buffer(image)])
            writer.write(pa.RecordBatch.from_arrays([*batch.columns, times], schema=schema))
            total += batch.num_rows
    tests = round(Fraction(str(test)) * total)
    validations = round(Fraction(str(validation)) * total)
    starts = [total - tests - validations, total - tests]
    limits = (
        select(
            lambda: (numbers(batch.column(0))[0] for batch in _read(aside, [key])),
            [min(start, max(total - 1, 0)) for start in starts],
        )
        if total
        else []
    )
    equal_before = [0, 0]
    for batch in _read(aside):
        image = numbers(batch.column(key))[0]
        splits = np.zeros(batch.num_rows, np.int8)
        for number, (limit, rank) in enumerate(limits):
            equal = image == np.uint64(limit)
            here = equal_before[number] + np.cumsum(equal)
            late = (image > np.uint64(limit)) | equal & (here > rank)
            splits += late & np.bool_(starts[number] < total)
            equal_before[number] += int(equal.sum())
        if not tests or not validations:
            splits = np.where(splits > 0, np.int8(2 if tests else 1), np.int8(0))
        yield batch.select(rows.cleaner.schema.names), splits
    aside.unlink()


def _time_image(column: pa.Array, rows: _Rows) -> NDArray[np.uint64]:
    if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
        return sortable(numbers(column)[0].astype(np.int64))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = numbers(column)[0]
        return (
            sortable(values.astype(np.int64))
            if pa.types.is_integer(column.type)
            else sortable(values.astype(np.float64))
        )
    name = rows.prepare.split.column
    raise UserError(
        f"{rows.prepare.source}: column {name!r} (prepare.split.column) has type {column.type}; a split by time needs"
        f" dates or numbers: set prepare.kinds: {{{yaml_key(str(name))}: date}}"
    )


_SPLITTERS: dict[str, Callable[[_Rows, float, float], Iterator[tuple[pa.RecordBatch, Splits]]]] = {
    "class": _by_class,
    "row": _by_row,
    "group": _by_group,
    "time": _by_time,
}


# --- targets --------------------------------------------------------------------------------------


class Targets:
    """Counts the rows of each split, by class; in regression measures the target."""

    def __init__(self, cleaner: Cleaner, prepare: PrepareParams) -> None:
        self.rows = [0] * len(SPLITS)
        self._counts = np.zeros((len(SPLITS), 0), np.int64)
        self._measured = Statistics(1)
        self._cleaner, self._prepare = cleaner, prepare
        # Those with a source of their own are what the user says.
        self._drawn = [split for split in SPLITS if split == "train" or getattr(prepare, f"{split}_source") is None]

    def add(self, number: int, target: pa.Array) -> None:
        """Count the targets of rows of a split."""
        self.rows[number] += len(target)
        values = numbers(target)[0]
        if self._prepare.task != "regression":
            self._grow()
            self._counts[number] += np.bincount(values, minlength=self._counts.shape[1])
        elif number == 0:
            self._measured.add(values[:, None])

    def _grow(self) -> None:
        if missing := len(self._cleaner.classes) - self._counts.shape[1]:
            self._counts = np.pad(self._counts, ((0, 0), (0, missing)))

    def classes(self) -> list[str]:
        """The classes, sorted: numbers by value, before texts."""
        return sorted(self._labels(), key=natural)

    def _labels(self) -> dict[str, list[int]]:
        """The rows of each class in each split; without classes all of whose rows were dropped."""
        self._grow()
        return {
            label: counts
            for label, counts in zip(self._cleaner.classes.labels(), self._counts.T.tolist(), strict=True)
            if any(counts)
        }

    def check_source(self) -> None:
        """Check what the main source has given.

        Raises:
            UserError: there is nothing to learn, or too little to split.
        """
        prepare, target = self._prepare, self._prepare.target
        if not sum(self.rows):
            dropped = self._cleaner.dropped
            raise UserError(
                f"{prepare.source}: "
                + (f"every row was dropped: {describe_dropped(dropped)}" if dropped else "has no rows")
            )
        if prepare.task != "regression":
            counts = self._labels()
            if len(counts) < 2:
                raise UserError(
                    f"column {target!r} (prepare.target) holds one class only, {next(iter(counts))!r}; at least two are"
                    " needed"
                )
            for label in sorted(counts, key=natural):
                of_split = dict(zip(SPLITS, counts[label], strict=True))
                needed = self._drawn if prepare.split.by == "class" else ["train"]
                if empty := [split for split in needed if not of_split[split]]:
                    remedy = "add rows, or change prepare.validation or prepare.test, or prepare.split"
                    if prepare.split.by == "class":
                        remedy = (
                            "add rows; or set prepare.split.by: row, which draws rows whatever their class; or change"
                            " prepare.validation or prepare.test"
                        )
                    if all(map(is_number, counts)) and (
                        len(counts) > 20 or not all(label.lstrip("+-").isdecimal() for label in counts)
                    ):
                        remedy += "; or prepare.task: regression, which predicts numbers"
                    few = (
                        f"class {label!r} of column {target!r} has {many(sum(of_split.values()), 'row')}, too few to"
                        " split"
                    )
                    raise UserError(f"{few}: none is left for {' and '.join(empty)}; {remedy}")
        for split in self._drawn:
            if not self.rows[SPLITS.index(split)]:
                are = "is" if sum(self.rows) == 1 else "are"
                raise UserError(
                    f"{prepare.source}: {many(sum(self.rows), 'row')} {are} too few to split by {prepare.split.by}:"
                    f" none is left for {split}; add rows, or change prepare.validation, prepare.test or prepare.split"
                )
        if prepare.task == "regression" and self._measured.minimum == self._measured.maximum:
            value = float(self._measured.minimum[0])
            raise UserError(
                f"column {target!r} (prepare.target) is {value!r} in every training row; there is nothing to learn"
            )
        if prepare.task == "regression" and self._measured.deviation[0] == 0:
            low, high = float(self._measured.minimum[0]), float(self._measured.maximum[0])
            raise UserError(
                f"column {target!r} (prepare.target): numbers from {low!r} to {high!r} have squares of 0 in float64;"
                " give them in a smaller unit"
            )

    def check_known(self, target: pa.Array, rows: NDArray[np.int64], where: Callable[[int], str], split: str) -> None:
        """Check that training has seen each class of a separate source.

        Raises:
            UserError: naming the first row of another class.
        """
        if self._prepare.task != "regression":
            self._grow()
            codes = numbers(target)[0]
            unknown = np.flatnonzero(self._counts[0][codes] == 0)
            if len(unknown):
                label = self._cleaner.classes.labels()[int(codes[unknown[0]])]
                raise UserError(
                    f"{where(int(rows[unknown[0]]))}, column {self._prepare.target!r}: class {label!r}, which no"
                    f" training row has (prepare.{split}_source); they have"
                    f" {some(sorted((label for label, counts in self._labels().items() if counts[0]), key=natural))}"
                )

    def check_splits(self) -> None:
        """Check that separate sources had rows.

        Raises:
            UserError: one had none.
        """
        for split, rows in zip(SPLITS, self.rows, strict=True):
            if not rows:
                raise UserError(f"{getattr(self._prepare, f'{split}_source')}: has no rows (prepare.{split}_source)")

    def scale(self) -> dict[str, Any]:
        """What schema.json says of how numbers to predict are scaled in training; nothing of classes, or where
        params.yaml wants none.
        """
        if self._prepare.task != "regression" or self._prepare.normalize_target == "none":
            return {}
        subtract, divide = scaling(self._prepare.normalize_target, self._measured)
        return {"target_scale": {"subtract": subtract, "divide": divide}}

    def statistics(self) -> dict[str, Any]:
        """What statistics.json says of the target."""
        if self._prepare.task != "regression":
            counts = self._labels()
            return {
                "class_counts": {
                    split: {label: counts[label][number] for label in self.classes()}
                    for number, split in enumerate(SPLITS)
                }
            }
        measured = self._measured
        return {
            "training_target": {
                name: float(getattr(measured, name)[0]) for name in ("mean", "deviation", "minimum", "maximum")
            }
        }


# --- Parquet --------------------------------------------------------------------------------------


@contextmanager
def _telling_of_full_disks() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise writing.unwritable(paths.PREPARED, error) from None


class _Writer:
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

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._count:
                self._write(pa.Table.from_batches(self._pending, self._schema))
        finally:
            with _telling_of_full_disks():
                self._writer.close()


class _Table(_Writer):
    """A split's table: the numbers of categories and classes are stored as the texts that they stand for."""

    def __init__(self, path: Path, cleaner: Cleaner, target: str) -> None:
        self._vocabularies = cleaner.vocabularies | (
            {} if cleaner.schema.field(target).type == pa.float64() else {target: cleaner.classes}
        )
        super().__init__(path, cleaner.schema, list(self._vocabularies))

    def stored(self) -> pa.Schema:
        texts = pa.dictionary(pa.int32(), pa.string())
        metadata = [field.with_type(texts) if field.name in self._vocabularies else field for field in self._schema]
        return pa.schema(metadata)

    def store(self, table: pa.Table) -> pa.Table:
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


def _read(table: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with reading.reading_made(table, "prepare", pa.ArrowInvalid, pa.ArrowNotImplementedError):
        reading.open_file(table).close()
        with pq.ParquetFile(table) as file:
            for group in range(file.num_row_groups):  # not iter_batches, which keeps what it has read until the end
                yield from file.read_row_group(group, columns).combine_chunks().to_batches()


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a thread makes the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


# --- what the schema says -------------------------------------------------------------------------


def _check_arrays(columns: list[Column], prepare: PrepareParams) -> None:
    arrays = [column.name for column in columns if column.kind == "array"]
    if arrays and len(columns) > 1:
        raise UserError(
            f"{prepare.source}: column {arrays[0]!r} holds arrays; then it must be the only input (prepare.columns:"
            f" [{arrays[0]}])"
        )


def _form(fits: list[Fit]) -> dict[str, Any]:
    """Dtype, shape and scale of the inputs; of columns the shape follows from the features."""
    first, *_ = fits
    if not isinstance(first, Arrays):
        return {"dtype": "float32", "shape": None, "scale": None}
    dtype = str(first.column.array[0]) if first.column.array else ""
    return {
        "dtype": "float32" if dtype.startswith("float") else dtype,
        "shape": list(first.shape),
        "scale": first.scale(),
    }


def _examples(table: Path, columns: list[Column], rows: int = 2) -> list[list[Any]]:
    """The first training rows, as they come: for the model's input example."""
    for batch in _read(table):
        given = [_plain(batch.column(column.name).slice(0, rows), column) for column in columns]
        return [list(row) for row in zip(*given, strict=True)]
    return []


def _plain(array: pa.Array, column: Column) -> list[Any]:
    if column.array is not None:
        raw = {"column": column.name, "kind": "array", "dtype": column.array[0], "subtract": None}
        return list(transform({column.name: array}, [raw]).reshape(-1, *column.array[1]).tolist())
    return [value.isoformat() if isinstance(value, date | time) else value for value in array.to_pylist()]


def _deciding_splits(prepare: PrepareParams) -> dict[str, Any]:
    """What a row's split follows from; texts that stand for a missing value where they aren't the usual ones."""
    given = prepare.model_dump(mode="json", include=SPLIT_PARAMS)
    if prepare.missing.values == MISSING_VALUES:
        del given["missing"]["values"]
    return given


def _refuse_stray_texts(fits: Iterable[Fit], prepare: PrepareParams, cleaner: Cleaner, source: Source) -> None:
    """A column of numbers in which some are no numbers would else be taken for a category."""
    for fitted in fits:
        name = fitted.column.name
        strays = fitted.strays if isinstance(fitted, Categories) and not kind_told(name, prepare) else []
        if strays:
            vocabulary = cleaner.vocabularies[name]
            row = vocabulary.firsts[vocabulary.labels().index(strays[0])]
            raise UserError(
                f"{source.where(row)}, column {name!r}: {strays[0]!r} is not a number, as almost all of the others are",
                f"texts among its numbers: {quoted(strays, 5)}: mend them, or add to prepare.missing.values what stands"
                f" for a missing value; or prepare.kinds: {{{yaml_key(name)}: category}} where the column holds no"
                " numbers",
            )


def _shared(out: Path, prepare: PrepareParams, rows: dict[str, int], own: list[str]) -> list[str]:
    """How many rows of separate sources are among another source's, too."""

    def blocks(split: str) -> Blocks:
        return lambda: _read(out / f"{split}.parquet")

    here = [other for other in SPLITS if other not in own]
    among = [(split, here, f"those of {prepare.source}") for split in own]
    if len(own) == 2:
        among.append(("test", ["validation"], f"those of {prepare.validation_source} (prepare.validation_source)"))
    found = []
    for split, others, theirs in among:
        if count := count_shared(blocks(split), rows[split], [blocks(other) for other in others]):
            name = f"{getattr(prepare, f'{split}_source')} (prepare.{split}_source)"
            found.append(
                f"{count:,} of the {rows[split]:,} rows of {name} are also among {theirs}, with the same inputs and"
                " target: of these the figures say nothing about new rows"
            )
    return found


def _kept_notes(keep: Kept, fits: Iterable[Fit]) -> list[str]:
    counted = {fitted.column.name: fitted.statistics()["counts"] for fitted in fits if isinstance(fitted, Categories)}
    unseen = "; ".join(kept_preparation.unseen(keep, counted))
    return [
        "the preparation of the model that training starts from is kept"
        + (f"; it hasn't seen, and takes for others: {unseen}" if unseen else "")
    ]
