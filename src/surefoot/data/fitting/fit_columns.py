"""The preparation of all columns, as it is fitted on the training rows."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import quoted_names, yaml_key
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column
from surefoot.data.features import FeatureDict
from surefoot.data.fitting.arrays import ArraysFit
from surefoot.data.fitting.categories import CategoriesFit
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.fitting.numbers import NumbersFit
from surefoot.data.readers.source import RowSource
from surefoot.data.vocabulary import Vocabulary
from surefoot.params.prepare_section import PrepareParams


def new_fit(column: Column, prepare: PrepareParams, vocabularies: Mapping[str, Vocabulary]) -> Fit:
    """What learns from a column of this kind."""
    if column.kind == "array":
        return ArraysFit(column, prepare)
    return (
        CategoriesFit(column, prepare, vocabularies[column.name])
        if column.kind == "category"
        else NumbersFit(column, prepare)
    )


def fitted_features(fits: list[Fit], blocks: Callable[[str], Callable[[], Iterable[pa.Array]]]) -> list[FeatureDict]:
    """The fitted preparation; `blocks(column)()` yields a column's training values again."""
    found, first = [], 0
    for fitted in fits:
        column = fitted.column
        unit = {"unit": column.unit} if column.unit else {}
        feature = {"column": column.name, "kind": column.kind, **unit, **fitted.feature(blocks(column.name))}
        names = feature.pop("names")
        width = int(np.prod(fitted.shape)) if isinstance(fitted, ArraysFit) else len(names)
        found.append({**feature, "first": first, "width": width, "names": names})
        first += width
    return found


def refuse_stray_texts(fits: Iterable[Fit], cleaner: Cleaner, source: RowSource) -> None:
    """A column of numbers in which some are no numbers would else be taken for a category."""
    for fitted in fits:
        name = fitted.column.name
        if isinstance(fitted, CategoriesFit) and (strays := fitted.strays):
            vocabulary = cleaner.vocabularies[name]
            row = vocabulary.firsts[vocabulary.labels().index(strays[0])]
            raise UserError(
                f"{source.where(row)}, column {name!r}: {strays[0]!r} is not a number, as almost all of the others are",
                f"texts among its numbers: {quoted_names(strays, 5)}: mend them, or add to prepare.missing.values what"
                f" stands for a missing value; or prepare.kinds: {{{yaml_key(name)}: category}} where the column holds"
                " no numbers",
            )
