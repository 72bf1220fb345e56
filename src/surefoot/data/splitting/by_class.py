"""Rows split by class, so that each class has its share in each split; or whatever their class."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.splitmix64 import key_of, random64
from surefoot.data.splits import Splits
from surefoot.data.splitting.clean_rows import RowsToSplit


class ByClass:
    """Splits rows by their place among those of their class; the places seen so far are counted here."""

    def __init__(self, seed: int, validation: float, test: float) -> None:
        self._seed, self._validation, self._test = seed, validation, test
        self._seen = np.zeros(0, np.int64)
        self._keys = np.zeros((2, 0), np.uint64)

    def split(self, classes: NDArray[np.int32], labels: list[str]) -> NDArray[np.int8]:
        """The split of the next rows, whose classes are indices into `labels`; labels may be added from
        call to call.
        """
        if new := labels[len(self._seen) :]:
            self._seen = np.append(self._seen, np.zeros(len(new), np.int64))
            keys = [[key_of(f"{self._seed}/{label}/{what}") for label in new] for what in ("test", "validation")]
            self._keys = np.append(self._keys, np.array(keys, np.uint64), axis=1)
        # A sort brings the rows of a class together, in order. 16 bits are sorted fastest.
        order = np.argsort(classes.astype(np.uint16) if len(labels) <= 1 << 16 else classes, kind="stable")
        counts = np.bincount(classes, minlength=len(labels))
        places = np.empty(len(classes), np.int64)
        places[order] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts - self._seen, counts)
        self._seen = self._seen + counts
        return split_places(places, self._keys[0][classes], self._keys[1][classes], self._validation, self._test)


def split_places(
    places: NDArray[np.int64],
    test_keys: NDArray[np.uint64] | np.uint64,
    validation_keys: NDArray[np.uint64] | np.uint64,
    validation: float,
    test: float,
) -> NDArray[np.int8]:
    """The split of rows by their places (0, 1, 2, ...) among those of their class, and the keys of that class.

    Returns an index into `SPLITS` for each. A place's answer depends on nothing that comes after it, so rows appended
    to the data never move an old one. A fraction of 0 is that of a split with a source of its own.
    """
    # Of at most nine digits, so that a place times its numerator fits 64 bits; that moves no row of the first billion.
    share = Fraction(str(test)).limit_denominator(10**9)
    is_test, tests_before = _pick(places, share, test_keys)
    rest = (Fraction(str(validation)) / (1 - share)).limit_denominator(10**9)
    is_validation, _ = _pick(places - tests_before, rest, validation_keys)
    return np.where(is_test, np.int8(2), np.where(is_validation, np.int8(1), np.int8(0)))


def _pick(
    places: NDArray[np.int64], share: Fraction, keys: NDArray[np.uint64] | np.uint64
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Pick one place at random from each window of 1/share places; also, for each place, the picks before it.

    So that of the first n places, for any n, n * share are picked, to within one.
    """
    p, q = share.numerator, share.denominator
    if not p:
        return np.zeros(len(places), np.bool_), np.zeros(len(places), np.int64)
    window = places * p // q
    start = -(-window * q // p)
    width = -(-(window + 1) * q // p) - start
    picked = start + (random64(window, keys) % width.astype(np.uint64)).astype(np.int64)
    return places == picked, window + (picked < places)


def split_by_class(rows: RowsToSplit) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """Each class by itself."""
    places, labels = ByClass(rows.seed, rows.validation, rows.test), list[str]()
    for _, batch, _ in rows.clean():
        if len(rows.cleaner.classes) > len(labels):
            labels = rows.cleaner.classes.labels()
        yield batch, places.split(numpy_values(batch.column(rows.prepare.target))[0], labels)


def split_by_row(rows: RowsToSplit) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """All rows as if they were of one class."""
    places = ByClass(rows.seed, rows.validation, rows.test)
    for _, batch, _ in rows.clean():
        yield batch, places.split(np.zeros(batch.num_rows, np.int32), [""])
