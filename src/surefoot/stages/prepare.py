"""prepare: raw data to clean, split, typed tables."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import pyarrow as pa

from surefoot.base import code_digests, errors, paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.base.user_code import FUNCTION
from surefoot.base.wording import describe_dropped, listed_names, number_of
from surefoot.data import column_notes, kept_preparation
from surefoot.data.prepare_as_kept import as_kept
from surefoot.data.readers.open_source import copied_files, files_passed_over, open_source
from surefoot.data.readers.source import RowSource
from surefoot.data.same_files import refuse_same
from surefoot.data.schema_json import PreparedSchema
from surefoot.data.tables import write_tables
from surefoot.params import dvc_yaml
from surefoot.params.params_yaml import load_params
from surefoot.params.prepare_section import PrepareParams, SplitSource


def main() -> None:
    """Read `prepare.source`; write `data/prepared/`."""
    params = load_params(paths.PARAMS)
    terminal.print_lines(f"preparing {params.prepare.source}")
    dvc_yaml.require_watched(params, "prepare")
    keep = kept_preparation.read_preparation(params.prepare)
    prepare = as_kept(params.prepare, keep) if keep else params.prepare
    refuse_same(prepare)
    main_source, *separate = prepare.sources
    source = _open(main_source, prepare)
    check_shape(params.batch.shape, prepare, source.schema)
    openers = {each.split: partial(_open, each) for each in separate}
    with writing.new_directory(paths.PREPARED) as out:
        schema, notes = write_tables(out, prepare, params.seed, source, openers, keep)
        writing.remove_measured()  # while the data that it was measured on are in place
    for line in (*_notes_on_files(prepare), *(f"note: {prepare.source}: {note}" for note in notes), *_summary(schema)):
        terminal.print_lines(line)
    if elsewhere := unwatched(prepare):
        terminal.print_lines(
            f"DVC doesn't watch {' and '.join(elsewhere)}, so it won't run prepare again when that changes: symlink the"
            f" file into {paths.RAW}, fetch it with `dvc import-url`, or name it in dvc.yaml under prepare's deps"
        )


def _open(each: SplitSource, prepare: PrepareParams) -> RowSource:
    """The source of a split, with a bar of its bytes and rows while it is read."""
    if each.split != "train":
        prepare = prepare.model_copy(update={"arrays": prepare.arrays.of(each.split)})
    source = open_source(prepare, each.source, each.labels)
    return replace(source, batches=_with_bar(source, each.source))


def _notes_on_files(prepare: PrepareParams) -> Iterator[str]:
    for source in dict.fromkeys(each.source for each in prepare.sources):
        if beside := files_passed_over(source):
            are = "is" if len(beside) == 1 else "are"
            yield (
                f"note: {source}: passed over {number_of(len(beside), 'file')} that {are} no data:"
                f" {listed_names(beside)}"
            )
    if twice := copied_files(prepare.source):
        yield (
            f"note: {prepare.source}: the same as another part, byte for byte: {listed_names(twice)}; its rows may be"
            " in training and in the test"
        )


def _summary(schema: PreparedSchema) -> Iterator[str]:
    """What was prepared, by what `schema.json` says."""
    yield from column_notes.column_lines(schema)
    if dropped := schema.dropped:
        yield f"dropped {number_of(sum(dropped.values()), 'row')}: {describe_dropped(dropped)}"
    counts = ", ".join(f"{rows} {split}" for split, rows in schema.rows.items())
    first, *_ = schema.features
    inputs = first["width"] if first["kind"] == "array" else len(schema.features)
    what = f"{len(schema.classes)} classes" if schema.classes else "a number to predict"
    if scale := schema.target_scale:
        mean, deviation = _written(scale["subtract"][0]), _written(scale["divide"][0])
        what += f" (mean {mean}, deviation {deviation}, by which it is scaled in training)"
    yield f"prepared {schema.source}: {number_of(inputs, 'input')}, {what}; rows: {counts}"


def check_shape(shape: tuple[int, ...] | None, prepare: PrepareParams, schema: pa.Schema) -> None:
    """See whether batch.shape can fit, as far as that is known before any row is read, so that it isn't the batch stage
    that tells.

    Raises:
        UserError: it can't.
    """
    if shape is None:
        return
    inputs = [field for field in schema if field.name not in (prepare.target, prepare.split.column)]
    array, *_ = [field for field in inputs if pa.types.is_fixed_size_list(field.type)] or [None]
    has = array.type.list_size if array is not None else len(inputs)
    # A column is an input at least; one of numbers is just one.
    exact = array is not None or (
        not prepare.kinds
        and (prepare.split.column is None or prepare.columns is None)
        and not prepare.missing.indicator
        and all(pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in inputs)
    )
    if prod(shape) < has or (exact and prod(shape) != has):
        own = json.loads((array.metadata or {}).get(b"shape", b"null")) if array is not None else None
        told = f"{'' if exact else 'at least '}{has} inputs" + (f", of shape {own}" if own else "")
        raise UserError(
            f"params.yaml: batch.shape: {list(shape)} holds {prod(shape)} values, but a row has {told}; give auto, or"
            " another shape"
        )


def unwatched(prepare: PrepareParams) -> list[str]:
    """The sources that are no dependency of the stage in dvc.yaml."""
    named = [name for each in prepare.sources for name in (each.source, each.labels) if name]
    return [name for name in named if not (name.startswith("sklearn:") or _watched(name))]


def _watched(name: str) -> bool:
    if re.fullmatch(FUNCTION, name):
        # Other code of this project is watched, too: `dvc_yaml.require_watched` has seen to it.
        return name.startswith("sources.") or bool(code_digests.modules_behind([name])[0])
    # As the path is written: DVC follows a link in data/raw to a file, but none to a directory.
    path, raw = Path(os.path.abspath(name)), paths.RAW.absolute()  # noqa: PTH100
    if any(path == Path(os.path.abspath(dep)) for dep in dvc_yaml.watched_paths("prepare")):  # noqa: PTH100
        return True
    if not path.is_relative_to(raw):
        return False
    directories = [parent for parent in (path, *path.parents) if parent.is_relative_to(raw) and parent != raw]
    within = path.iterdir() if path.is_dir() else ()
    return not any(place.is_symlink() and place.is_dir() for place in (*directories, *within))


def _with_bar(source: RowSource, name: str) -> Iterator[pa.RecordBatch]:
    rows = 0
    with terminal.progress_bar(name=name, total=source.bytes_total, unit="B", unit_scale=True) as bar:
        for batch in source.batches:
            rows += batch.num_rows
            elapsed = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{rows:,} rows, {rows / max(elapsed, 1e-3):,.0f} rows/s", refresh=False)
            bar.update(source.bytes_read() - bar.n)
            yield batch


def process() -> None:
    """Run `main` as a whole process."""
    try:
        errors.run_process(main)
    except SystemExit as stop:
        # A thread of Arrow's may be in the middle of a file, and Python would abort when it comes back to an
        # interpreter that is being taken down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)


def _written(number: float) -> str:
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.5g}"  # a price of 565,332, not of 5.6533e+05


if __name__ == "__main__":
    process()
