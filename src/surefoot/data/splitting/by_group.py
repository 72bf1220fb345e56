"""Rows split by group: those of one patient, say, are all in the same split."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.splitmix64 import key_of, mix64, random64
from surefoot.data.splits import Splits
from surefoot.data.splitting.rows import RowsToSplit
from surefoot.data.vocabulary import category_keys, texts_of_categories


def split_groups(groups: NDArray[np.uint64], seed: int, validation: float, test: float) -> NDArray[np.int8]:
    """The split of each group, from a hash of its name (`hash_texts`): a pure function of the seed and the group.

    The fractions are those of the groups, approximately: each group's split is drawn by itself.
    """
    drawn = mix64(groups + np.uint64(key_of(f"{seed}/group")))
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
    totals = np.append(np.uint64(0), np.cumsum(random64(places * 256 + data, key_of("text"))))
    at = offsets - offsets[0]
    # Differences wrap around as sums do.
    hashes: NDArray[np.uint64] = totals[at[1:]] - totals[at[:-1]]
    return hashes


def split_by_group(rows: RowsToSplit) -> Iterator[tuple[pa.RecordBatch, Splits]]:
    """Each group as a whole."""
    for raw, batch, numbered in rows.clean():
        column = rows.column(raw, numbered)
        if pa.types.is_nested(column.type):
            raise UserError(
                f"{rows.prepare.source}: column {rows.prepare.split.column!r} (prepare.split.column) holds arrays,"
                " which can't be groups"
            )
        texts = texts_of_categories(column).dictionary_encode("encode")  # all that are missing are one group
        names = pa.concat_arrays([category_keys(texts.dictionary), pa.nulls(0, pa.string())])
        _, offsets, data = names.buffers()
        bounds = (
            np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1]
            if len(names)
            else np.zeros(1, np.int32)
        )
        hashes = hash_texts(bounds, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8))
        yield batch, split_groups(hashes, rows.seed, rows.validation, rows.test)[np.from_dlpack(texts.indices)]
