"""The formats of raw data. Another one is a line here, and a file in `data/readers`."""

from typing import TYPE_CHECKING, Literal, NamedTuple


class RawFormat(NamedTuple):
    """What has to be known of a format before a file is opened."""

    reader: str
    """Its module in `surefoot.data.readers`, in which the function that opens it is called `open_` and its name."""
    names: str | None = None
    """A pattern that the names of its files match; None: it is known by the directories that they are in."""
    parts: bool = False
    """Whether the files of a directory are parts of one table."""
    labels: bool = False
    """Whether the targets may lie in another file."""


RAW_FORMATS = {
    "csv": RawFormat("csv", r"\.(csv|tsv|txt)(\.gz|\.zst)?$", parts=True),
    "parquet": RawFormat("parquet", r"\.(parquet|pq)$", parts=True),
    "npz": RawFormat("numpy_files", r"\.npz$", labels=True),
    "npy": RawFormat("numpy_files", r"\.npy$", labels=True),
    "idx": RawFormat("idx", r"([-.]idx\d([-.]ubyte)?|\.idx)(\.gz|\.zst)?$", labels=True),
    "images": RawFormat("images"),
}
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal["auto", *RAW_FORMATS]
