"""What a run in MLflow says of itself, and how MLflow takes it."""

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from surefoot.base import digests, terminal
from surefoot.base.documents import Count, Document
from surefoot.tracking.tag_names import NOTE

if TYPE_CHECKING:
    from mlflow.entities import Dataset

TAG = 250  # characters of a tag: a page has many
PARAM_NAME = 250  # characters of a param's name


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


def short_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as a page has room for them; without the empty ones."""
    return {name: value if name == NOTE else terminal.one_line(value, TAG) for name, value in tags.items() if value}


def param_name(name: str) -> str:
    """A param's name as MLflow takes it: that of a column (`prepare.kinds`) may hold anything.

    `trajectory.json` has the params as they are.
    """
    found = re.sub(r"[^/\w.\- :]", "_", name)[:PARAM_NAME]
    return found if posixpath.normpath(found) == found else found.replace("/", "_")


def mlflow_dataset(data: DescribedData) -> "Dataset":
    """The data set as MLflow has it."""
    from mlflow.entities import Dataset

    return Dataset(
        name=data.path,
        digest=data.digest[:36],  # MLflow takes no more: the whole one is in the profile and in a tag
        source_type="local",
        source=digests.canonical_json({"uri": data.path}).decode(),
        profile=digests.canonical_json(data.plain()).decode(),
    )
