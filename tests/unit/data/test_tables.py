import json
import os
import subprocess
import sys
import textwrap
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.base.errors import UserError
from surefoot.base.wording import describe_dropped
from surefoot.data import parquet_tables
from surefoot.data.splits import SPLITS
from surefoot.data.splitting import clean_rows
from surefoot.data.tables import read_schema, read_table
from tests.helpers import PROJECT
from tests.unit.data.sources import write

LABELS = [("10", "9", "x")[number % 3] for number in range(150)]


def columns(labels):
    """Rows with a different `a` each, `b` after the target, so that columns change places."""
    a = [float(number) for number in range(len(labels))]
    return {"a": a, "kind": labels, "b": [-value / 3 for value in a]}


def numbered(rows, **more):
    """Rows of a number, its own place, and two classes in turn."""
    return {
        "a": [float(number) for number in range(rows)],
        "kind": ["xy"[number % 2] for number in range(rows)],
        **more,
    }


def places(out, column="a"):
    """The values of a column in each split."""
    return {split: pq.read_table(out / f"{split}.parquet").column(column).to_pylist() for split in SPLITS}


def test_every_row_is_in_one_split(tmp_path):
    schema, _ = write(tmp_path, columns(LABELS))
    found = {split: pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in SPLITS}
    rows = sorted((row for rows in found.values() for row in rows), key=lambda row: row["a"])
    assert rows == [{"a": float(number), "b": -number / 3, "kind": label} for number, label in enumerate(LABELS)]
    assert {split: len(rows) for split, rows in found.items()} == schema.rows


def test_the_schema_and_statistics_are_right(tmp_path):
    schema, notes = write(tmp_path, columns(LABELS))
    assert [note[:60] for note in notes] == ["whole numbers that count the rows, or rise or fall with them"]
    assert read_schema(tmp_path) == schema
    assert schema.classes == ["9", "10", "x"], "numbers by value, before texts"
    assert (schema.task, schema.target, schema.source, schema.dropped) == (
        "classification",
        "kind",
        "raw.csv",
        {},
    )
    assert (schema.dtype, schema.shape, schema.scale) == ("float32", [2], None)
    training = pq.read_table(tmp_path / "train.parquet")
    assert training.schema.field("a").type == pa.float64()
    assert pa.types.is_dictionary(training.schema.field("kind").type)
    assert schema.examples == [[row["a"], row["b"]] for row in training.slice(0, 2).to_pylist()]
    a = training.column("a").to_numpy()
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    measured = statistics["training_inputs"]["a"]
    assert measured == pytest.approx(
        {"missing": 0, "mean": a.mean(), "deviation": a.std(), "minimum": a.min(), "maximum": a.max()}, rel=1e-12
    )
    first, _ = schema.features
    assert (first["column"], first["kind"], first["first"], first["width"], first["names"]) == (
        "a",
        "numeric",
        0,
        1,
        ["a"],
    )
    assert (first["subtract"], first["divide"]) == ([measured["mean"]], [measured["deviation"]])
    assert statistics["class_counts"] == {
        split: {
            label: pq.read_table(tmp_path / f"{split}.parquet").column("kind").to_pylist().count(label)
            for label in schema.classes
        }
        for split in SPLITS
    }


@pytest.mark.parametrize("change", [{"rows": None}, {"shape": "2"}, {"features": [1]}, {"parts": [{"path": "a"}]}])
def test_a_schema_that_does_not_say_what_it_should_is_damaged(tmp_path, change):
    write(tmp_path, columns(LABELS))
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"schema\.json: is damaged; remove it, and `dvc repro prepare` makes it again"):
        read_schema(tmp_path)


