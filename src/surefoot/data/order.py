"""The order of rows: a pure function of (rows, seed, epoch), so that nothing about it needs saving."""

import numpy as np
from numpy.typing import NDArray


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of range(rows). Epoch 0 is the order on disk; training counts from 1."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
