"""The raw data that `--data` and `--labels` name: of which format they are, and what params.yaml says of it before a
row is read.
"""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from PIL import Image

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.arrow_numpy import is_text
from surefoot.data.readers.idx import labels_of
from surefoot.data.readers.open_source import open_rows, open_source
from surefoot.data.readers.raw_files import data_entries
from surefoot.data.source_formats import LABELS, format_by_name
from surefoot.params.prepare_section import PrepareParams

DELIMITERS = (";", "\t", "|")
"""Of CSV files, beside the comma."""
LARGEST_SIDE = 64
"""Of an image, in pixels: each becomes an input for each weight of the first layer."""
GREY = ("1", "L", "LA")
SIDEWAYS = (5, 6, 7, 8)  # of EXIF's orientations
ARRAYS = (("x", "y"), ("X", "y"), ("inputs", "targets"), ("data", "target"), ("images", "labels"))
"""Names of inputs and targets in an NPZ file; also with _train behind or train_ in front."""


@dataclass
class NamedData:
    """What was named, and what follows from it."""

    files: dict[str, Path]
    """Files and directories, by the key of `prepare` that names each."""
    values: dict[str, Any] = field(default_factory=dict)
    """Other keys of `prepare`."""
    told: list[str] = field(default_factory=list)


def raw_data_named(path: Path, target: str | None, labels: Path | None) -> NamedData:
    """What params.yaml says of a file or directory, without a look at its rows.

    Raises:
        UserError: there is no such file; it needs `--target` or `--labels`, or has no use for one.
    """
    for named, option in ((path, "--data"), (labels, "--labels")):
        if named is not None and not named.exists():
            raise UserError(f"{option} {named}: there is no such file or directory")
    form = _form(path)
    if labels and form not in LABELS:
        raise UserError(f"--labels {labels}: only of {', '.join(LABELS)} files the targets may lie in another file")
    if form in ("images", "idx", "npz", "npy"):
        raw = NamedData({"source": path}, {"target": target or ("class" if form == "images" else "label")})
        if labels:
            raw.files["labels"] = labels
        {"images": _images, "idx": _idx, "npz": _npz, "npy": _npy}[form](raw, path)
        return raw
    if not target:
        names = open_rows(PrepareParams(source=str(path), target="."), path).schema.names
        raise UserError(f"{path}: --target must name the column to predict; it has {listed_names(names)}")
    raw = NamedData({"source": path}, {"target": target})
    if form == "csv":
        _csv(raw, path)
    return raw


def _csv(raw: NamedData, path: Path) -> None:
    """Its delimiter, where the usual one doesn't give the target and another does; then also the sign before decimals:
    the one with which more columns are numbers.
    """

    def read_with(**csv: str) -> PrepareParams:
        return PrepareParams.model_validate({"source": str(path), **raw.values, "csv": csv})

    def has_target(prepare: PrepareParams) -> bool:
        try:
            return prepare.target in open_rows(prepare, path).schema.names
        except UserError:
            return False

    def numbers(decimal: str) -> int:
        prepare = read_with(delimiter=found, decimal=decimal)
        try:
            return sum(not is_text(type_) for type_ in open_source(prepare, prepare.source, None).schema.types)
        except UserError:
            return -1

    if has_target(read_with()):
        return
    found = next((sign for sign in DELIMITERS if has_target(read_with(delimiter=sign))), "")
    if not found:
        return  # the reader tells
    csv = {"delimiter": found} | ({"decimal": ","} if numbers(",") > numbers(".") else {})
    raw.values["csv"] = csv
    raw.told.append(f"prepare.csv: {csv}, as it then has a column {raw.values['target']!r}")


def _form(path: Path) -> str | None:
    """Its format, by names; None where they don't tell: the error is the reader's."""
    inside = data_entries(path, "") if path.is_dir() else [path]
    if path.is_dir() and any(entry.is_dir() for entry in inside):
        return "images"
    return next((form for entry in inside if (form := format_by_name(entry))), None)


def _idx(raw: NamedData, path: Path) -> None:
    """The labels' file by its name; and the test rows, where they lie beside as MNIST's do."""
    raw.files.setdefault("labels", labels_of(path))
    test = path.with_name(path.name.replace("train", "t10k"))
    if test != path and test.is_file():
        raw.files |= {"test_source": test, "test_labels": labels_of(test)}
        raw.told.append(f"prepare.test_source: {test.name} lies beside it, with the test rows")


def _npy(raw: NamedData, path: Path) -> None:
    if "labels" not in raw.files:
        raise UserError(f"{path}: holds the inputs alone; --labels must name the NPY file of the targets")


def _npz(raw: NamedData, path: Path) -> None:
    """Inputs and targets by their usual names; where these are of training rows, those of the test, too."""
    try:
        with ZipFile(path) as file:
            names = {name.removesuffix(".npy") for name in file.namelist()}
    except (BadZipFile, OSError):
        return  # the reader tells
    for form in ("{}", "{}_train", "train_{}"):
        for pair in ARRAYS:
            inputs, targets = map(form.format, pair)
            if not {inputs, *(() if "labels" in raw.files else (targets,))} <= names:
                continue
            raw.values["arrays"] = arrays = {"inputs": inputs, "targets": targets}
            for split, called in (("validation", "val"), ("test", "test")):
                own = {f"{split}_{key}": arrays[key].replace("train", called) for key in arrays}
                if form != "{}" and {*own.values()} <= names:
                    arrays |= own
            raw.told.append(f"prepare.arrays: {', '.join(arrays.values())}, by their names")
            return


def _images(raw: NamedData, path: Path) -> None:
    """Their size, where they have different ones or are large, and whether they have colours."""
    folders = [folder for folder in data_entries(path, "images") if folder.is_dir()]
    sizes: set[tuple[int, int]] = set()
    grey = True
    for file in chain.from_iterable(data_entries(folder, "images") for folder in folders):
        try:
            with Image.open(file) as image:
                turned = image.getexif().get(0x0112) in SIDEWAYS
                sizes.add((image.width, image.height) if turned else (image.height, image.width))
                grey = grey and image.mode in GREY
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # the reader tells
    if not sizes:
        return
    images: dict[str, Any] = {"mode": "L" if grey else "RGB"}
    why = "all are grey" if grey else "they have colours"
    height, width = (min(LARGEST_SIDE, min(side)) for side in zip(*sizes, strict=True))
    if sizes != {(height, width)}:
        images = {"resize": [height, width], **images}
        sized = "they are of different sizes" if len(sizes) > 1 else "each pixel is an input"
        why = f"{sized}, and {why}"
    raw.values["images"] = images
    raw.told.append(f"prepare.images: {images}, as {why}")
