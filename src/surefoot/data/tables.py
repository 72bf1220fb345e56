"""Prepared tables: a Parquet file a split, with `schema.json` and `statistics.json` beside them."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.base import reading, writing
from surefoot.base.errors import UserError
from surefoot.data import kept_preparation
from surefoot.data.arrow_numpy import arrow_mask
from surefoot.data.cleaning import Cleaner
from surefoot.data.column_notes import alike_labels, doubtful_columns, wide_inputs
from surefoot.data.columns import (
    Column,
    choose_columns,
    index_names,
    left_out,
    names_in,
)
from surefoot.data.date_columns import with_dates
from surefoot.data.features import transform
from surefoot.data.fitting import CategoriesFit, Fit, fitted_features, new_fit, refuse_stray_texts
from surefoot.data.kept_preparation import KeptPreparation
from surefoot.data.normalization import normalize
from surefoot.data.parquet_tables import TableWriter, read_row_groups
from surefoot.data.part_files import PartFileRows
from surefoot.data.readers.source import RowSource
from surefoot.data.schema_json import deciding_splits, examples_of, inputs_form
from surefoot.data.separate_sources import OpenSource, as_main, told_by
from surefoot.data.shared_rows import shared_notes
from surefoot.data.splits import SPLITS
from surefoot.data.splitting.rows import clean_rows
from surefoot.data.splitting.split_source import split_source
from surefoot.data.streams import read_ahead
from surefoot.data.targets import Targets
from surefoot.params.prepare_section import PrepareParams


def write_tables(
    out: Path,
    prepare: PrepareParams,
    seed: int,
    source: RowSource,
    validation: OpenSource | None = None,
    test: OpenSource | None = None,
    keep: KeptPreparation | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Split a source's rows into tables in the directory `out`, and fit the preparation on the training rows, or keep
    one (`kept.as_kept` has given `prepare`).

    Returns what `schema.json` says, and what the user should be warned of. `validation` and `test` open separate
    sources, as the main one's columns are.

    Raises:
        UserError: the data aren't as params.yaml says, or can't be learned from; the disk is full.
    """
    if keep:
        kept_preparation.check_inputs_there(keep, names_in(source.schema), prepare.source)
    source = with_dates(source, prepare)
    columns = choose_columns(source.schema, prepare, prepare.source)
    _check_arrays(columns, prepare)
    columns = kept_preparation.columns_as_kept(keep, columns, prepare.source) if keep else columns
    cleaner = Cleaner(columns, prepare, keep.classes if keep else None)
    own: dict[str, RowSource] = {}
    for split, opened in (("validation", validation), ("test", test)):
        if opened is not None:
            other = with_dates(opened(told_by(prepare, columns)), prepare, columns)
            own[split] = as_main(
                other, source.schema, columns, prepare, str(getattr(prepare, f"{split}_source")), f"{split}_source"
            )
    fits = [new_fit(column, prepare, cleaner.vocabularies) for column in columns]
    targets = Targets(cleaner, prepare)
    parts = PartFileRows(source)
    of_others: list[PartFileRows] = []
    with ExitStack() as stack:
        tables = [
            stack.enter_context(TableWriter(out / f"{split}.parquet", cleaner, prepare.target)) for split in SPLITS
        ]
        for batch, splits in split_source(out, prepare, seed, source, cleaner, parts):
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
            of_others.append(PartFileRows(other))
            for batch, rows in clean_rows(other, cleaner, of_others[-1]):
                of_others[-1].split(np.full(len(rows), number, np.int8))
                targets.check_known(batch.column(prepare.target), rows, other.where, split)
                tables[number].write(batch)
                targets.add(number, batch.column(prepare.target))
    targets.check_splits()
    refuse_stray_texts(fits, prepare, cleaner, source)
    described = {
        "source": prepare.source,
        "task": prepare.task,
        "target": prepare.target,
        "classes": targets.classes(),
        "rows": dict(zip(SPLITS, targets.rows, strict=True)),
        "dropped": cleaner.dropped,
        "missing": cleaner.missing,
        "left_out": left_out(names_in(source.schema), prepare, index_names(source.schema)),
        "split": {"seed": seed} | {f"prepare.{name}": value for name, value in deciding_splits(prepare).items()},
        "parts": [part for some in (parts, *of_others) for part in some.describe()],
        "features": (
            keep.plain()["features"]
            if keep
            else fitted_features(
                fits,
                lambda column: lambda: (batch.column(0) for batch in read_row_groups(out / "train.parquet", [column])),
            )
        ),
        **inputs_form(fits),
        **({} if keep else targets.scale()),
        "examples": examples_of(out / "train.parquet", columns),
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
        *doubtful_columns(fits, described["left_out"]),
        *wide_inputs(described),
        *alike_labels(described),
        *(_kept_notes(keep, fits) if keep else []),
    ]
    return described, [*notes, *shared_notes(out, prepare, described["rows"], [*own])]


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
    return read_ahead(_blocks(prepared, split, schema))


def _blocks(prepared: Path, split: str, schema: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index = {label: number for number, label in enumerate(schema["classes"])}
    for batch in read_row_groups(prepared / f"{split}.parquet"):
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


def _check_arrays(columns: list[Column], prepare: PrepareParams) -> None:
    arrays = [column.name for column in columns if column.kind == "array"]
    if arrays and len(columns) > 1:
        raise UserError(
            f"{prepare.source}: column {arrays[0]!r} holds arrays; then it must be the only input (prepare.columns:"
            f" [{arrays[0]}])"
        )


def _kept_notes(keep: KeptPreparation, fits: Iterable[Fit]) -> list[str]:
    counted = {
        fitted.column.name: fitted.statistics()["counts"] for fitted in fits if isinstance(fitted, CategoriesFit)
    }
    unseen = "; ".join(kept_preparation.unseen_values(keep, counted))
    return [
        "the preparation of the model that training starts from is kept"
        + (f"; it hasn't seen, and takes for others: {unseen}" if unseen else "")
    ]
