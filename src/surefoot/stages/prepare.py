"""prepare: the raw CSV to clean, split, typed tables."""

from pathlib import Path

from surefoot import errors, files
from surefoot.data.readers import read_csv
from surefoot.data.tables import write_tables
from surefoot.params import load


def main() -> None:
    """Read `prepare.source`; write `data/prepared/`."""
    params = load(files.PARAMS)
    prepare = params.prepare
    inputs, rows = read_csv(Path(prepare.source), prepare.target)
    with files.new_directory(files.PREPARED) as out:
        schema = write_tables(
            out, prepare.source, rows, inputs, prepare.target, seed=params.seed, validation=prepare.validation, test=prepare.test, normalize=prepare.normalize
        )
    counts = ", ".join(f"{rows} {split}" for split, rows in schema["rows"].items())
    print(f"prepared {prepare.source}: {len(inputs)} inputs, {len(schema['classes'])} classes; rows: {counts}")


if __name__ == "__main__":
    errors.run(main)
