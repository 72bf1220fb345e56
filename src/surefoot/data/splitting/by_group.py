"""Rows split by group: those of one patient, say, are all in the same split."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.base.errors import UserError
from surefoot.data.splitmix64 import key_of, mix64
from surefoot.data.splits import Splits
from surefoot.data.splitting.clean_rows import RowsToSplit
from surefoot.data.text_hashes import hash_text_array
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
        hashes = hash_text_array(category_keys(texts.dictionary))
        yield batch, split_groups(hashes, rows.seed, rows.validation, rows.test)[np.from_dlpack(texts.indices)]