def test_reading_gives_scaled_inputs_and_class_indices(tmp_path):
    schema, _ = write(tmp_path, columns(LABELS))
    for split in SPLITS:
        table = pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        inputs, targets = (np.concatenate(parts) for parts in zip(*read_table(tmp_path, split, schema), strict=True))
        raw = np.array([[row["a"], row["b"]] for row in table])
        scaled = (raw - [feature["subtract"][0] for feature in schema.features]) / [
            feature["divide"][0] for feature in schema.features
        ]
        assert (inputs == scaled.astype(np.float32)).all()
        assert [schema.classes[target] for target in targets] == [row["kind"] for row in table]
        assert (inputs.dtype, targets.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    "by", [{"by": "class"}, {"by": "row"}, {"by": "group", "column": "g"}, {"by": "time", "column": "g"}]
)
def test_the_size_of_blocks_changes_neither_split_nor_scaling(tmp_path, by):
    rows = columns(LABELS) | {"g": [number * 7 % 50 for number in range(len(LABELS))]}
    for size in (1, 7, 1000):
        (tmp_path / str(size)).mkdir()
        write(tmp_path / str(size), rows, size=size, split=by)
    for file in ("schema.json", "statistics.json"):
        assert len({(tmp_path / size / file).read_bytes() for size in ("1", "7", "1000")}) == 1
    assert places(tmp_path / "1") == places(tmp_path / "7") == places(tmp_path / "1000")
    assert {file.name for file in (tmp_path / "1").iterdir()} == {
        "schema.json",
        "statistics.json",
        *(f"{split}.parquet" for split in SPLITS),
    }


def test_row_groups_hold_so_many_rows_and_batches_are_gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_tables, "GROUP_ROWS", 16)
    monkeypatch.setattr(clean_rows, "GATHER_ROWS", 40)
    schema, _ = write(tmp_path, columns(LABELS) | {"c": [f"v{number % 40:02}" for number in range(len(LABELS))]})
    with pq.ParquetFile(tmp_path / "train.parquet") as file:
        assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [16] * 6 + [10]
    assert sum(len(targets) for _, targets in read_table(tmp_path, "train", schema)) == 106
    rows = sorted(
        (row for split in SPLITS for row in pq.read_table(tmp_path / f"{split}.parquet").to_pylist()),
        key=lambda row: row["a"],
    )
    assert [row["c"] for row in rows] == [f"v{number % 40:02}" for number in range(len(LABELS))]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, columns(LABELS))
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


# --- splits


@settings(max_examples=25)
@given(
    st.integers(40, 120),
    st.integers(0, 80),
    st.integers(0, 2**63 - 1),
    st.sampled_from(["class", "row"]),
    st.sampled_from(["classification", "regression"]),
)
def test_appended_rows_never_move_an_old_one(tmp_path_factory, rows, more, seed, by, task):
    found = []
    for count in (rows, rows + more):
        out = tmp_path_factory.mktemp("tables")
        targets = list(range(count)) if task == "regression" else ["xy"[number % 2] for number in range(count)]
        write(
            out,
            {"a": [float(number) for number in range(count)], "kind": targets},
            seed=seed,
            split={"by": by},
            task=task,
        )
        found.append({value: split for split, values in places(out).items() for value in values})
    before, after = found
    assert before.items() <= after.items()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 60), min_size=150, max_size=300), st.integers(0, 2**63 - 1))
def test_no_group_is_in_two_splits_whatever_else_is_there(tmp_path_factory, groups, seed):
    groups = [*range(60), *groups]
    found = []
    for count in (len(groups), len(groups) - 90):
        out = tmp_path_factory.mktemp("tables")
        rows = {
            "a": [float(group) for group in groups[:count]],
            "g": [f"group {group}" for group in groups[:count]],
            "kind": [float(n) for n in range(count)],
        }
        try:
            write(out, rows, seed=seed, split={"by": "group", "column": "g"}, task="regression", validation=None)
        except UserError:  # a split may get none of so few groups
            return
        found.append({value: split for split, values in places(out).items() for value in values})
        assert sum(map(len, (set(values) for values in places(out).values()))) == len(set(groups[:count]))
    assert found[1].items() <= found[0].items()


