"""Sources made by hand, of Arrow batches."""

import pyarrow as pa

from surefoot.data.readers.source import RowSource
from surefoot.data.tables import write_tables
from surefoot.params.prepare_section import PrepareParams


def source(columns, size=7, name="raw.csv", types=(), metadata=None):
    """A source of columns (lists or Arrow arrays), in batches of `size` rows."""
    arrays = {
        key: values if isinstance(values, pa.Array) else pa.array(values, dict(types).get(key))
        for key, values in columns.items()
    }
    table = pa.table(arrays)
    if metadata:
        table = table.cast(pa.schema([field.with_metadata(metadata.get(field.name)) for field in table.schema]))
    return RowSource(
        table.schema,
        iter(table.to_batches(max_chunksize=size)),
        lambda row: f"{name}: row {row + 2}",
        1000,
        lambda: 500,
    )


def prepare_of(**options):
    """`prepare` as params.yaml would have it."""
    return PrepareParams.model_validate({"source": "raw.csv", "target": "kind"} | options)


def write(out, rows, *, size=7, seed=0, types=(), metadata=None, validation=None, test=None, **options):
    """Prepare a source of `rows`, by column; returns what `write_tables` does.

    `validation` and `test` are columns of separate sources.
    """
    own = {}
    for split, theirs in (("validation", validation), ("test", test)):
        if theirs is not None:
            options[f"{split}_source"] = f"{split}.csv"
            own[split] = lambda _, theirs=theirs, split=split: source(theirs, size, f"{split}.csv", types, metadata)
    return write_tables(
        out,
        prepare_of(**options),
        seed,
        source(rows, size, types=types, metadata=metadata),
        own,
    )
