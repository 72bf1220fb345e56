"""batch: tables to fixed-width tensors in training order."""

from math import prod

from surefoot import errors, files
from surefoot.data.order import epoch_order
from surefoot.data.split import SPLITS
from surefoot.data.store import write_index, write_split
from surefoot.data.tables import read_schema, read_table
from surefoot.errors import UserError
from surefoot.params import load


def main() -> None:
    """Read `data/prepared/`; write `data/batches/`."""
    params = load(files.PARAMS)
    schema = read_schema(files.PREPARED)
    columns, rows = prod(schema["shape"]), schema["rows"]
    shape = params.batch.shape or tuple(schema["shape"])
    if prod(shape) != columns:
        raise UserError(f"params.yaml: batch.shape: {list(shape)} holds {prod(shape)} values, but a row has {columns} inputs; their product must be {columns}")
    if params.batch.drop_last and params.batch.size > rows["train"]:
        raise UserError(f"params.yaml: batch.size: {params.batch.size} is more than the {rows['train']} training rows, and batch.drop_last leaves none")
    # What a row that comes later needs, so that the model can be used on raw rows.
    features = schema["features"]
    preparation = {
        "source": schema["source"],
        "inputs": [feature["column"] for feature in features],
        **{key: [value for feature in features for value in feature[key] or ()] for key in ("subtract", "divide")},
        "examples": schema["examples"],
    }
    with files.new_directory(files.BATCHES) as out:
        for split in SPLITS:
            blocks = read_table(files.PREPARED, split, schema)
            places = epoch_order(rows["train"], params.seed, 0) if split == "train" else None
            write_split(out / split, blocks, rows[split], shape, places)
        write_index(out, batch_size=params.batch.size, drop_last=params.batch.drop_last, shape=shape, classes=schema["classes"], preparation=preparation)
    print(f"batched {rows['train']} training rows of shape {list(shape)} by {params.batch.size}")


if __name__ == "__main__":
    errors.run(main)