def test_groups_are_what_their_text_is(tmp_path):
    groups = [number * 7919 % 200 for number in range(400)]
    found = []
    for number, type_ in enumerate(
        (pa.int64(), pa.int16(), pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
    ):
        out = tmp_path / str(number)
        out.mkdir()
        write(
            out,
            numbered(400, g=pa.array(groups).cast(pa.string()).cast(type_) if number > 1 else pa.array(groups, type_)),
            split={"by": "group", "column": "g"},
        )
        found.append(places(out))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("kind", ["date", "timestamp", "int", "float"])
def test_by_time_the_latest_rows_are_for_the_test(tmp_path, kind):
    order = [number * 37 % 101 for number in range(101)]
    make = {
        "date": lambda n: date(2020, 1, 1) + timedelta(days=n - 50),
        "timestamp": lambda n: datetime(1970, 1, 1) + timedelta(hours=n - 50),
        "int": lambda n: n - 50,
        "float": lambda n: (n - 50) / 7,
    }
    rows = {"a": [float(n) for n in order], "kind": ["xy"[n % 2] for n in order], "t": [make[kind](n) for n in order]}
    schema, _ = write(tmp_path, rows, split={"by": "time", "column": "t"})
    found = places(tmp_path)
    assert schema.rows == {"train": 71, "validation": 15, "test": 15}
    assert max(found["train"]) < min(found["validation"]) <= max(found["validation"]) < min(found["test"])
    assert [feature["column"] for feature in schema.features] == ["a"], "the column isn't an input"


def test_rows_of_the_same_time_are_split_where_they_stand(tmp_path):
    write(tmp_path, numbered(100, t=[1] * 100), split={"by": "time", "column": "t"})
    found = places(tmp_path)
    assert found == {
        "train": [float(n) for n in range(70)],
        "validation": [float(n) for n in range(70, 85)],
        "test": [float(n) for n in range(85, 100)],
    }


def test_by_time_with_a_source_for_the_test(tmp_path):
    write(tmp_path, numbered(100, t=list(range(100))), test=numbered(10), split={"by": "time", "column": "t"})
    found = places(tmp_path)
    assert found == {
        "train": [float(n) for n in range(85)],
        "validation": [float(n) for n in range(85, 100)],
        "test": [float(n) for n in range(10)],
    }


def test_the_split_column_is_an_input_where_columns_names_it(tmp_path):
    by = {"by": "time", "column": "t"}
    schema, _ = write(tmp_path, numbered(100, t=list(range(100))), split=by, columns=["a", "t"])
    assert [feature["column"] for feature in schema.features] == ["a", "t"]
    schema, _ = write(tmp_path, numbered(100, t=list(range(100))), split=by, columns=["*"])
    assert [feature["column"] for feature in schema.features] == ["a"]


@pytest.mark.parametrize("by", ["group", "time"])
def test_a_missing_group_or_time_is_refused(tmp_path, by):
    rows = numbered(30, t=[*range(20), None, *range(9)])
    with pytest.raises(
        UserError, match=rf"raw.csv: row 22, column 't': empty; prepare.split.by: {by} needs a value in every row"
    ):
        write(tmp_path, rows, split={"by": by, "column": "t"})


def test_a_missing_group_follows_what_missing_says(tmp_path):
    for column, kind in (
        ([f"p{n % 20}" if n % 5 else None for n in range(200)], "category"),
        ([n % 20 if n % 5 else None for n in range(200)], "numeric"),
    ):
        rows, by = numbered(200, t=column), {"by": "group", "column": "t"}
        with pytest.raises(
            UserError,
            match=(
                rf"row 2, column 't': empty; .* \(prepare.missing.{kind}: drop leaves such rows out, constant makes a"
                r" group of them\)"
            ),
        ):
            write(tmp_path, rows, split=by)
        schema, _ = write(tmp_path, rows, split=by, missing={kind: "drop"})
        assert schema.dropped == {"'t' (prepare.split.column) is missing": 40}
        assert sum(schema.rows.values()) == 160
        write(tmp_path, rows, split=by, missing={kind: "constant"})
        of_split = {
            split: set(pq.read_table(tmp_path / f"{split}.parquet").column("a").to_pylist())
            for split in ("train", "validation", "test")
        }
        missing = {float(n) for n in range(0, 200, 5)}
        assert sum(bool(missing & of) for of in of_split.values()) == 1, "one group, so one split"
        assert sum(map(len, of_split.values())) == 200


def test_a_missing_time_is_dropped_or_refused(tmp_path):
    rows = numbered(30, t=[*range(20), None, *range(9)])
    schema, _ = write(tmp_path, rows, split={"by": "time", "column": "t"}, missing={"numeric": "drop"})
    assert sum(schema.rows.values()) == 29
    with pytest.raises(
        UserError,
        match=r"column 't': empty; .*needs a value in every row \(prepare.missing.numeric: drop leaves such rows out\)",
    ):
        write(tmp_path, rows, split={"by": "time", "column": "t"}, missing={"numeric": "mean"})


def test_a_group_has_one_spelling(tmp_path):
    by = {"by": "group", "column": "t"}
    for groups in (
        [str(n % 9) for n in range(90)] + [f"{n % 9}.0" for n in range(90)],
        [n % 9 + 10**10 for n in range(180)],
        [float(n % 9 + 10**10) for n in range(180)],
    ):
        schema, _ = write(tmp_path, numbered(180, t=groups), split=by)
        tables = [
            pq.read_table(tmp_path / f"{split}.parquet").column("a").to_pylist()
            for split in ("train", "validation", "test")
        ]
        assert sorted(len({int(a) % 9 for a in table}) for table in tables) == sorted(
            schema.rows[split] // 20 for split in schema.rows
        )


def test_a_time_that_is_text_is_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=r"raw.csv: column 't' \(prepare.split.column\) has type string; a split by time needs dates or numbers",
    ):
        write(tmp_path, numbered(30, t=["yesterday"] * 30), split={"by": "time", "column": "t"})


