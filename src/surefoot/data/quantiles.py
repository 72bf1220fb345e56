"""Exact medians and ranks of more numbers than fit in memory."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from surefoot.data.normalization import Array


def median(blocks: Callable[[], Iterable[Array]], count: int) -> float:
    """The exact median of `count` numbers, which `blocks` yields anew each time it is called; 0 if there are none."""
    if not count:
        return 0.0
    (low, _), (high, _) = numbers_at_ranks(lambda: map(sortable, blocks()), [(count - 1) // 2, count // 2])
    return float((unsortable(low) + unsortable(high)) / 2) + 0.0  # + 0.0: no -0.0


def numbers_at_ranks(blocks: Callable[[], Iterable[NDArray[np.uint64]]], ranks: list[int]) -> list[tuple[int, int]]:
    """The numbers that would stand at `ranks` (from 0) if all were sorted, each with its rank among those equal to it.

    In four passes of 16 bits each, and half a megabyte a rank.
    """
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in (48, 32, 16, 0):
        counts = {prefix: np.zeros(1 << 16, np.int64) for prefix in prefixes}
        for block in blocks():
            digits = block >> np.uint64(shift)
            for prefix, count in counts.items():
                here = digits if shift == 48 else digits[digits >> np.uint64(16) == prefix]
                count += np.bincount((here & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        for number, prefix in enumerate(prefixes):
            upto = counts[prefix].cumsum()
            digit = int(np.searchsorted(upto, left[number], side="right"))
            left[number] -= int(upto[digit] - counts[prefix][digit])
            prefixes[number] = prefix << 16 | digit
    return list(zip(prefixes, left, strict=True))


def sortable(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers as uint64 of the same order."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    sign = np.uint64(1 << 63)
    if values.dtype == np.int64:
        return bits ^ sign
    # A negative float's bits grow as it falls.
    return np.where(bits & sign, ~bits, bits | sign)


def unsortable(image: int) -> float:
    """The float64 of its `sortable` image."""
    sign = 1 << 63
    bits = image ^ sign if image & sign else image ^ (2**64 - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
