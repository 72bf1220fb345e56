"""Which format a source has, as far as its name tells, and which keys of params.yaml have a use for it."""

import re
from collections.abc import Iterator
from pathlib import Path

from surefoot.base.user_code import FUNCTION
from surefoot.params.prepare_section import PrepareParams
from surefoot.params.raw_formats import RAW_FORMATS

LABELS = tuple(name for name, form in RAW_FORMATS.items() if form.labels)
OTHERS = {"function": "a function", "sklearn": "data of scikit-learn's"}
# Keys that name something in the data, and whose names there are in no other format.
USES = {
    "csv.names": ("csv",),
    "csv.header": ("csv",),
    "images.resize": ("images",),
    "images.mode": ("images",),
    "arrays.inputs": ("npz",),
    "arrays.targets": ("npz", "function"),
    "arrays.validation_inputs": ("npz",),
    "arrays.validation_targets": ("npz",),
    "arrays.test_inputs": ("npz",),
    "arrays.test_targets": ("npz",),
    "labels": LABELS,
    "validation_labels": LABELS,
    "test_labels": LABELS,
}
DEFAULTS = PrepareParams(source=".", target=".")


def format_by_name(file: str | Path) -> str | None:
    """The format of a file of this name."""
    name = Path(file).name
    fits = (known for known, form in RAW_FORMATS.items() if form.names and re.search(form.names, name, re.IGNORECASE))
    return next(fits, None)


def told_format(prepare: PrepareParams) -> str | None:
    """The format of `prepare.source`, where params.yaml tells it."""
    if prepare.source.startswith("sklearn:"):
        return "sklearn"
    if re.fullmatch(FUNCTION, prepare.source):
        return "function"
    if prepare.format != "auto":
        return prepare.format
    return None if Path(prepare.source).is_dir() else format_by_name(prepare.source)


def useless_keys(prepare: PrepareParams, form: str | None = None) -> Iterator[tuple[str, str]]:
    """Each key that is given and has no use for the source's format, with what is wrong; nothing where the format isn't
    known.
    """
    form = form or told_format(prepare)
    for key, formats in USES.items() if form else ():
        section, _, name = key.rpartition(".")
        given, default = (
            getattr(getattr(values, section) if section else values, name) for values in (prepare, DEFAULTS)
        )
        # A boolean says whether there is a header, and gives no names.
        if given != default and form not in formats and not isinstance(given, bool):
            shown = list(given) if isinstance(given, tuple) else given
            yield (
                f"prepare.{key}",
                (
                    f"{shown} has no use with {OTHERS.get(str(form), f'{form} files')}, only with"
                    f" {' or '.join(formats)}; leave it out"
                ),
            )
