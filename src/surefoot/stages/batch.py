"""batch: tables to fixed-width tensors in training order."""

from math import prod

from surefoot.base import errors, paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.data.batch_index import Preparation, write_index
from surefoot.data.batch_writer import write_split
from surefoot.data.order import RowOrder
from surefoot.data.schema_json import PreparedSchema
from surefoot.data.splits import SPLITS
from surefoot.data.tables import read_schema, read_table
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params


def main() -> None:
    """Read `data/prepared/`; write `data/batches/`."""
    params = load_params(paths.PARAMS)
    terminal.print_lines(f"batching {paths.PREPARED}")
    schema = read_schema(paths.PREPARED)
    shape, rows = _input_shape(params, schema), schema.rows
    # What a row that comes later needs, so that the model can be used on raw rows.
    preparation = Preparation.model_validate({name: getattr(schema, name) for name in Preparation.model_fields})
    batch, splits = params.batch, {}
    target_scale = schema.target_scale
    targets_dtype = "int64" if schema.task == "classification" else "float64" if target_scale else "float32"
    with writing.new_directory(paths.BATCHES) as out:
        for split in SPLITS:
            blocks = read_table(paths.PREPARED, split, schema)
            places = RowOrder(rows["train"], params.seed, epoch=0) if split == "train" else None
            total = rows[split] * (2 if places else 1)  # shuffled in two passes
            name = f"batch {split}"
            with terminal.progress_bar(name=name, total=total, unit="row", unit_scale=True, leave=False) as bar:
                splits[split] = write_split(
                    out / split,
                    blocks,
                    rows[split],
                    shape,
                    places,
                    classes=len(schema.classes),
                    dtype=schema.dtype,
                    targets_dtype=targets_dtype,
                    tick=bar.update,
                )
        write_index(
            out,
            splits,
            batch_size=batch.size,
            drop_last=batch.drop_last,
            shape=shape,
            classes=schema.classes,
            preparation=preparation,
            task=schema.task,
            scale=_scale(schema.scale, tuple(schema.shape), shape),
            target_scale=target_scale,
            features=schema.features,
            parts=schema.parts,
            blocks=(batch.block, batch.window) if batch.shuffle == "blocks" else None,
        )
    terminal.print_lines(f"batched {rows['train']} training rows of shape {list(shape)} by {params.batch.size}")


def _input_shape(params: Params, schema: PreparedSchema) -> tuple[int, ...]:
    """The shape of one input.

    Raises:
        UserError: it doesn't fit a row; there are too few rows for a minibatch.
    """
    inputs, rows = prod(schema.shape), schema.rows["train"]
    shape = params.batch.shape or tuple(schema.shape)
    if prod(shape) != inputs:
        raise UserError(
            f"params.yaml: batch.shape: {list(shape)} holds {prod(shape)} values, but a row has {inputs} inputs; give"
            " auto, or another shape"
        )
    if params.batch.drop_last and params.batch.size > rows:
        raise UserError(
            f"params.yaml: batch.size: {params.batch.size} is more than the {rows} training rows, and"
            " batch.drop_last leaves none"
        )
    return shape


def _scale(
    scale: dict[str, list[float]] | None, before: tuple[int, ...], shape: tuple[int, ...]
) -> dict[str, list[float]] | None:
    """The scale of images for the shape that they are given: where channels aren't its first axis any more, a number
    for each value.
    """
    if scale is None or len(scale["subtract"]) in (1, shape[0], prod(shape)):
        return scale
    each = prod(before) // before[0]
    return {name: [value for value in values for _ in range(each)] for name, values in scale.items()}


if __name__ == "__main__":
    errors.run_process(main)
