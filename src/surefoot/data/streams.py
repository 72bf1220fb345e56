"""Streams of batches: gathered to a size that is worth the work, and read ahead by a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

Item = TypeVar("Item")


def gather(batches: Iterator[pa.RecordBatch], size: int, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least so many bytes, or so many rows, however small they come."""
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for batch in batches:
        held.append(batch)
        held_rows, held_bytes = held_rows + batch.num_rows, held_bytes + batch.nbytes
        if held_bytes >= size or (rows is not None and held_rows >= rows):
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield pa.concat_batches(held)


def read_ahead(items: Iterator[Item], count: int = 1) -> Iterator[Item]:
    """The same items; a thread makes the next `count` meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(count))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
