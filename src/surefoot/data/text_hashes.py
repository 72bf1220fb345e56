"""64-bit hashes of texts, and of any bytes: the same on every machine."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from surefoot.data.splitmix64 import key_of, random64


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


def hash_text_array(texts: pa.Array) -> NDArray[np.uint64]:
    """The hash of each text of an array; of a null that of no text."""
    texts = pa.concat_arrays([texts, pa.nulls(0, pa.string())])  # from the buffers' beginning
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else [0]
    return hash_texts(np.asarray(bounds, np.int32), np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8))