# --- sources of their own


def test_separate_sources_are_the_splits(tmp_path):
    schema, _ = write(tmp_path, numbered(40), validation=numbered(6), test=numbered(5))
    assert schema.rows == {"train": 40, "validation": 6, "test": 5}
    schema, _ = write(tmp_path, numbered(40), test=numbered(5))
    assert schema.rows == {"train": 34, "validation": 6, "test": 5}


def test_a_column_missing_from_a_separate_source(tmp_path):
    with pytest.raises(
        UserError, match=r"test.csv: has no column 'b', as raw.csv has \(prepare.test_source\); it has a, kind"
    ):
        write(tmp_path, numbered(40, b=[1] * 40), test=numbered(5))
    with pytest.raises(UserError, match=r"validation.csv: has no column 'kind'"):
        write(tmp_path, numbered(40), validation={"a": [1.0]})


def test_a_column_of_another_type_in_a_separate_source(tmp_path):
    with pytest.raises(
        UserError,
        match=(
            r"test.csv: column 'a' is string, but in raw.csv it is a numeric column \(prepare.test_source\); they must"
            r" be the same"
        ),
    ):
        write(tmp_path, numbered(40), test={"a": ["u"] * 5, "kind": ["x"] * 5})
    schema, _ = write(tmp_path, numbered(40), test={"a": [1, 2], "kind": ["x", "y"]})
    assert schema.rows["test"] == 2, "whole numbers are numbers"


def test_a_class_that_training_never_saw(tmp_path):
    with pytest.raises(
        UserError,
        match=(
            r"test.csv: row 4, column 'kind': class 'z', which no training row has \(prepare.test_source\); they have"
            r" x, y"
        ),
    ):
        write(tmp_path, numbered(40), test={"a": [1.0, 2.0, 3.0], "kind": ["x", "y", "z"]})


def test_a_separate_source_without_rows(tmp_path):
    with pytest.raises(UserError, match=r"test.csv: has no rows"):
        write(tmp_path, numbered(40), test={"a": pa.array([], pa.float64()), "kind": pa.array([], pa.string())})


# --- targets


def test_regression(tmp_path):
    schema, _ = write(
        tmp_path, {"a": [float(n) for n in range(60)], "kind": [n * n for n in range(60)]}, task="regression"
    )
    assert (schema.classes, schema.task) == ([], "regression")
    for split in SPLITS:
        ((_, targets),) = read_table(tmp_path, split, schema)
        raw = places(tmp_path)[split]
        assert targets.dtype == np.float64
        assert targets.tolist() == [value * value for value in raw]
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    train = places(tmp_path, "kind")["train"]
    assert statistics["training_target"]["mean"] == pytest.approx(np.mean(train))
    assert schema.target_scale == {
        "subtract": [pytest.approx(np.mean(train))],
        "divide": [pytest.approx(np.std(train))],
    }


