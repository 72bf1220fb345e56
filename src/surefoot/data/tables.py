"""Prepared tables: a Parquet file a split, with `schema.json` and `statistics.json` beside them."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surefoot import files
from surefoot.data.normalize import Statistics, scaling
from surefoot.data.split import SPLITS, split_rows
from surefoot.errors import UserError


def write_tables(
    out: Path, source: str, rows: Iterator[pa.RecordBatch], inputs: list[str], target: str, *, seed: int, validation: float, test: float, normalize: str
) -> dict[str, Any]:
    """Split a stream of rows into tables in the directory `out`, and fit the scaling on the training rows.

    Returns what `schema.json` says: inputs, target, classes, rows in each split, and the scaling of the inputs.

    Raises:
        UserError: if there is a single class, or one with too few rows for every split.
    """
    statistics = Statistics(len(inputs))
    seen: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    schema = pa.schema([(name, pa.float64()) for name in inputs] + [(target, pa.dictionary(pa.int32(), pa.string()))])
    with ExitStack() as stack:
        writers = {split: stack.enter_context(pq.ParquetWriter(out / f"{split}.parquet", schema)) for split in SPLITS}
        for batch in rows:
            # Columns in one order, whatever the file's.
            table = batch.select([*inputs, target]).cast(schema)
            splits = _split_batch(batch.column(target), seen, seed, validation, test)
            for number, split in enumerate(SPLITS):
                part = table.filter(_mask(splits == number))
                counts[split].update(part.column(target).to_pylist())
                writers[split].write_batch(part)
                if split == "train":
                    statistics.add(_matrix(part, inputs))
    _check_classes(seen, counts, target)
    subtract, divide = scaling(normalize, statistics)
    classes = sorted(seen, key=_natural)
    described = {
        "source": source,
        "inputs": inputs,
        "target": target,
        "classes": classes,
        "rows": {split: counts[split].total() for split in SPLITS},
        "subtract": subtract,
        "divide": divide,
        "examples": _first_rows(out / "train.parquet", inputs),
    }
    columns = zip(inputs, statistics.mean, statistics.deviation, statistics.minimum, statistics.maximum, strict=True)
    files.write_json(
        out / "statistics.json",
        {
            "class_counts": {split: {label: counts[split][label] for label in classes} for split in SPLITS},
            "training_inputs": {name: dict(zip(("mean", "deviation", "minimum", "maximum"), map(float, values), strict=True)) for name, *values in columns},
        },
    )
    files.write_json(out / "schema.json", described)
    return described


def read_schema(prepared: Path) -> dict[str, Any]:
    """What `write_tables` said of the tables in the directory `prepared`."""
    schema: dict[str, Any] = json.loads((prepared / "schema.json").read_text())
    return schema


def read_table(prepared: Path, split: str, schema: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a split, block by block: inputs as float64 (rows, columns), and int64 class indices (rows,)."""
    index = {label: number for number, label in enumerate(schema["classes"])}
    with pq.ParquetFile(prepared / f"{split}.parquet") as file:
        for batch in file.iter_batches():
            labels = batch.column(schema["target"])
            known = np.array([index[label] for label in labels.dictionary.to_pylist()], dtype=np.int64)
            yield _matrix(batch, schema["inputs"]), known[np.from_dlpack(labels.indices)]


def _split_batch(target: pa.Array, seen: Counter[str], seed: int, validation: float, test: float) -> np.ndarray:
    """The split of each row; `seen` counts the rows of each class before this batch, and is brought up to date."""
    coded = target.dictionary_encode()
    codes = np.from_dlpack(coded.indices)
    splits = np.empty(len(codes), dtype=np.int8)
    for code, label in enumerate(coded.dictionary.to_pylist()):
        here = np.flatnonzero(codes == code)
        splits[here] = split_rows(label, seen[label] + np.arange(len(here)), seed, validation, test)
        seen[label] += len(here)
    return splits


def _check_classes(seen: Counter[str], counts: dict[str, Counter[str]], target: str) -> None:
    if len(seen) < 2:
        raise UserError(f"column {target!r} (prepare.target) holds one class only, {next(iter(seen))!r}; at least two are needed")
    for label in sorted(seen, key=_natural):
        empty = [split for split in SPLITS if not counts[split][label]]
        if empty:
            raise UserError(
                f"class {label!r} of column {target!r} has {seen[label]} rows, too few to split: none is left for {' and '.join(empty)}; "
                "add rows, or change prepare.validation or prepare.test"
            )


def _first_rows(table: Path, inputs: list[str], rows: int = 2) -> list[list[float]]:
    with pq.ParquetFile(table) as file:
        return [_matrix(batch, inputs)[0].tolist() for batch in islice(file.iter_batches(batch_size=1), rows)]


def _matrix(batch: pa.RecordBatch, inputs: list[str]) -> np.ndarray:
    # from_dlpack: Arrow's own to_numpy imports pandas.
    return np.column_stack([np.from_dlpack(batch.column(name)) for name in inputs])


def _mask(chosen: np.ndarray) -> pa.BooleanArray:
    # From the bits, as pa.array imports pandas.
    return pa.BooleanArray.from_buffers(pa.bool_(), len(chosen), [None, pa.py_buffer(np.packbits(chosen, bitorder="little"))])


def _natural(label: str) -> tuple[bool, float, str]:
    """Numbers by value and before texts."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label
