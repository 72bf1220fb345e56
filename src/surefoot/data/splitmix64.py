"""Random numbers that need no state: SplitMix64 (Steele, Lea, Flood 2014)."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def key_of(text: str) -> int:
    """The key of a series of random numbers that has a name."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def random64(counters: NDArray[np.int64], keys: NDArray[np.uint64] | np.uint64 | int) -> NDArray[np.uint64]:
    """A random 64-bit number for each counter: SplitMix64 (Steele, Lea, Flood 2014) from its key."""
    return mix64(np.uint64(keys) + counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def mix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers in which every bit depends on every bit of those given."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