def test_a_target_that_is_not_to_be_scaled(tmp_path):
    schema, _ = write(
        tmp_path,
        {"a": [float(n) for n in range(60)], "kind": [n / 7 for n in range(60)]},
        task="regression",
        normalize_target="none",
    )
    assert "target_scale" not in schema
    ((_, targets),) = read_table(tmp_path, "test", schema)
    assert targets.dtype == np.float32
    assert targets.tolist() == np.array(places(tmp_path, "kind")["test"], np.float32).tolist()


def test_classes_have_no_scale(tmp_path):
    schema, _ = write(tmp_path, columns(LABELS))
    assert "target_scale" not in schema


def test_a_number_to_predict_that_no_float32_holds_when_scaled_is_told(tmp_path):
    rows = {"a": [float(n) for n in range(60)], "t": list(range(60)), "kind": [n / 7e30 for n in range(59)] + [1e30]}
    schema, _ = write(tmp_path, rows, task="regression", split={"by": "time", "column": "t"})
    with pytest.raises(
        UserError,
        match=r"test.parquet: column 'kind' \(prepare.target\): 1e\+30, scaled, is more than float32 can hold",
    ):
        list(read_table(tmp_path, "test", schema))


def test_binary(tmp_path):
    schema, _ = write(
        tmp_path, {"a": [float(n) for n in range(60)], "kind": [n % 2 == 0 for n in range(60)]}, task="binary"
    )
    assert schema.classes == ["false", "true"]
    ((_, targets),) = read_table(tmp_path, "train", schema)
    assert targets.dtype == np.float32
    assert targets.tolist() == [float(value % 2 == 0) for value in places(tmp_path)["train"]]


@pytest.mark.parametrize("values", [["a", "b"], [True, False], [3, 20], [3.0, 20.0]])
def test_classes_are_texts_whole_numbers_and_booleans(tmp_path, values):
    schema, _ = write(tmp_path, {"a": [float(n) for n in range(60)], "kind": [values[n % 2] for n in range(60)]})
    assert schema.classes == {3: ["3", "20"], True: ["false", "true"], "a": ["a", "b"]}[values[0]]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            numbered(50) | {"kind": ["x"] * 50},
            {},
            r"column 'kind' \(prepare.target\) holds one class only, 'x'; at least two are needed",
        ),
        (numbered(50) | {"kind": ["x"] * 50}, {"task": "binary"}, r"holds one class only, 'x'; at least two"),
        (
            numbered(50) | {"kind": [3] * 50},
            {"task": "regression"},
            r"column 'kind' \(prepare.target\) is 3.0 in every training row; there is nothing to learn",
        ),
        (
            numbered(50) | {"kind": [*"xyz"] * 16 + ["x", "y"]},
            {"task": "binary"},
            r"raw.csv: row 4, column 'kind': a third class; prepare.task: binary needs two",
        ),
        (
            numbered(50) | {"kind": [1e200, -1e200] * 25},
            {"task": "regression"},
            r"row 2, column 'kind': 1e\+200 is more than float32 can hold",
        ),
        (
            numbered(50) | {"kind": [1e-200, 2e-200] * 25},
            {"task": "regression"},
            r"numbers from 1e-200 to 2e-200 have squares of 0 in float64",
        ),
        (numbered(50), {"target": "sort"}, r"raw.csv: has no column 'sort' \(prepare.target\); it has a, kind"),
        (numbered(50), {"task": "regression"}, r"raw.csv: row 2, column 'kind': 'x' is not a number"),
        (
            numbered(50) | {"kind": [0.5] * 50},
            {},
            r"raw.csv: row 2, column 'kind': 0.5 is not a class, .*prepare.task: regression",
        ),
        (
            numbered(50) | {"kind": [1.0, float("inf")] * 25},
            {"task": "regression"},
            r"raw.csv: row 3, column 'kind': inf; a finite number is needed",
        ),
        (
            numbered(50) | {"kind": [*"xy"] * 24 + ["x", None]},
            {},
            r"raw.csv: row 51, column 'kind': empty; a target is needed in every row",
        ),
        (
            numbered(50) | {"kind": [1.5] * 49 + [None]},
            {"task": "regression"},
            r"raw.csv: row 51, column 'kind': empty; a target",
        ),
        (numbered(50) | {"kind": [[1]] * 50}, {}, r"column 'kind' \(prepare.target\) has type list<"),
        (
            numbered(4),
            {"task": "regression", "target": "a", "columns": ["kind"]},
            r"raw.csv: 4 rows are too few to split by class: none is left for ",
        ),
        ({"a": pa.array([], pa.float64()), "kind": pa.array([], pa.string())}, {}, r"raw.csv: has no rows"),
    ],
)
def test_a_target_that_is_wrong(tmp_path, rows, options, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path, rows, **options)


