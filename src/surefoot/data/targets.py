"""The targets of the splits: counted by class, or measured; and whether there is enough to learn from."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.base.wording import describe_dropped, listed_names, number_of
from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.cleaning import Cleaner
from surefoot.data.normalization import Statistics, scaling
from surefoot.data.number_notation import is_number
from surefoot.data.splits import SPLITS
from surefoot.data.vocabulary import natural_order
from surefoot.params.prepare_section import PrepareParams


def are_measured(labels: Collection[str]) -> bool:
    """Whether different values of a target are numbers that were measured rather than classes: there are many of them,
    or some aren't whole.
    """
    whole = all(label.lstrip("+-").isdecimal() for label in labels)
    return all(map(is_number, labels)) and (len(labels) > 20 or not whole)


class Targets:
    """Counts the rows of each split, by class; in regression measures the target."""

    def __init__(self, cleaner: Cleaner, prepare: PrepareParams) -> None:
        self.rows = [0] * len(SPLITS)
        self._counts = np.zeros((len(SPLITS), 0), np.int64)
        self._measured = Statistics(1)
        self._cleaner, self._prepare = cleaner, prepare
        # Those with a source of their own are what the user says.
        own = {each.split for each in prepare.sources[1:]}
        self._drawn = [split for split in SPLITS if split not in own]

    def add(self, number: int, target: pa.Array) -> None:
        """Count the targets of rows of a split."""
        self.rows[number] += len(target)
        values = numpy_values(target)[0]
        if self._prepare.task != "regression":
            self._grow()
            self._counts[number] += np.bincount(values, minlength=self._counts.shape[1])
        elif number == 0:
            self._measured.add(values[:, None])

    def _grow(self) -> None:
        if missing := len(self._cleaner.classes) - self._counts.shape[1]:
            self._counts = np.pad(self._counts, ((0, 0), (0, missing)))

    def classes(self) -> list[str]:
        """The classes, sorted: numbers by value, before texts."""
        return sorted(self._labels(), key=natural_order)

    def _labels(self) -> dict[str, list[int]]:
        """The rows of each class in each split; without classes all of whose rows were dropped."""
        self._grow()
        return {
            label: counts
            for label, counts in zip(self._cleaner.classes.labels(), self._counts.T.tolist(), strict=True)
            if any(counts)
        }

    def check_source(self) -> None:
        """Check what the main source has given.

        Raises:
            UserError: there is nothing to learn, or too little to split.
        """
        prepare, total = self._prepare, sum(self.rows)
        if not total:
            dropped = self._cleaner.dropped
            raise UserError(
                f"{prepare.source}: "
                + (f"every row was dropped: {describe_dropped(dropped)}" if dropped else "has no rows")
            )
        if prepare.task != "regression":
            self._check_classes()
        for split in self._drawn:
            if not self.rows[SPLITS.index(split)]:
                raise UserError(
                    f"{prepare.source}: {number_of(total, 'row')} {'is' if total == 1 else 'are'} too few to split by"
                    f" {prepare.split.by}: none is left for {split}; add rows, or change prepare.validation,"
                    " prepare.test or prepare.split"
                )
        if prepare.task == "regression":
            self._check_numbers()

    def _check_classes(self) -> None:
        """At least two, and each with enough rows to split."""
        counts, by_class = self._labels(), self._prepare.split.by == "class"
        column = f"column {self._prepare.target!r}"
        if len(counts) < 2:
            raise UserError(
                f"{column} (prepare.target) holds one class only, {next(iter(counts))!r}; at least two are needed"
            )
        for label in sorted(counts, key=natural_order):
            of_split = dict(zip(SPLITS, counts[label], strict=True))
            empty = [split for split in (self._drawn if by_class else ["train"]) if not of_split[split]]
            if not empty:
                continue
            remedy = (
                "add rows; or set prepare.split.by: row, which draws rows whatever their class; or change"
                " prepare.validation or prepare.test"
                if by_class
                else "add rows, or change prepare.validation or prepare.test, or prepare.split"
            )
            if are_measured(counts):
                remedy += "; or prepare.task: regression, which predicts numbers"
            raise UserError(
                f"class {label!r} of {column} has {number_of(sum(of_split.values()), 'row')}, too few to split: none is"
                f" left for {' and '.join(empty)}; {remedy}"
            )

    def _check_numbers(self) -> None:
        """Not all the same, nor too small to measure."""
        column = f"column {self._prepare.target!r} (prepare.target)"
        low, high = float(self._measured.minimum[0]), float(self._measured.maximum[0])
        if low == high:
            raise UserError(f"{column} is {low!r} in every training row; there is nothing to learn")
        if self._measured.deviation[0] == 0:
            raise UserError(
                f"{column}: numbers from {low!r} to {high!r} have squares of 0 in float64; give them in a smaller unit"
            )

    def check_known(self, target: pa.Array, rows: NDArray[np.int64], where: Callable[[int], str], split: str) -> None:
        """Check that training has seen each class of a separate source.

        Raises:
            UserError: naming the first row of another class.
        """
        if self._prepare.task != "regression":
            self._grow()
            codes = numpy_values(target)[0]
            unknown = np.flatnonzero(self._counts[0][codes] == 0)
            if len(unknown):
                label = self._cleaner.classes.labels()[int(codes[unknown[0]])]
                known = [label for label, counts in self._labels().items() if counts[0]]
                raise UserError(
                    f"{where(int(rows[unknown[0]]))}, column {self._prepare.target!r}: class {label!r}, which no"
                    f" training row has (prepare.{split}_source); they have"
                    f" {listed_names(sorted(known, key=natural_order))}"
                )

    def check_splits(self) -> None:
        """Check that separate sources had rows.

        Raises:
            UserError: one had none.
        """
        for split, rows in zip(SPLITS, self.rows, strict=True):
            if not rows:
                raise UserError(f"{getattr(self._prepare, f'{split}_source')}: has no rows (prepare.{split}_source)")

    def scale(self) -> dict[str, Any]:
        """What schema.json says of how numbers to predict are scaled in training; nothing of classes, or where
        params.yaml wants none.
        """
        if self._prepare.task != "regression" or self._prepare.normalize_target == "none":
            return {}
        subtract, divide = scaling(self._prepare.normalize_target, self._measured)
        return {"target_scale": {"subtract": subtract, "divide": divide}}

    def statistics(self) -> dict[str, Any]:
        """What statistics.json says of the target."""
        if self._prepare.task != "regression":
            counts = self._labels()
            return {
                "class_counts": {
                    split: {label: counts[label][number] for label in self.classes()}
                    for number, split in enumerate(SPLITS)
                }
            }
        measured = self._measured
        return {
            "training_target": {
                name: float(getattr(measured, name)[0]) for name in ("mean", "deviation", "minimum", "maximum")
            }
        }
