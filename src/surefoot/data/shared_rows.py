"""How many rows of one prepared table are among those of others, by hashes of their values."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.parquet_tables import read_row_groups
from surefoot.data.splitmix64 import mix64
from surefoot.data.splits import SPLITS
from surefoot.data.text_hashes import hash_text_array, hash_texts
from surefoot.data.vocabulary import category_keys
from surefoot.params.prepare_section import PrepareParams

SAMPLE = 1 << 22
"""Of more rows than this, only those with some hashes are looked for in another table."""
Blocks = Callable[[], Iterator[pa.RecordBatch]]


def count_shared(rows: Blocks, number: int, others: list[Blocks]) -> int:
    """How many of `number` prepared rows, inputs and target, are among the others, too; of very many, estimated by a
    part of them.
    """
    every = np.uint64(1 << max(0, (number - 1).bit_length() - SAMPLE.bit_length() + 1))  # a power of two
    ours = np.sort(np.concatenate([np.zeros(0, np.uint64), *(_sampled(batch, every) for batch in rows())]))
    found = np.zeros(len(ours), np.bool_)
    for blocks in others:
        for batch in blocks():
            theirs = np.unique(_sampled(batch, every))
            first, last = np.searchsorted(ours, theirs, "left"), np.searchsorted(ours, theirs, "right")
            there = last > first
            starts = np.bincount(first[there], minlength=len(ours) + 1) - np.bincount(
                last[there], minlength=len(ours) + 1
            )
            found |= np.cumsum(starts)[: len(ours)] > 0
    return int(found.sum()) * int(every)


def _sampled(batch: pa.RecordBatch, every: np.uint64) -> NDArray[np.uint64]:
    hashes = hash_rows(batch)
    some_hashes: NDArray[np.uint64] = hashes[hashes % every == 0]
    return some_hashes


def hash_rows(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """A 64-bit hash of each row of a prepared table."""
    hashes = np.zeros(batch.num_rows, np.uint64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        hashes = mix64(hashes + _hash_values(column) + np.uint64(len(name)))
    return hashes


def _hash_values(column: pa.Array) -> NDArray[np.uint64]:
    if pa.types.is_dictionary(column.type):
        of_texts = hash_text_array(category_keys(column.dictionary))
        codes, valid = numpy_values(column.indices)
        hashes = of_texts[codes] if len(of_texts) else np.zeros(len(codes), np.uint64)
    elif pa.types.is_fixed_size_binary(column.type):
        size, valid = column.type.byte_width, None
        data = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * size : (column.offset + len(column)) * size]
        hashes = np.empty(len(column), np.uint64)
        step = max(1, (1 << 20) // max(1, size))
        for start in range(0, len(column), step):  # a hash needs eight times the bytes
            count = min(step, len(column) - start)
            hashes[start : start + count] = hash_texts(
                np.arange(count + 1, dtype=np.int32) * np.int32(size), data[start * size : (start + count) * size]
            )
    else:
        values, valid = numpy_values(column)
        # 0.0 is -0.0.
        hashes = mix64(
            (values + 0.0 if values.dtype.kind == "f" else values.astype(np.int64)).view(np.uint64) + np.uint64(1)
        )
    return hashes if valid is None else np.where(valid, hashes, np.uint64(0))


def shared_notes(out: Path, prepare: PrepareParams, rows: dict[str, int]) -> list[str]:
    """How many rows of separate sources are among another source's, too."""

    def blocks(split: str) -> Blocks:
        return lambda: read_row_groups(out / f"{split}.parquet")

    own = prepare.sources[1:]
    drawn = [split for split in SPLITS if split not in {each.split for each in own}]
    among = [(each, drawn, prepare.source) for each in own]
    if len(own) == 2:
        validation, test = own
        among.append((test, ["validation"], f"{validation.source} ({validation.key})"))
    found = []
    for each, others, theirs in among:
        if count := count_shared(blocks(each.split), rows[each.split], [blocks(other) for other in others]):
            found.append(
                f"{count:,} of the {rows[each.split]:,} rows of {each.source} ({each.key}) are also among those of"
                f" {theirs}, with the same inputs and target: of these the figures say nothing about new rows"
            )
    return found