def test_a_class_with_too_few_rows_is_refused(tmp_path):
    with pytest.raises(UserError) as refusal:
        write(tmp_path, columns(["x"] * 50 + ["y"]))
    message = str(refusal.value)
    assert message.startswith("class 'y' of column 'kind' has 1 row, too few to split: none is left for ")
    assert (
        "add rows; or set prepare.split.by: row, which draws rows whatever their class; or change prepare.validation or"
        " prepare.test" in message
    )
    with pytest.raises(
        UserError, match=r"class '2.5' .* has 1 row, .*; or prepare.task: regression, which predicts numbers$"
    ):
        write(tmp_path, columns([*["1.5", "2"] * 25, "2.5"]))
    schema, _ = write(tmp_path, columns(["x"] * 50 + ["y"]), split={"by": "row"}, seed=1)
    assert schema.classes == ["x", "y"]


def test_a_class_without_training_rows_is_refused(tmp_path):
    rows = numbered(100, t=list(range(100))) | {"kind": [*"xy"] * 49 + ["z", "z"]}
    with pytest.raises(
        UserError,
        match=r"class 'z' of column 'kind' has 2 rows, too few to split: none is left for train; .*prepare.split",
    ):
        write(tmp_path, rows, split={"by": "time", "column": "t"})


# --- dropped rows


def test_dropped_rows_are_counted_by_reason(tmp_path):
    rows = numbered(60, c=[*"pq"] * 30)
    rows["a"][3] = rows["a"][5] = None
    rows["c"][5] = rows["c"][6] = None
    rows["kind"][7] = rows["kind"][3] = None
    schema, _ = write(tmp_path, rows, missing={"numeric": "drop", "category": "drop", "target": "drop"})
    assert schema.dropped == {"'a' is missing": 2, "'c' is missing": 1, "'kind' (the target) is missing": 1}
    assert sum(schema.rows.values()) == 56
    assert sorted(value for values in places(tmp_path).values() for value in values) == [
        float(n) for n in range(60) if n not in (3, 5, 6, 7)
    ]
    assert (
        describe_dropped(schema.dropped)
        == "2 where 'a' is missing, 1 where 'c' is missing, 1 where 'kind' (the target) is missing"
    )


def test_dropping_every_row_is_refused(tmp_path):
    rows = numbered(50) | {"b": pa.nulls(50, pa.float64())}
    with pytest.raises(UserError, match=r"raw.csv: every row was dropped: 50 where 'b' is missing"):
        write(tmp_path, rows, missing={"numeric": "drop"})


# --- arrays


def images(rows, shape=(3, 2, 2), dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (rows, int(np.prod(shape)))).astype(dtype)
    return values, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def array_metadata(shape):
    return {"input": {"shape": json.dumps(shape)}}


