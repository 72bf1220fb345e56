"""The one way to raw data: a source, by what params.yaml calls it."""

import dataclasses
import filecmp
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

import pyarrow as pa

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.base.reading import open_file
from surefoot.base.user_code import FUNCTION
from surefoot.base.wording import listed_names
from surefoot.data import source_formats
from surefoot.data.readers.bundled import open_bundled
from surefoot.data.readers.function import open_function
from surefoot.data.readers.idx import labels_of
from surefoot.data.readers.raw_files import entries, is_beside, stamp
from surefoot.data.readers.source import RowSource
from surefoot.data.streams import read_ahead
from surefoot.params.prepare_section import PrepareParams, SplitParams
from surefoot.params.raw_formats import RAW_FORMATS

AHEAD = 2
"""Batches that are read while others are worked on."""


def _reader(form: str) -> Callable[[PrepareParams, list[Path], Path | None], RowSource]:
    """What opens files of this format; imported when it is needed, with libraries that no other format needs."""
    module = import_module(f"surefoot.data.readers.{RAW_FORMATS[form].reader}")
    return cast("Callable[[PrepareParams, list[Path], Path | None], RowSource]", getattr(module, f"open_{form}"))


def open_source(prepare: PrepareParams, source: str, labels: str | None) -> RowSource:
    """The rows of `source`: a file or directory, `sklearn:NAME`, or `module:function`; `labels` is the file of the
    targets where they lie apart.

    Raises:
        UserError: there is no such thing, or it isn't what it should be. The batches raise it for what is found later;
        also if the files
            aren't at the end what they were at the start.
    """
    key = next((each.key for each in prepare.sources if each.source == source), "prepare.source")
    if source.startswith("sklearn:"):
        _refuse_useless(prepare, "sklearn")
        return open_bundled(prepare, source.removeprefix("sklearn:"))
    if re.fullmatch(FUNCTION, source):
        _refuse_useless(prepare, "function")
        return open_function(prepare, key, source)
    path = Path(source)
    if "\0" in source + (labels or ""):
        raise UserError(f"params.yaml: {key}: {source!r}: a file's name can't hold a NUL character")
    if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
        raise UserError(
            f"params.yaml: {key}: {source} holds this project itself; name the file or the directory of the data"
        )
    try:
        return _open_path(prepare, key, path, labels)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            missing = error.filename or path
            raise UserError(
                f"{missing}: there is no such file or directory; {key} must name a file, a directory, sklearn:NAME or"
                " module:function"
            ) from None
        raise UserError(f"{error.filename or path}: can't be read: {limits.system_reason(error)}") from None


def open_rows(prepare: PrepareParams, path: Path) -> RowSource:
    """The rows of a file or directory without their targets: of a table all its columns, those of a CSV file as texts;
    of images also their `file`.

    Its name says of which format it is; else, and of a directory that holds neither tables nor directories,
    prepare.format does.

    Raises:
        UserError: as `open_source`.
    """
    try:
        files = _files(path)
        flat = path.is_dir() and bool(files) and not any(file.is_dir() for file in files)
        named = any(source_formats.format_by_name(file) for file in files)
        form = ("auto" if flat and named else "images") if path.is_dir() else "auto" if named else prepare.format
        given = {
            "format": form,
            "target": "",
            "columns": None,
            "ignore": (),
            "kinds": {"*": "category"},
            "split": SplitParams(),
        }
        return _open_path(prepare.model_copy(update=given), "prepare.source", path, None)
    except OSError as error:
        what = (
            "there is no such file or directory"
            if isinstance(error, FileNotFoundError)
            else f"can't be read: {limits.system_reason(error)}"
        )
        raise UserError(f"{error.filename or path}: {what}") from None


def _open_path(prepare: PrepareParams, key: str, path: Path, labels: str | None) -> RowSource:
    files = _files(path)
    form = prepare.format if prepare.format != "auto" else _format(path, files)
    if labels and form not in source_formats.LABELS:
        raise UserError(
            f"params.yaml: {key.replace('source', 'labels')}: {labels} has no use: {form} files hold their targets"
        )
    if prepare.target:
        _refuse_useless(prepare, form)
    if path.is_dir() and (prepare.target or form != "images" or not files):
        _check_directory(path, files, form)
    elif form == "images" and not path.is_dir():
        raise UserError(f"{path}: is a file; images must lie in a directory, with a directory for each class")
    if form != "images":  # each of which is looked at when it is opened
        for file in files:
            open_file(file).close()
    beside = Path(labels) if labels else labels_of(path) if form == "idx" and prepare.target else None
    if beside:
        open_file(beside).close()
    before = {file: stamp(file) for file in (*files, beside) if file}
    source = _reader(form)(prepare, [path] if form == "images" else files, beside)
    total = sum(size for _, size in before.values())
    return dataclasses.replace(
        source, batches=read_ahead(_unchanged(source.batches, path, before), AHEAD), bytes_total=total
    )


