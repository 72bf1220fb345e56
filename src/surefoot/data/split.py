"""Which row goes into which split: a pure function of the seed, the class, and the row's place in its class."""

import hashlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


def split_rows(label: str, places: NDArray[np.int64], seed: int, validation: float, test: float) -> NDArray[np.int8]:
    """The split of the rows that stand at `places` (0, 1, 2, ...) among the rows of class `label`.

    Returns an index into `SPLITS` for each. A place's answer depends on nothing that comes after it, so rows
    appended to the data never move an old one.
    """
    share = Fraction(str(test))
    is_test, tests_before = _pick(places, share, f"{seed}/{label}/test")
    rest = Fraction(str(validation)) / (1 - share)
    is_validation, _ = _pick(places - tests_before, rest, f"{seed}/{label}/validation")
    return np.where(is_test, np.int8(2), np.where(is_validation, np.int8(1), np.int8(0)))


def _pick(places: NDArray[np.int64], share: Fraction, key: str) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Pick one place at random from each window of 1/share places; also, for each place, the picks before it.

    So that of the first n places, for any n, n * share are picked, to within one.
    """
    p, q = share.numerator, share.denominator
    window = places * p // q
    start = -(-window * q // p)
    width = -(-(window + 1) * q // p) - start
    picked = start + (_random64(window, key) % width.astype(np.uint64)).astype(np.int64)
    return places == picked, window + (picked < places)


def _random64(counters: NDArray[np.int64], key: str) -> NDArray[np.uint64]:
    """A random 64-bit number for each counter: SplitMix64 (Steele, Lea, Flood 2014) from a hash of `key`."""
    start = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    z = start + counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
