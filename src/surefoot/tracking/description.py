"""What a run in MLflow says of itself."""

from typing import Any

from pydantic import Field

from surefoot.base.documents import Count, Document


class RowCounts(Document):
    """How many rows the splits have."""

    train: Count
    validation: Count
    test: Count


class DescribedData(Document):
    """The data set of a run: where it lies, digests of it and of its batches, how many rows it has. One of an older
    Surefoot lacks some.
    """

    path: str = ""
    digest: str = ""
    rows: RowCounts | None = None


class Description(Document):
    """What a run in MLflow says of itself: name, params by dotted key, data set, tags, and small artifacts by path."""

    name: str
    params: dict[str, Any]
    dataset: DescribedData
    tags: dict[str, str] = Field(default={})
    texts: dict[str, str] = Field(default={})
