"""Prepared tables: a Parquet file a split, with `schema.json` and `statistics.json` beside them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np

from surefoot.base import reading, writing
from surefoot.base.errors import UserError
from surefoot.data import prepare_as_kept
from surefoot.data.arrow_numpy import arrow_mask
from surefoot.data.cleaning import Cleaner
from surefoot.data.column_notes import notes_on_columns
from surefoot.data.columns import choose_columns, names_in
from surefoot.data.date_columns import with_dates
from surefoot.data.features import transform
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.fitting.fit_columns import new_fit, refuse_stray_texts
from surefoot.data.kept_preparation import KeptPreparation
from surefoot.data.normalization import normalize
from surefoot.data.parquet_tables import TableWriter, read_row_groups
from surefoot.data.part_files import PartFileRows
from surefoot.data.readers.source import RowSource
from surefoot.data.schema_json import Learned, PreparedSchema, describe_tables
from surefoot.data.separate_sources import OpenSource, as_main, told_by
from surefoot.data.shared_rows import shared_notes
from surefoot.data.splits import SPLITS
from surefoot.data.splitting.clean_rows import clean_rows
from surefoot.data.splitting.split_source import split_source
from surefoot.data.streams import read_ahead
from surefoot.data.targets import Targets
from surefoot.params.prepare_section import PrepareParams


def write_tables(
    out: Path,
    prepare: PrepareParams,
    seed: int,
    source: RowSource,
    separate: Mapping[str, OpenSource] = MappingProxyType({}),
    keep: KeptPreparation | None = None,
) -> tuple[PreparedSchema, list[str]]:
    """Split a source's rows into tables in the directory `out`, and fit the preparation on the training rows, or keep
    one (`as_kept` has given `prepare`).

    Returns what `schema.json` says, and what the user should be warned of. `separate` opens the sources of splits that
    have their own, as the main one's columns are.

    Raises:
        UserError: the data aren't as params.yaml says, or can't be learned from; the disk is full.
    """
    if keep:
        prepare_as_kept.check_inputs_there(keep, names_in(source.schema), prepare.source)
    source = with_dates(source, prepare)
    columns = choose_columns(source.schema, prepare, prepare.source)
    columns = prepare_as_kept.columns_as_kept(keep, columns, prepare.source) if keep else columns
    own = {
        each.split: as_main(
            with_dates(separate[each.split](told_by(prepare, columns)), prepare, columns),
            source.schema,
            columns,
            prepare,
            each,
        )
        for each in prepare.sources[1:]
    }
    cleaner = Cleaner(columns, prepare, keep.classes if keep else None)
    fits = [new_fit(column, prepare, cleaner.vocabularies) for column in columns]
    targets = Targets(cleaner, prepare)
    with ExitStack() as stack:
        writers = (TableWriter(out / f"{split}.parquet", cleaner, prepare.target) for split in SPLITS)
        tables = [stack.enter_context(writer) for writer in writers]
        parts = [_write_source(out, prepare, seed, source, cleaner, fits, targets, tables)]
        targets.check_source()
        parts += [_write_own(split, other, prepare, cleaner, targets, tables) for split, other in own.items()]
    targets.check_splits()
    refuse_stray_texts(fits, cleaner, source)
    described = describe_tables(out, prepare, seed, source.schema, Learned(cleaner, fits, targets, parts), keep)
    writing.write_json(
        out / "statistics.json",
        targets.statistics() | {"training_inputs": {fitted.column.name: fitted.statistics() for fitted in fits}},
    )
    writing.write_json(out / "schema.json", described.plain())
    return described, [*notes_on_columns(fits, described, keep), *shared_notes(out, prepare, described.rows)]


def _write_source(
    out: Path,
    prepare: PrepareParams,
    seed: int,
    source: RowSource,
    cleaner: Cleaner,
    fits: list[Fit],
    targets: Targets,
    tables: list[TableWriter],
) -> PartFileRows:
    """The rows of the main source into the tables of their splits; the training rows are learned from."""
    parts = PartFileRows(source)
    for batch, splits in split_source(out, prepare, seed, source, cleaner, parts):
        parts.split(splits)
        for number, table in enumerate(tables):
            if not (splits == number).any():
                continue
            part = batch.filter(arrow_mask(splits == number))
            table.write(part)
            targets.add(number, part.column(prepare.target))
            for fitted in fits if number == 0 else ():
                fitted.add(part.column(fitted.column.name))
    return parts


def _write_own(
    split: str, source: RowSource, prepare: PrepareParams, cleaner: Cleaner, targets: Targets, tables: list[TableWriter]
) -> PartFileRows:
    """The rows of a separate source into the table of its split."""
    parts, number = PartFileRows(source), SPLITS.index(split)
    for _, batch, rows in clean_rows(source, cleaner, parts):
        parts.split(np.full(len(rows), number, np.int8))
        targets.check_known(batch.column(prepare.target), rows, source.where, split)
        tables[number].write(batch)
        targets.add(number, batch.column(prepare.target))
    return parts


def read_schema(prepared: Path) -> PreparedSchema:
    """What `write_tables` said of the tables in the directory `prepared`.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    schema = reading.read_made_json(path := prepared / "schema.json", "prepare")
    with reading.reading_made(path, "prepare", ValueError):
        return PreparedSchema.model_validate(schema)


def read_table(prepared: Path, split: str, schema: PreparedSchema) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a split, block by block; a thread prepares the next one meanwhile.

    Inputs as the network gets them, of the schema's dtype, (rows, *shape); targets (rows,): int64 class indices;
    float32 0 and 1 for binary; the number itself for regression, in float64 where `target_scale` is left to the
    training step, or else in float32.

    Raises:
        UserError: a value that overflows when it is scaled.
    """
    return read_ahead(_blocks(prepared, split, schema))


def _blocks(prepared: Path, split: str, schema: PreparedSchema) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index = {label: number for number, label in enumerate(schema.classes)}
    for batch in read_row_groups(prepared / f"{split}.parquet"):
        inputs = transform(batch, schema.features)
        if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
            _refuse_overflow(inputs, schema, prepared / f"{split}.parquet")
        target = batch.column(schema.target)
        if schema.task == "regression":
            targets = _numbers_to_predict(np.from_dlpack(target), schema, prepared / f"{split}.parquet")
        else:
            known = np.array([index.get(label, -1) for label in target.dictionary.to_pylist()], dtype=np.int64)
            targets = known[np.from_dlpack(target.indices)].astype(np.float32 if schema.task == "binary" else np.int64)
        yield inputs.reshape(-1, *schema.shape), targets


def _refuse_overflow(inputs: np.ndarray, schema: PreparedSchema, table: Path) -> None:
    place = int(np.flatnonzero(~np.isfinite(inputs).all(axis=0))[0])
    column = next(
        feature["column"]
        for feature in schema.features
        if feature["first"] <= place < feature["first"] + feature["width"]
    )
    raise UserError(
        f"{table}: column {column!r}: scaled, a value is more than float32 can hold; leave the column out"
        " (prepare.ignore), or mend it"
    )


def _numbers_to_predict(values: np.ndarray, schema: PreparedSchema, table: Path) -> np.ndarray:
    scale = schema.target_scale
    if scale is None:
        return values.astype(np.float32)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(normalize(values, **scale))
    if bad.any():
        where = f"{table}: column {schema.target!r} (prepare.target)"
        raise UserError(
            f"{where}: {float(values[bad][0])!r}, scaled, is more than float32 can hold; mend it, or leave the row out"
        )
    return values
