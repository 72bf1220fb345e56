"""What prepare took each column for, in lines: the doubtful ones first."""

from collections.abc import Iterable
from typing import Any

from surefoot.data.columns import quoted
from surefoot.data.features import Categories, Fit, natural

WIDE = 50  # different values
KINDS = ("numeric", "boolean", "category", "date")


def doubtful(fits: Iterable[Fit], left_out: list[str]) -> list[str]:
    """What may be otherwise than it was taken for, or teach nothing, or give the target away."""
    fits = list(fits)
    counter = [fitted for fitted in fits if fitted.distinct and not isinstance(fitted, Categories)]
    groups = {
        "left out, as without a name, or by its name, it is an index: {} (prepare.columns takes what it names)": left_out,
        "empty in every training row: {} (prepare.ignore leaves a column out)": [fitted.column.name for fitted in fits if fitted.empty],
        "the same value in every training row, from which nothing is learned: {} (prepare.ignore leaves a column out)": [
            fitted.column.name for fitted in fits if fitted.constant and not fitted.empty
        ],
        "another value in every training row, as in an id, from which nothing is learned: {} (prepare.ignore leaves a column out)": [
            fitted.column.name for fitted in fits if fitted.distinct and isinstance(fitted, Categories)
        ],
        "another whole number in every training row, as an id or a row's number is: where the rows are sorted it may give the target away, and of new rows "
        "it says nothing: {} (prepare.ignore leaves a column out)": [fitted.column.name for fitted in counter],
        "taken as numbers, though some begin with 0, as codes do: {} (prepare.kinds: category keeps them as they are)": [
            fitted.column.name for fitted in fits if fitted.column.zeros
        ],
        "taken as a category, though most of its values are numbers: {} (prepare.kinds: numeric, or prepare.missing.values)": [
            fitted.column.name for fitted in fits if isinstance(fitted, Categories) and not fitted.told and 2 * fitted.numbers > fitted.different > 1
        ],
    }
    return [told.format(quoted(names)) for told, names in groups.items() if names]


def lines(schema: dict[str, Any]) -> list[str]:
    """A line for each kind of column, and one for missing values."""
    features, found = schema["features"], []
    for kind in KINDS:
        of_kind = [feature for feature in features if feature["kind"] == kind]
        if of_kind:
            names = [f"{feature['column']!r}{_how(feature)}" for feature in of_kind]
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            found.append(f"{kind}: {', '.join(names[:8])}{more}")
    missing = [f"{sum(texts.values()):,} in {name!r}{_as_what(texts)}" for name, texts in schema["missing"].items()]
    if missing:
        found.append(f"missing values: {', '.join(missing[:8])}" + (f" and some in {len(missing) - 8} more" if len(missing) > 8 else ""))
    return found


def _how(feature: dict[str, Any]) -> str:
    if feature["kind"] == "category":
        values = [value for value in feature["values"] if value is not None]
        some = ", ".join(sorted(map(str, values), key=natural)[:3])
        return f" ({len(values):,} values: {some}{', ...' if len(values) > 3 else ''})"
    written = feature.get("unit") or feature.get("format")
    return f" (written with {written})" if written else ""


def _as_what(texts: dict[str, int]) -> str:
    named = [f"{text!r}" + (f" {number:,}" if len(texts) > 1 else "") for text, number in texts.items() if text]
    return f" ({', '.join(named[:5])})" if named else ""
