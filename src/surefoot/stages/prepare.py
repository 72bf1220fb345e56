"""prepare: the raw CSV to clean, split, typed tables."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from surefoot import errors, files
from surefoot.data.readers.open import open_source
from surefoot.data.readers.source import Source
from surefoot.data.tables import write_tables
from surefoot.errors import UserError
from surefoot.params import load


def main() -> None:
    """Read `prepare.source`; write `data/prepared/`."""
    params = load(files.PARAMS)
    prepare = params.prepare
    # For now each input must be a number.
    source = open_source(prepare.model_copy(update={"kinds": {"*": "numeric"}}), prepare.source, prepare.labels)
    inputs = [name for name in source.schema.names if name != prepare.target]
    rows = _complete(source, inputs, prepare.target)
    with files.new_directory(files.PREPARED) as out:
        schema = write_tables(
            out, prepare.source, rows, inputs, prepare.target, seed=params.seed, validation=prepare.validation, test=prepare.test, normalize=prepare.normalize
        )
    counts = ", ".join(f"{rows} {split}" for split, rows in schema["rows"].items())
    print(f"prepared {prepare.source}: {len(inputs)} inputs, {len(schema['classes'])} classes; rows: {counts}")


def _complete(source: Source, inputs: list[str], target: str) -> Iterator[pa.RecordBatch]:
    """The batches, in which each input is a finite number and each target is there."""
    schema = pa.schema([(name, pa.float64()) for name in inputs] + [(target, pa.string())])
    first = 0
    for batch in source.batches:
        batch = batch.select(schema.names).cast(schema)
        for name in schema.names:
            column = batch.column(name)
            good = pc.is_valid(column) if name == target else pc.and_kleene(pc.is_valid(column), pc.is_finite(column))
            # Not pc.index, which makes a scalar of what it looks for: pa.scalar imports pandas.
            bad = pc.indices_nonzero(pc.invert(good))
            if len(bad):
                place = bad[0].as_py()
                value = column[place].as_py()
                what = "a target" if name == target else "a number"
                raise UserError(f"{source.where(first + place)}, column {name!r}: {'empty' if value is None else value}; {what} is needed in every row")
        first += batch.num_rows
        yield batch


if __name__ == "__main__":
    errors.run(main)
