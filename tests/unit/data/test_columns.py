import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names, quoted_names
from surefoot.data.arrow_numpy import numpy_values
from surefoot.data.columns import choose_columns
from tests.helpers import PROJECT
from tests.unit.data.sources import prepare_of, write

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "pixel_0": pa.float32(),
        "pixel_1": pa.uint8(),
        "ok": pa.bool_(),
        "city": pa.string(),
        "sort": pa.dictionary(pa.int8(), pa.large_string()),
        "day": pa.date32(),
        "at": pa.timestamp("ns"),
        "hour": pa.time32("s"),
        "price": pa.decimal128(10, 2),
        "kind": pa.string(),
    }
)


def chosen(**options):
    return {column.name: column.kind for column in choose_columns(SCHEMA, prepare_of(**options), "raw.csv")}


def test_kinds_follow_from_types():
    assert chosen() == dict.fromkeys(["id", "pixel_0", "pixel_1", "price"], "numeric") | dict.fromkeys(
        ["city", "sort"], "category"
    ) | dict.fromkeys(["day", "at", "hour"], "date") | {"ok": "boolean"}


def test_columns_by_name_and_pattern_in_the_order_of_the_source():
    assert list(chosen(columns=["ok", "pixel_*"])) == ["pixel_0", "pixel_1", "ok"]
    assert list(chosen(columns=["pixel_?", "id"], ignore=["*_0"])) == ["id", "pixel_1"]
    assert "id" not in chosen(ignore=["id"])
    assert "kind" not in chosen(columns=["*"]), "the target"


def test_a_name_with_brackets_is_a_name_too():
    schema = pa.schema({"a[1]": pa.float64(), "b": pa.float64(), "kind": pa.string()})
    assert [column.name for column in choose_columns(schema, prepare_of(columns=["a[1]"]), "raw.csv")] == ["a[1]"]


def test_kinds_by_name_and_pattern():
    found = chosen(kinds={"pixel_*": "category", "pixel_1": "boolean"})
    assert (found["pixel_0"], found["pixel_1"], found["id"]) == (
        "category",
        "boolean",
        "numeric",
    ), "a name goes before a pattern"


@pytest.mark.parametrize("key", ["columns", "ignore", "kinds"])
def test_a_pattern_that_matches_nothing(key):
    with pytest.raises(
        UserError,
        match=(
            rf"raw.csv: prepare.{key}: 'pixels_\*' matches no column; it has id, pixel_0, pixel_1, ok, city, sort, day,"
            r" at and 3 more"
        ),
    ):
        chosen(**{key: {"pixels_*": "numeric"} if key == "kinds" else ["pixels_*"]})


def test_a_pattern_may_match_what_the_reader_left_out():
    schema = pa.schema({"a": pa.float64(), "kind": pa.string()}, metadata={"columns": '["note", "a", "kind"]'})
    assert [column.name for column in choose_columns(schema, prepare_of(ignore=["note"]), "raw.csv")] == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["id", "kind"]}, r"params.yaml: prepare.columns: 'kind' is the target"),
        ({"ignore": ["*"]}, r"raw.csv: no column is left as an input"),
        ({"split": {"by": "group", "column": "who"}}, r"raw.csv: has no column 'who' \(prepare.split.column\)"),
        ({"kinds": {"id": "date"}}, r"raw.csv: column 'id' has type int64, which can't be a date \(prepare.kinds\)"),
        ({"kinds": {"day": "numeric"}}, r"raw.csv: column 'day' has type date32\[day\], which can't be a numeric"),
    ],
)
def test_columns_that_can_not_be(options, message):
    with pytest.raises(UserError, match=message):
        chosen(**options)


