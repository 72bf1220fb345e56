"""What the tests of the readers share."""

import json

import numpy as np
import pytest

from surefoot.base.errors import UserError
from surefoot.data.readers.array_columns import INPUT
from surefoot.data.readers.open_source import open_source
from surefoot.params.prepare_section import PrepareParams


def source_of(path, labels=None, target="kind", **keys):
    return open_source(
        PrepareParams.model_validate({"source": str(path), "target": target, **keys}), str(path), labels and str(labels)
    )


def read(path, labels=None, target="kind", **keys):
    """The columns' names and the rows, as dicts."""
    source = source_of(path, labels, target, **keys)
    batches = list(source.batches)
    assert all(batch.schema.equals(source.schema) and batch.num_rows for batch in batches)
    if source.bytes_total is not None:
        assert source.bytes_read() == source.bytes_total
    return source.schema.names, [row for batch in batches for row in batch.to_pylist()]


def read_arrays(path, labels=None, target="kind", **keys):
    """Inputs (rows, *shape) in their type, and the targets."""
    source = source_of(path, labels, target, **keys)
    field = source.schema.field(INPUT)
    shape = json.loads(field.metadata[b"shape"])
    parts, targets = [], []
    for batch in source.batches:
        parts.append(np.from_dlpack(batch.column(INPUT).flatten()).reshape(-1, *shape))
        targets += batch.column(target).to_pylist()
    return np.concatenate(parts), targets


def refusal(path, labels=None, target="kind", **keys):
    """The message of the error that reading ends in."""
    with pytest.raises(UserError) as refused:
        read(path, labels, target, **keys)
    message = str(refused.value)
    assert len(message.splitlines()) <= 2
    return message
