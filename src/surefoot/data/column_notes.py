"""What prepare took each column for, in lines: the doubtful ones first."""

import unicodedata
from typing import Any

from surefoot.base import paths, terminal
from surefoot.base.installation import included_network
from surefoot.base.wording import number_of, quoted_names
from surefoot.data.fitting.categories import CategoriesFit
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.kept_preparation import KeptPreparation
from surefoot.data.prepare_as_kept import unseen_values
from surefoot.data.schema_json import PreparedSchema
from surefoot.data.vocabulary import natural_order

LONGEST = 40
"""So many characters of a value are shown."""
WIDE = 100
"""As many inputs of one-hot categories are worth a note."""
KINDS = ("numeric", "boolean", "category", "date")
DOUBTS = {
    "left out": (
        "left out, taken for an index: {} (no name, or one that pandas gives; prepare.columns takes what it names)"
    ),
    "empty": "empty in every training row: {} (prepare.ignore leaves a column out)",
    "constant": (
        "the same value in every training row, from which nothing is learned: {} (prepare.ignore leaves a column out)"
    ),
    "distinct": (
        "another value in every training row, as in an id, from which nothing is learned: {} (prepare.ignore "
        "leaves a column out)"
    ),
    "counting": (
        "whole numbers that count the rows, or rise or fall with them: {}; if that is an id or a row's "
        "number, leave it out (prepare.ignore): of new rows it says nothing, and where rows are sorted it "
        "gives the target away"
    ),
    "zeros": (
        "taken as numbers, though some begin with 0, as codes do: {} (prepare.kinds: category keeps them as they are)"
    ),
    "like days": (
        'taken as numbers, though they may be days, as 20241231 is: {} (prepare.dates: "%Y%m%d" reads them so)'
    ),
    "with units": (
        "taken as a category, though its values are numbers with something behind, as 25 kg is: {} "
        "(prepare.kinds: numeric reads them as numbers)"
    ),
    "like dates": (
        "taken as a category, though its values have the look of dates: {} (prepare.dates: a format of "
        "strptime's reads them as such)"
    ),
    "mostly numbers": (
        "taken as a category, though most of its values are numbers: {} (prepare.kinds: numeric, or "
        "prepare.missing.values)"
    ),
}
"""What is told of columns that may be otherwise than they were taken for, or teach nothing, or give the target away."""


def notes_on_columns(fits: list[Fit], described: PreparedSchema, keep: KeptPreparation | None) -> list[str]:
    """What the user should be told of the columns, a line each."""
    kept = _kept(keep, fits) if keep else []
    return [*doubtful_columns(fits, described.left_out), *wide_inputs(described), *alike_labels(described), *kept]


def doubtful_columns(fits: list[Fit], left_out: list[str]) -> list[str]:
    """What may be otherwise than it was taken for, by `DOUBTS`."""
    doubts = [(fitted.column.name, fitted.doubts()) for fitted in fits]
    columns = {doubt: [name for name, found in doubts if doubt in found] for doubt in DOUBTS} | {"left out": left_out}
    return [DOUBTS[doubt].format(quoted_names(names)) for doubt, names in columns.items() if names]


def _kept(keep: KeptPreparation, fits: list[Fit]) -> list[str]:
    counts = {fitted.column.name: fitted.counts for fitted in fits if isinstance(fitted, CategoriesFit)}
    unseen = "; ".join(unseen_values(keep, counts))
    return [
        "the preparation of the model that training starts from is kept"
        + (f"; it hasn't seen, and takes for others: {unseen}" if unseen else "")
    ]


def alike_labels(described: PreparedSchema) -> list[str]:
    """Classes, and categories of a column, that are written alike: by people they may be meant as one."""
    named = {f"classes of {described.target!r}": described.classes}
    named |= {
        f"categories of {feature['column']!r}": feature["values"]
        for feature in described.features
        if feature["kind"] == "category"
    }
    found = []
    for what, values in named.items():
        by_look: dict[str, list[str]] = {}
        for value in values:
            if value is not None:
                by_look.setdefault(" ".join(unicodedata.normalize("NFKC", value).casefold().split()), []).append(value)
        if same := next((looks for looks in by_look.values() if len(looks) > 1), None):
            more = sum(len(looks) > 1 for looks in by_look.values()) - 1
            found.append(
                f"{what} that differ only in case or blanks: {quoted_names(same)}"
                + (f", and {more} more such" if more else "")
            )
    return found


def wide_inputs(described: PreparedSchema) -> list[str]:
    """What one-hot categories will cost in data/batches, where they become many inputs."""
    onehot = [feature for feature in described.features if feature.get("encode") == "onehot"]
    width, rows = sum(feature["width"] for feature in onehot), sum(described.rows.values())
    if width < WIDE:
        return []
    widest = sorted(((feature["width"], feature["column"]) for feature in onehot), key=lambda pair: -pair[0])[:3]
    become = (
        f"{len(onehot)} columns become {width:,} inputs"
        if len(onehot) > 1
        else f"column {onehot[0]['column']!r} becomes {width:,} inputs"
    )
    named = f" ({', '.join(f'{column!r} {inputs:,}' for inputs, column in widest)})" if len(onehot) > 1 else ""
    return [
        f"by one-hot {become}{named}, which will take {_bytes(4 * rows * width)} in {paths.BATCHES};"
        f" prepare.categories: codes takes {_bytes(4 * rows * len(onehot))}, with a network that embeds them,"
        f" train.model.factory: {included_network('table:table')}"
    ]


def _bytes(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.{1 if count < 100 * size else 0}f} {unit}"
    return f"{count} bytes"


def column_lines(schema: PreparedSchema) -> list[str]:
    """A line for each kind of column, and one for missing values."""
    features, found = schema.features, []
    for kind in KINDS:
        of_kind = [feature for feature in features if feature["kind"] == kind]
        if of_kind:
            names = [f"{feature['column']!r}{_how(feature)}" for feature in of_kind]
            found.append(f"{kind}: {terminal.first_few(names)}")
    missing = [f"{sum(texts.values()):,} in {name!r}{_as_what(texts)}" for name, texts in schema.missing.items()]
    if missing:
        found.append(f"missing values: {terminal.first_few(missing)}")
    return found


def _how(feature: dict[str, Any]) -> str:
    if feature["kind"] == "category":
        values = [value for value in feature["values"] if value is not None]
        some = ", ".join(
            value if len(value) <= LONGEST else f"{value[:LONGEST]}..."
            for value in sorted(map(str, values), key=natural_order)[:3]
        )
        return f" ({number_of(len(values), 'value')}: {some}{', ...' if len(values) > 3 else ''})"
    written = feature.get("unit") or feature.get("format")
    return f" (written with {written})" if written else ""


def _as_what(texts: dict[str, int]) -> str:
    named = [f"{text!r}" + (f" {number:,}" if len(texts) > 1 else "") for text, number in texts.items() if text]
    return f" ({', '.join(named[:5])})" if named else ""