def _files(path: Path) -> list[Path]:
    """The file, or what lies in the directory; but for what Spark and its like put there: _SUCCESS, _metadata."""
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in entries(path)
        if not file.name.startswith("_") or file.is_dir() or source_formats.format_by_name(file)
    ]
    form = "images" if any(file.is_dir() and not is_beside(file, "") for file in found) else ""
    return [file for file in found if not is_beside(file, form)]


def files_passed_over(source: str) -> list[str]:
    """The files in a source's directories that lie beside the data, and aren't read."""
    path = Path(source)
    if not path.is_dir():
        return []
    directories = [path, *(entry for entry in entries(path) if entry.is_dir() and not is_beside(entry, ""))]
    form = "images" if len(directories) > 1 else ""
    return [str(entry) for directory in directories for entry in entries(directory) if is_beside(entry, form)]


def copied_files(source: str) -> list[str]:
    """The part files that are the same as one before, byte for byte."""
    path, found = Path(source), []
    by_size: dict[int, list[Path]] = {}
    for file in _files(path) if path.is_dir() else []:
        if not file.is_file():
            continue
        others = by_size.setdefault(file.stat().st_size, [])
        if any(filecmp.cmp(file, other, shallow=False) for other in others):
            found.append(str(file))
        else:
            others.append(file)
    return found


def _format(path: Path, files: list[Path]) -> str:
    """By the names of the files."""
    if path.is_dir() and any(file.is_dir() for file in files):
        return "images"
    found: dict[str, Path] = {}
    for file in files:
        form = source_formats.format_by_name(file)
        if form is None:
            raise UserError(
                f"{file}: what it holds can't be told from its name; rename or remove it, or set prepare.format"
                f" ({', '.join(RAW_FORMATS)})"
            )
        found.setdefault(form, file)
    if len(found) > 1:
        raise UserError(
            f"{path}: holds files of different formats, {' and '.join(file.name for file in found.values())}; it must"
            " be one"
        )
    return next(iter(found), "csv")


def _refuse_useless(prepare: PrepareParams, form: str) -> None:
    for key, wrong in source_formats.useless_keys(prepare, form):
        raise UserError(f"params.yaml: {key}: {wrong}")


def _check_directory(path: Path, files: list[Path], form: str) -> None:
    if not files:
        raise UserError(f"{path}: is an empty directory")
    _refuse_layouts(path, files)
    if form != "images" and not RAW_FORMATS[form].parts:
        raise UserError(f"{path}: is a directory; of {form.upper()}, prepare.source must name a file")
    odd = [file for file in files if file.is_dir() != (form == "images")]
    if odd:
        wanted = "a directory for each class, and nothing else" if form == "images" else "files alone"
        raise UserError(f"{path}: must hold {wanted}; there is {listed_names([file.name for file in odd])}")


SPLIT_NAMES = {"train": "", "training": "", "test": "test_", "testing": "test_"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "validation_"
)
"""Of directories and files that are a split each, the key that takes one."""


def _refuse_layouts(path: Path, files: list[Path]) -> None:
    """Directories, or files, that are splits or partitions would else be read as classes, or as one table."""
    names = {file: (file.name if file.is_dir() else file.name.partition(".")[0]).lower() for file in files}
    splits = {file: SPLIT_NAMES[name] for file, name in names.items() if name in SPLIT_NAMES}
    # Beside those of Kaggle's there is a sample of a submission, say.
    if "" in splits.values() and ("test_" in splits.values() or 1 < len(splits) == len(files)):
        keys = ", ".join(f"prepare.{split}source: {file}" for file, split in splits.items())
        raise UserError(
            f"{path}: holds splits, {listed_names([file.name for file in splits])}, which aren't classes or parts;"
            f" name each: {keys}"
        )
    parted = [file for file in files if file.is_dir() and re.fullmatch(r"[^=]+=.*", file.name)]
    if parted:
        column = parted[0].name.partition("=")[0]
        raise UserError(
            f"{path}: is partitioned as Hive and Spark do it, by directories such as {parted[0].name}, whose names hold"
            f" the column {column!r}; these aren't read: write it as one directory, or read it in a function:"
            " pyarrow.dataset.dataset(..., partitioning='hive').to_batches()"
        )


def _unchanged(
    batches: Iterator[pa.RecordBatch], path: Path, before: dict[Path, tuple[str, int]]
) -> Iterator[pa.RecordBatch]:
    """The same batches; an error at the end, or in place of another, if the files have changed since `before`."""

    def check() -> None:
        more = [file for file in _files(path) if file not in before]
        changed = [file for file in before if _stamp_now(file) != before[file]] + more
        if changed:
            raise UserError(f"{changed[0]}: changed while it was read; run again when nothing writes to it")

    try:
        yield from batches
    except (UserError, OSError) as error:
        check()
        if isinstance(error, OSError):
            raise UserError(f"{error.filename or path}: can't be read: {limits.system_reason(error)}") from None
        raise
    check()


def _stamp_now(file: Path) -> tuple[str, int] | None:
    try:
        return stamp(file)
    except OSError:
        return None
