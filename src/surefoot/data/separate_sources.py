"""Validation and test sets with a source of their own: that they aren't the main source's rows, and that their columns
are read as the main one's.
"""

import filecmp
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.columns import Column, column_of
from surefoot.data.readers.raw_files import is_beside
from surefoot.data.readers.source import RowSource
from surefoot.params.prepare_section import PrepareParams, SplitParams, SplitSource

OpenSource = Callable[[PrepareParams], RowSource]
"""Opens a source by what params.yaml says, or by what the main source's columns were taken for."""


def refuse_same(prepare: PrepareParams) -> None:
    """Refuse a separate source that is another source: by name, by another path or a link, or by its bytes.

    Raises:
        UserError: naming both.
    """
    for one, other in combinations(prepare.sources, 2):
        if prepare.arrays.of(one.split) != prepare.arrays.of(other.split):
            continue
        shared = one.source if one.source == other.source else _shared_file(Path(one.source), Path(other.source))
        if shared is not None:
            why = (
                "then the test says nothing of rows that are new, as training and the choice of its epoch have seen"
                " them"
                if other.split == "test"
                else "then the epoch is chosen by rows that are trained on"
            )
            what = "is the same" if Path(shared) == Path(other.source) else f"has the same rows, in {shared},"
            raise UserError(
                f"{other.source} ({other.key}) {what} as {one.source} ({one.key}); {why}. Name other rows, or give"
                " null: then a fraction is kept apart"
            )


def _shared_file(one: Path, other: Path) -> str | None:
    """A file that both are, or have, by place or by its bytes; of folders of images only where one lies
    in the other.
    """
    try:
        if not (one.exists() and other.exists()):
            return None
        if one.samefile(other):
            return str(other)
        of_one, of_other = _files(one), _files(other)
        if any(
            len(path.relative_to(top).parts) > 1
            for top, paths in ((one, of_one), (other, of_other))
            if top.is_dir()
            for path in paths
        ):
            nested = other.resolve().is_relative_to(one.resolve()) or one.resolve().is_relative_to(other.resolve())
            return str(other if len(of_other) <= len(of_one) else one) if nested else None
        sizes: dict[int, list[Path]] = {}
        for path in of_one:
            sizes.setdefault(path.stat().st_size, []).append(path)
        pairs = (
            (mine, path) for path in of_other for mine in sizes.get(path.stat().st_size, ()) if path.stat().st_size
        )
        found = next(
            (path for mine, path in pairs if mine.samefile(path) or filecmp.cmp(mine, path, shallow=False)), None
        )
    except OSError:  # which is told when it is read
        return None
    return None if found is None else str(found)


def _files(path: Path) -> list[Path]:
    return (
        [path]
        if not path.is_dir()
        else [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not file.name.startswith((".", "_")) and not is_beside(file, "")
        ]
    )


def told_by(prepare: PrepareParams, columns: list[Column]) -> PrepareParams:
    """What a separate source is opened by: the main source's columns, each as what it was taken for there, whatever the
    values here would say.
    """
    told = {
        "columns": tuple(column.name for column in columns),
        "ignore": (),
        "kinds": {column.name: column.kind for column in columns if column.kind != "array"},
        "dates": {column.name: column.format for column in columns if column.format},
        "split": SplitParams(),
    }
    return prepare.model_copy(update=told)


def as_main(
    source: RowSource, main: pa.Schema, columns: list[Column], prepare: PrepareParams, own: SplitSource
) -> RowSource:
    """A separate source, checked to have the columns of the main one; one that is empty here is as
    good as any.

    Raises:
        UserError: naming a column that is missing, or of another type. The batches raise it for one that could be empty
        by its type, and isn't.
    """
    for wanted in [*(column.name for column in columns), prepare.target]:
        if wanted not in source.schema.names:
            raise UserError(
                f"{own.source}: has no column {wanted!r}, as {prepare.source} has ({own.key}); it has"
                f" {listed_names(source.schema.names)}"
            )
    faults: dict[str, str] = {}
    by_type = prepare.model_copy(update={"kinds": {}, "dates": {}})
    for column in columns:
        field = source.schema.field(column.name)
        if pa.types.is_null(field.type):
            continue
        other = column_of(field, by_type, own.source)
        if other.array != column.array or other.kind != column_of(main.field(column.name), by_type, own.source).kind:
            what = (
                f"{column.kind} column"
                if column.array is None
                else f"{column.array[0]} array of shape {list(column.array[1])}"
            )
            theirs = field.type if other.array is None else f"{other.array[0]} array of shape {list(other.array[1])}"
            fault = (
                f"{own.source}: column {column.name!r} is {theirs}, but in {prepare.source} it is a {what} ({own.key});"
                " they must be the same"
            )
            if not pa.types.is_floating(field.type):  # by which pandas stores a column that is empty
                raise UserError(fault)
            faults[column.name] = fault
    return replace(source, batches=_emptied(source.batches, faults)) if faults else source


def _emptied(batches: Iterator[pa.RecordBatch], faults: dict[str, str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for name, fault in faults.items():
            if batch.column(name).is_null(nan_is_null=True).false_count:
                raise UserError(fault)
            batch = batch.set_column(batch.schema.get_field_index(name), name, pa.nulls(batch.num_rows))
        yield batch
