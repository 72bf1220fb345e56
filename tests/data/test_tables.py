import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surefoot.data.split import SPLITS
from surefoot.data.tables import read_schema, read_table, write_tables
from surefoot.errors import UserError


def batches(labels, size=7):
    """Rows with a different `a` each, `b` after the target, so that columns change places."""
    for start in range(0, len(labels), size):
        part = labels[start : start + size]
        a = [float(start + number) for number in range(len(part))]
        yield pa.record_batch({"a": a, "kind": pa.array(part, pa.string()), "b": [-value / 3 for value in a]})


def write(out, labels, size=7, **options):
    options = {"seed": 0, "validation": 0.15, "test": 0.15, "normalize": "standard"} | options
    return write_tables(out, "raw.csv", batches(labels, size), ["a", "b"], "kind", **options)


LABELS = [("10", "9", "x")[number % 3] for number in range(150)]


def test_every_row_is_in_one_split(tmp_path):
    schema = write(tmp_path, LABELS)
    found = {split: pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in SPLITS}
    rows = sorted((row for rows in found.values() for row in rows), key=lambda row: row["a"])
    assert rows == [{"a": float(number), "b": -number / 3, "kind": label} for number, label in enumerate(LABELS)]
    assert {split: len(rows) for split, rows in found.items()} == schema["rows"]


def test_the_schema_and_statistics_are_right(tmp_path):
    schema = write(tmp_path, LABELS)
    assert read_schema(tmp_path) == json.loads(json.dumps(schema))
    assert schema["classes"] == ["9", "10", "x"], "numbers by value, before texts"
    training = pq.read_table(tmp_path / "train.parquet")
    assert training.schema.field("a").type == pa.float64()
    assert pa.types.is_dictionary(training.schema.field("kind").type)
    assert schema["examples"] == [[row["a"], row["b"]] for row in training.slice(0, 2).to_pylist()]
    a = training.column("a").to_numpy()
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    measured = statistics["training_inputs"]["a"]
    assert measured == pytest.approx({"mean": a.mean(), "deviation": a.std(), "minimum": a.min(), "maximum": a.max()}, rel=1e-12)
    assert (schema["subtract"][0], schema["divide"][0]) == (measured["mean"], measured["deviation"])
    counts = statistics["class_counts"]
    assert sum(sum(of_split.values()) for of_split in counts.values()) == len(LABELS)
    assert all(of_split.keys() == set(LABELS) for of_split in counts.values())


def test_tables_read_back_as_class_numbers(tmp_path):
    schema = write(tmp_path, LABELS)
    for split in SPLITS:
        table = pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        blocks = list(read_table(tmp_path, split, schema))
        inputs, targets = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        assert inputs.tolist() == [[row["a"], row["b"]] for row in table]
        assert [schema["classes"][target] for target in targets] == [row["kind"] for row in table]
        assert (inputs.dtype, targets.dtype) == (np.float64, np.int64)


def test_the_size_of_blocks_changes_neither_split_nor_scaling(tmp_path):
    schemas = []
    for size in (1, 7, 1000):
        (tmp_path / str(size)).mkdir()
        schemas.append(write(tmp_path / str(size), LABELS, size))
    assert schemas[0] == schemas[1] == schemas[2]
    assert len({(tmp_path / size / "statistics.json").read_bytes() for size in ("1", "7", "1000")}) == 1


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, LABELS)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_single_class_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"column 'kind' \(prepare.target\) holds one class only, 'x'; at least two are needed"):
        write(tmp_path, ["x"] * 50)


def test_a_class_with_too_few_rows_is_refused(tmp_path):
    with pytest.raises(UserError) as refusal:
        write(tmp_path, ["x"] * 50 + ["y"])
    message = str(refusal.value)
    assert message.startswith("class 'y' of column 'kind' has 1 rows, too few to split: none is left for ")
    assert "add rows, or change prepare.validation or prepare.test" in message
