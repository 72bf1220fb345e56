"""Which row goes into which split: a pure function of the seed, and of the row's place in its class, its group, or its
time.
"""

import hashlib
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


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
            keys = [[_key(f"{self._seed}/{label}/{what}") for label in new] for what in ("test", "validation")]
            self._keys = np.append(self._keys, np.array(keys, np.uint64), axis=1)
        # A sort brings the rows of a class together, in order. 16 bits are sorted fastest.
        order = np.argsort(classes.astype(np.uint16) if len(labels) <= 1 << 16 else classes, kind="stable")
        counts = np.bincount(classes, minlength=len(labels))
        places = np.empty(len(classes), np.int64)
        places[order] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts - self._seen, counts)
        self._seen = self._seen + counts
        return _split(places, self._keys[0][classes], self._keys[1][classes], self._validation, self._test)


def split_rows(label: str, places: NDArray[np.int64], seed: int, validation: float, test: float) -> NDArray[np.int8]:
    """The split of the rows that stand at `places` (0, 1, 2, ...) among the rows of class `label`.

    Returns an index into `SPLITS` for each. A place's answer depends on nothing that comes after it, so rows appended
    to the data never move an old one. A fraction of 0 is that of a split with a source of its own.
    """
    test_key, validation_key = (np.uint64(_key(f"{seed}/{label}/{what}")) for what in ("test", "validation"))
    return _split(places, test_key, validation_key, validation, test)


def split_groups(groups: NDArray[np.uint64], seed: int, validation: float, test: float) -> NDArray[np.int8]:
    """The split of each group, from a hash of its name (`hash_texts`): a pure function of the seed and the group.

    The fractions are those of the groups, approximately: each group's split is drawn by itself.
    """
    drawn = mix(groups + np.uint64(_key(f"{seed}/group")))
    tests = int(Fraction(str(test)) * 2**64)
    validations = int(Fraction(str(validation)) * 2**64) + tests
    return np.where(
        drawn < np.uint64(tests), np.int8(2), np.where(drawn < np.uint64(validations), np.int8(1), np.int8(0))
    )


def hash_texts(offsets: NDArray[np.int32], data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A 64-bit hash of each text, UTF-8 in `data` from offsets[i] to offsets[i + 1]: a sum of a random number for each
    byte and place.
    """
    lengths = np.diff(offsets)
    data = data[offsets[0] : offsets[-1]]
    places = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    totals = np.append(np.uint64(0), np.cumsum(_random64(places * 256 + data, _key("text"))))
    at = offsets - offsets[0]
    # Differences wrap around as sums do.
    hashes: NDArray[np.uint64] = totals[at[1:]] - totals[at[:-1]]
    return hashes


def _split(
    places: NDArray[np.int64],
    test_keys: NDArray[np.uint64] | np.uint64,
    validation_keys: NDArray[np.uint64] | np.uint64,
    validation: float,
    test: float,
) -> NDArray[np.int8]:
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
    picked = start + (_random64(window, keys) % width.astype(np.uint64)).astype(np.int64)
    return places == picked, window + (picked < places)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _random64(counters: NDArray[np.int64], keys: NDArray[np.uint64] | np.uint64 | int) -> NDArray[np.uint64]:
    """A random 64-bit number for each counter: SplitMix64 (Steele, Lea, Flood 2014) from its key."""
    return mix(np.uint64(keys) + counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers in which every bit depends on every bit of those given."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