@pytest.mark.parametrize("type_", [pa.list_(pa.int64()), pa.struct({"a": pa.int64()}), pa.binary(), pa.duration("s")])
def test_a_column_of_an_unsupported_type(type_):
    schema = pa.schema({"a": pa.float64(), "odd": type_, "kind": pa.string()})
    with pytest.raises(
        UserError, match=r"raw.csv: column 'odd' has type .*, which can't be an input; leave it out \(prepare.ignore\)"
    ):
        choose_columns(schema, prepare_of(), "raw.csv")
    assert len(choose_columns(schema, prepare_of(ignore=["odd"]), "raw.csv")) == 1


def test_an_empty_column():
    schema = pa.schema({"a": pa.float64(), "none": pa.null(), "kind": pa.string()})
    with pytest.raises(
        UserError,
        match=r"column 'none' is empty; leave it out \(prepare.ignore\), or say what it holds \(prepare.kinds\)",
    ):
        choose_columns(schema, prepare_of(), "raw.csv")


# --- values


def rows(values, type_=None):
    return {"v": pa.array(values, type_), "kind": ["xy"[number % 2] for number in range(len(values))]}


ROWS = 40


@pytest.mark.parametrize(
    ("values", "type_", "options", "message"),
    [
        ([float("inf")], pa.float64(), {}, r"column 'v': inf; a finite number is needed"),
        ([float("-inf")], pa.float32(), {}, r"column 'v': -inf; a finite number is needed"),
        ([1e39], pa.float64(), {}, r"column 'v': 1e\+39 is more than float32 can hold"),
        ([2**53 + 1], pa.int64(), {}, r"column 'v': 9007199254740993 is not a whole number that float64 can hold"),
        ([2**63], pa.uint64(), {}, r"column 'v': 9223372036854775808 is not a whole number that float64 can hold"),
        ([2**24 + 1], pa.int64(), {"normalize": "none"},
         r"column 'v': 16777217 is more than float32 can tell from its neighbours \(2\^24\); set prepare"),
        ([None], pa.float64(), {},
         r"column 'v': empty; a number is needed in every row \(or another policy, prepare.missing.numeric\)"),
        ([float("nan")], pa.float64(), {}, r"column 'v': empty; a number"),
        ([None], pa.bool_(), {},
         r"column 'v': empty; true or false is needed in every row \(or another policy, prepare.missing.boolean\)"),
        ([None], pa.string(), {}, r"column 'v': empty; a category is needed .*prepare.missing.category"),
        ([None], pa.date32(), {}, r"column 'v': empty; a date is needed .*prepare.missing.date"),
        (["x"], pa.string(), {"kinds": {"v": "numeric"}}, r"column 'v': 'x' is not a number"),
        (["x"], pa.string(), {"kinds": {"v": "date"}}, r"column 'v': 'x' is not a date"),
        (["x"], pa.string(), {"kinds": {"v": "boolean"}}, r"column 'v': 'x' is not a boolean"),
        ([2], pa.int64(), {"kinds": {"v": "boolean"}}, r"column 'v': 2 is not a boolean"),
    ],
)  # fmt: skip
def test_a_value_that_is_wrong(tmp_path, values, type_, options, message):
    good = {
        pa.string(): (
            {"numeric": "1", "date": "2020-01-01", "boolean": "true"}.get(options.get("kinds", {}).get("v"), "a")
        ),
        pa.bool_(): True,
    }.get(type_, 1)
    column = pa.array([good] * ROWS, None if type_ == pa.date32() else type_)
    column = pa.concat_arrays(
        [column.cast(pa.int32()).cast(type_) if type_ == pa.date32() else column, pa.array(values, type_)]
    )
    with pytest.raises(UserError, match=rf"raw.csv: row {ROWS + 2}, {message}"):
        write(tmp_path, rows(column), **options)