def test_images_stay_bytes_and_have_a_scale_for_each_channel(tmp_path):
    values, column = images(40)
    schema, warnings = write(
        tmp_path, {"input": column, "kind": ["xy"[n % 2] for n in range(40)]}, metadata=array_metadata([3, 2, 2])
    )
    assert not warnings
    assert (schema.dtype, schema.shape) == ("uint8", [3, 2, 2])
    read = {split: np.concatenate([inputs for inputs, _ in read_table(tmp_path, split, schema)]) for split in SPLITS}
    assert all(inputs.dtype == np.uint8 and inputs.shape[1:] == (3, 2, 2) for inputs in read.values())
    assert sorted(row.ravel().tolist() for inputs in read.values() for row in inputs) == sorted(values.tolist())
    training = read["train"].astype(float)
    assert schema.scale["subtract"] == pytest.approx(training.mean(axis=(0, 2, 3)))
    assert schema.scale["divide"] == pytest.approx(training.std(axis=(0, 2, 3)))
    assert [image for (image,) in schema.examples] == read["train"][:2].tolist()
    plain, _ = write(
        tmp_path,
        {"input": column, "kind": ["xy"[n % 2] for n in range(40)]},
        metadata=array_metadata([3, 2, 2]),
        normalize="none",
    )
    assert plain.scale is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_of_floats_are_scaled_elementwise(tmp_path, dtype):
    _, column = images(40, (2, 3), dtype)
    schema, _ = write(
        tmp_path, {"input": column, "kind": ["xy"[n % 2] for n in range(40)]}, metadata=array_metadata([2, 3])
    )
    assert (schema.dtype, schema.shape, schema.scale) == ("float32", [2, 3], None)
    inputs = np.concatenate([inputs for inputs, _ in read_table(tmp_path, "train", schema)])
    assert inputs.dtype == np.float32
    assert inputs.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert inputs.std(axis=0) == pytest.approx(1, abs=1e-6)


def test_tokens_stay_whole_numbers(tmp_path):
    values, column = images(40, (5,), np.int64)
    schema, _ = write(tmp_path, {"input": column, "kind": ["xy"[n % 2] for n in range(40)]})
    assert (schema.dtype, schema.shape, schema.scale) == ("int64", [5], None)
    found = [row.tolist() for split in SPLITS for inputs, _ in read_table(tmp_path, split, schema) for row in inputs]
    assert sorted(found) == sorted(values.tolist())


def test_arrays_that_are_wrong(tmp_path):
    values, _ = images(40, (5,), np.float64)
    kinds = ["xy"[n % 2] for n in range(40)]
    for value, message in ((np.inf, "holds an infinite value"), (np.nan, "holds NaN; a number is needed everywhere")):
        values[11, 3] = value
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 5)
        with pytest.raises(UserError, match=rf"raw.csv: row 13, column 'input': {message}"):
            write(tmp_path, {"input": column, "kind": kinds})
    schema, _ = write(tmp_path, {"input": column, "kind": kinds}, missing={"numeric": "drop"})
    assert schema.dropped == {"'input' is missing": 1}
    with pytest.raises(
        UserError, match=r"column 'input' holds arrays; then it must be the only input \(prepare.columns: \[input\]\)"
    ):
        write(tmp_path, {"input": column, "more": [1.0] * 40, "kind": kinds})
    with pytest.raises(
        UserError,
        match=(
            r"test.csv: column 'input' is float64 array of shape \[2\], but in raw.csv it is a float64 array of shape"
            r" \[5\]"
        ),
    ):
        other = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0]), 2)
        write(tmp_path, {"input": column, "kind": kinds}, test={"input": other, "kind": ["x"]})


# --- the disk


def test_no_space_left(tmp_path):
    """A limit on the size of files stands for a disk that is full."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        from tests.unit.data.sources import write
        from surefoot.base.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write(Path(sys.argv[1]), {
                "a": np.random.default_rng(0).normal(size=200_000), "kind": [*"xy"] * 100_000
            }, size=10_000)
        except UserError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT / "src"), str(PROJECT)))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith(
        "data/prepared can't be written: the limit on the size of a file is reached: `ulimit -f` is "
    ), done
    assert not done.stderr


def test_a_value_that_overflows_when_scaled(tmp_path):
    rows = numbered(60, b=[n * 1e-30 for n in range(60)])
    schema, _ = write(tmp_path, rows, test=numbered(3, b=[1.0, 1e20, 2.0]))
    list(read_table(tmp_path, "train", schema))
    with pytest.raises(UserError, match=r"test.parquet: column 'b': scaled, a value is more than float32 can hold"):
        list(read_table(tmp_path, "test", schema))
