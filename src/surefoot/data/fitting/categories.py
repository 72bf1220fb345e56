"""What is learned of categories: their values; and whether they look like numbers, dates or ids."""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from surefoot.data.columns import Column, kind_told
from surefoot.data.features import FeatureDict
from surefoot.data.fitting.column_fit import Fit
from surefoot.data.stray_texts import stray_texts
from surefoot.data.vocabulary import Vocabulary, natural_order
from surefoot.params.prepare_section import PrepareParams

YEAR = r"(?<!\d)(?:19|20)\d\d(?!\d)"
MONTH = r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b"
LIKE_DATE = (
    rf"{YEAR}\W{{0,2}}\d{{1,2}}(?!\d)|(?<!\d)\d{{1,2}}\W{{1,2}}{YEAR}|^\d\d?\W{{1,2}}\d\d?\W{{1,2}}\d\d(\d\d)?$|"
    rf"{YEAR}.{{1,2}}\d\d?.{{1,2}}\d\d?|{MONTH}.*\d|\d.*{MONTH}"
)


class CategoriesFit(Fit):
    """Category columns, of which the numbers of a vocabulary come."""

    def __init__(self, column: Column, prepare: PrepareParams, vocabulary: Vocabulary) -> None:
        super().__init__(column, prepare)
        self._vocabulary = vocabulary
        self._counts = np.zeros(0, np.int64)

    def add(self, array: pa.Array) -> None:
        counts = np.bincount(np.from_dlpack(array) + 1, minlength=len(self._vocabulary) + 1)
        self.missing += int(counts[0])
        self._counts = counts[1:] + np.pad(self._counts, (0, len(counts) - 1 - len(self._counts)))

    @property
    def counts(self) -> dict[str, int]:
        """The rows of each value, by value: not by count, as a row more would change the features' order."""
        labels = zip(self._vocabulary.labels(), self._counts.tolist(), strict=False)
        return {label: count for label, count in sorted(labels, key=lambda pair: natural_order(pair[0])) if count}

    @property
    def strays(self) -> list[str]:
        """The texts that are no numbers, where there are but a few of them among numbers, and the kind isn't told."""
        return [] if kind_told(self.column.name, self._prepare) else stray_texts(self.counts)

    def doubts(self) -> set[str]:
        counts = self.counts
        rows = sum(counts.values())
        found = {
            "empty": not counts,
            "constant": len(counts) == 1 and not self.missing,
            "distinct": rows >= 20 and rows == len(counts) and not self.missing,
        }
        if kind_told(self.column.name, self._prepare) is None:
            numbers = sum(not natural_order(label)[0] for label in counts)
            found |= {
                "with units": _have_units(counts),
                "like dates": _like_dates(counts),
                "mostly numbers": 2 * numbers > len(counts) > 1,
            }
        return {doubt for doubt, there in found.items() if there}

    def feature(self, blocks: Callable[[], Iterable[pa.Array]]) -> FeatureDict:
        name, encode = self.column.name, self._prepare.categories
        values: list[str | None] = [*self.counts, *([None] if self.policy == "constant" else [])]
        onehot = [f"{name}=(other)", *(f"{name}=(missing)" if value is None else f"{name}={value}" for value in values)]
        return {
            "fill": None,
            "indicator": False,
            "subtract": [],
            "divide": [],
            "values": values,
            "encode": encode,
            "names": onehot if encode == "onehot" else [name],
        }

    def statistics(self) -> dict[str, Any]:
        return {"missing": self.missing, "counts": self.counts}


def _have_units(labels: Iterable[str]) -> bool:
    """Whether values are numbers with the same text behind each, as 25 kg."""
    behind = [re.fullmatch(r"[+-]?\d[\d.,]*\s*([^\d\s.,:/-][^\d]*)", label) for label in labels]
    return len(behind) >= 5 and None not in behind and len({found[1] for found in behind if found}) == 1


def _like_dates(labels: Collection[str]) -> bool:
    """Whether values have the look of dates in a way that isn't known: a year beside a month, or a month's name."""
    return len(labels) >= 12 and all(
        len(label) <= 40 and re.search(LIKE_DATE, label, re.IGNORECASE) for label in labels
    )