def test_large_whole_numbers_are_taken_where_they_are_scaled(tmp_path):
    schema, _ = write(tmp_path, rows([2**24 + number // 2 for number in range(40)]))
    assert schema.features[0]["subtract"][0] > 2**24


def test_a_category_with_a_million_values_is_found_early(tmp_path):
    read = []

    def batches():
        for start in range(0, 1_000_000, 5000):
            read.append(start)
            yield pa.record_batch(
                {
                    "v": pa.array([f"id {number}" for number in range(start, start + 5000)]),
                    "kind": pa.array([*"xy"] * 2500),
                }
            )

    from surefoot.data.readers.source import RowSource
    from surefoot.data.tables import write_tables

    schema = pa.schema({"v": pa.string(), "kind": pa.string()})
    source = RowSource(schema, batches(), lambda row: f"raw.csv: row {row + 2}", None, lambda: 0)
    with pytest.raises(
        UserError,
        match=(
            r"raw.csv: row 1002, column 'v': the category has more than 1000 different values"
            r" \(prepare.max_categories\)"
        ),
    ):
        write_tables(tmp_path, prepare_of(), 0, source)
    assert len(read) == 1


@pytest.mark.parametrize(
    "type_",
    [
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.bool_(),
        pa.date32(),
        pa.time32("s"),
        pa.timestamp("us"),
    ],
)
def test_numbers_of_any_slice(type_):
    for values in ([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], [None, 0, 1, None, 1, 1, None, 0, 1, None]):
        if type_ == pa.float16():
            array = pa.array([value if value is None else np.float16(value) for value in values], type_)
        else:
            whole = pa.int64() if type_ == pa.timestamp("us") else pa.int32()
            array = pa.array(values, pa.int32()).cast(whole).cast(type_)
        for start, length in ((0, 10), (1, 9), (3, 4), (9, 1)):
            found, valid = numpy_values(array.slice(start, length))
            wanted = values[start : start + length]
            assert found.tolist() == [value or 0 for value in wanted]
            assert (valid.tolist() if valid is not None else [True] * length) == [value is not None for value in wanted]


def test_nothing_imports_pandas(tmp_path):
    """Of all that prepare and batch do with a table of every kind."""
    script = f"""
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from surefoot.data.readers.source import RowSource
from surefoot.data.tables import read_table, write_tables
from surefoot.params.prepare_section import PrepareParams
table = pq.ParquetFile({str(tmp_path / "raw.parquet")!r})
for by in ("class", "group", "time"):
    split = {{"by": by, "column": None if by == "class" else "number"}}
    missing = {{"numeric": "median", "boolean": "constant", "category": "constant", "date": "mean", "target": "drop"}}
    prepare = PrepareParams.model_validate({{
        "source": "raw", "target": "kind", "split": split, "missing": missing | {{"indicator": True}},
        "kinds": {{"code": "category"}},
    }})
    source = RowSource(table.schema_arrow, table.iter_batches(batch_size=50), str, None, int)
    schema, _ = write_tables(Path({str(tmp_path)!r}), prepare, 0, source)
    sum(len(targets) for _, targets in read_table(Path({str(tmp_path)!r}), "train", schema))
print("pandas" in sys.modules)
"""
    import pyarrow.parquet as pq

    def with_missing(values):
        return [None if number % 9 == 4 else value for number, value in enumerate(values)]

    every = {
        "number": pa.array(range(300)),
        "float": pa.array(with_missing(float(n) for n in range(300))),
        "code": pa.array(with_missing(n % 7 for n in range(300))),
        "text": pa.array(with_missing("abc"[n % 3] for n in range(300))),
        "flag": pa.array(with_missing(n % 2 == 0 for n in range(300))),
        "day": pa.array(with_missing(range(300)), pa.int32()).cast(pa.date32()),
        "at": pa.array(with_missing(n * 10**14 for n in range(300)), pa.int64()).cast(pa.timestamp("us")),
        "kind": pa.array(with_missing("xy"[n % 2] for n in range(300))),
    }
    pq.write_table(pa.table(every), tmp_path / "raw.parquet")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT / "src")}
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_names_in_quotes_are_quoted_once():
    assert quoted_names(["a, b", "c"]) == "'a, b', 'c'"
    assert listed_names(["a, b", "c", "d", "e"], 2) == "'a, b', c and 2 more"
