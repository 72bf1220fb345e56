"""The three splits of the rows."""

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
Splits = NDArray[np.int8]
"""Of rows: for each an index into `SPLITS`."""
