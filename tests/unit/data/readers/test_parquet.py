import json
from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.readers.reading import read, read_arrays, refusal, source_of


@pytest.fixture
def file(tmp_path):
    return tmp_path / "raw.parquet"


def table(rows=10, first=0, **more):
    return pa.table({"a": pa.array(range(first, first + rows)), "kind": ["x", "y"] * (rows // 2), **more})


def test_columns_come_as_they_are_and_where_needed(file):
    more = {
        "b": pa.array([0.5] * 10, pa.float32()),
        "c": [True] * 10,
        "id": [[1]] * 10,
        "day": pa.array([0] * 10, pa.date32()),
    }
    pq.write_table(table(**more), file)
    source = source_of(file, ignore=["id"])
    assert dict(zip(source.schema.names, source.schema.types, strict=True)) == {
        "a": pa.int64(),
        "kind": pa.string(),
        "b": pa.float32(),
        "c": pa.bool_(),
        "day": pa.date32(),
    }
    assert [row["a"] for row in read(file, ignore=["id"])[1]] == list(range(10))
    assert source_of(file, columns=["a"]).schema.names == ["a", "kind"]


def test_types_that_have_a_plainer_one(file):
    more = {
        "d": pa.array([Decimal("1.25")] * 10),
        "c": pa.array(["u", "v"] * 5).dictionary_encode(),
        "l": pa.array(["u"] * 10, pa.large_string()),
        "n": pa.nulls(10),
    }
    pq.write_table(table(**more), file)
    assert source_of(file).schema.types[2:] == [pa.float64(), pa.string(), pa.string(), pa.float64()]
    assert {**read(file)[1][1]} == {"a": 1, "kind": "y", "d": 1.25, "c": "v", "l": "u", "n": None}


def test_lists_of_one_length_are_arrays(file):
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(range(40), pa.uint8()), 4)
    pq.write_table(pa.table({"input": numbers, "kind": ["x", "y"] * 5}), file)
    inputs, _ = read_arrays(file)
    assert inputs.shape == (10, 4) and inputs[-1].tolist() == [36, 37, 38, 39]


def test_a_type_that_cannot_be_an_input(file):
    pq.write_table(table(b=[{"c": 1}, {"c": 2}] * 5), file)
    assert refusal(file).startswith(f"{file}: column 'b' is of type struct<c: int64>, which can't be an input; ")


def test_no_target_and_no_rows(file):
    pq.write_table(table().drop(["kind"]), file)
    assert refusal(file) == f"{file}: has no column 'kind' (prepare.target); it has a"
    pq.write_table(table(0), file)
    assert refusal(file) == f"{file}: has no rows"


def test_columns_of_one_name(file):
    pq.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array(["x"])], names=["a", "a", "kind"]), file
    )
    assert refusal(file) == f"{file}: names column 'a' more than once; rename one, or leave both out (prepare.ignore)"
    pq.write_table(pa.table([[1], [2], [3], ["x"]], names=["a", "a", "b", "kind"]), file)
    assert read(file, ignore=["a"])[1] == [{"b": 3, "kind": "x"}], "no fault of columns that are left out"


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -50])
def test_a_file_that_is_cut_short(file, cut):
    pq.write_table(table(1000), file)
    file.write_bytes(file.read_bytes()[:cut])
    assert refusal(file).startswith(f"{file}: isn't a Parquet file, or is cut short or damaged: ")


def test_a_file_that_is_damaged_within(file):
    pq.write_table(table(1000), file, compression="zstd")
    data = bytearray(file.read_bytes())
    data[40:80] = bytes(40)
    file.write_bytes(data)
    assert refusal(file).startswith(f"{file}: isn't a Parquet file, or is cut short or damaged: ")


def test_parts_come_by_name_in_batches_of_a_size_and_rows_are_named(tmp_path):
    for part in (10, 9, 1):
        pq.write_table(table(100, part * 100), tmp_path / f"part-{part:02}.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-1.crc").touch()
    source = source_of(tmp_path)
    batches = list(source.batches)
    assert [row["a"] for row in batches[0].to_pylist()] == [*range(100, 200), *range(900, 1100)] and len(batches) == 1
    assert [source.where(row) for row in (0, 99, 100, 299)] == [
        f"{tmp_path}/part-{part}: row {row}"
        for part, row in (("01.parquet", 1), ("01.parquet", 100), ("09.parquet", 1), ("10.parquet", 100))
    ]


def test_a_large_file_comes_in_pieces(file, monkeypatch):
    monkeypatch.setattr("surefoot.data.readers.parquet.BATCH_BYTES", 1 << 14)
    pq.write_table(table(100_000), file)
    batches = list(source_of(file).batches)
    assert len(batches) > 50 and max(batch.nbytes for batch in batches) < 1 << 15
    assert sum(batch.num_rows for batch in batches) == 100_000


def test_parts_whose_schemas_differ_are_named(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(table(), first)
    pq.write_table(table(b=[1] * 10), second)
    assert refusal(tmp_path) == f"{second}: its columns aren't those of {first}: additional: b"
    pq.write_table(table().rename_columns(["c", "kind"]), second)
    assert refusal(tmp_path) == f"{second}: its columns aren't those of {first}: missing: a; additional: c"
    pq.write_table(table().set_column(0, "a", [["x"] * 10]), second)
    assert refusal(tmp_path) == f"{second}: column 'a' is of type string; in {first} it is of type int64"


MOMENTS = [datetime(2024, 1, 1 + number, 12) for number in range(10)]


@pytest.mark.parametrize(
    ("one", "other", "type_", "wanted"),
    [
        (range(10), [0.5] * 10, pa.float64(), [float(number) for number in range(10)] + [0.5] * 10),
        (pa.array(range(10), pa.int8()), range(10), pa.int64(), [*range(10), *range(10)]),
        (pa.array(range(10), pa.uint64()), range(10), pa.float64(), [*map(float, range(10))] * 2),
        (pa.array([0.5] * 10, pa.float32()), [0.25] * 10, pa.float64(), [0.5] * 10 + [0.25] * 10),
        (pa.nulls(10), ["x"] * 10, pa.string(), [None] * 10 + ["x"] * 10),
        ([float("nan")] * 10, ["x"] * 10, pa.string(), [None] * 10 + ["x"] * 10),
        ([None] * 10, MOMENTS, pa.timestamp("us"), [None] * 10 + MOMENTS),
        (pa.array([None] * 10, pa.float64()), [True] * 10, pa.bool_(), [None] * 10 + [True] * 10),
        (
            [day.date() for day in MOMENTS],
            MOMENTS,
            pa.timestamp("us"),
            [day.replace(hour=0) for day in MOMENTS] + MOMENTS,
        ),
        (pa.array(MOMENTS, pa.timestamp("ns")), pa.array(MOMENTS, pa.timestamp("s")), pa.timestamp("us"), MOMENTS * 2),
        (
            *(pa.array(MOMENTS, pa.timestamp("us", zone)) for zone in ("Asia/Tokyo", "UTC")),
            pa.timestamp("us", "UTC"),
            [moment.replace(tzinfo=UTC) for moment in MOMENTS] * 2,
        ),
    ],
)
def test_parts_of_different_types_agree_on_one(tmp_path, one, other, type_, wanted):
    one, other = (values if isinstance(values, pa.Array) else pa.array(list(values)) for values in (one, other))
    for order in ((one, other), (other, one)):
        for name, values in zip("ab", order, strict=True):
            pq.write_table(table().set_column(0, "a", values), tmp_path / f"{name}.parquet")
        _, rows = read(tmp_path)
        assert [row["a"] for row in rows] == (wanted if order[0] is one else wanted[10:] + wanted[:10])
        assert source_of(tmp_path).schema.field("a").type == type_


def test_numbers_that_are_names_are_texts_where_another_part_has_texts(tmp_path):
    years = ([2001.0, None] * 5, ["2001", "old"] * 5)
    for name, values in zip("ab", years, strict=True):
        pq.write_table(table().set_column(0, "a", [values]), tmp_path / f"{name}.parquet")
    assert [row["a"] for row in read(tmp_path, kinds={"a": "category"})[1]] == ["2001", None] * 5 + ["2001", "old"] * 5
    assert [row["a"] for row in read(tmp_path, target="a")[1]] == ["2001", None] * 5 + ["2001", "old"] * 5
    assert "column 'a' is of type double; in the other files it is of type string" in refusal(tmp_path)
    pq.write_table(table().set_column(0, "a", [[datetime(2024, 1, 1)] * 10]), tmp_path / "b.parquet")
    assert "column 'a' is of type" in refusal(tmp_path)


def test_parts_may_differ_in_order_in_dictionaries_and_where_all_is_missing(tmp_path):
    pq.write_table(table(c=pa.array(["u", "v"] * 5).dictionary_encode()), tmp_path / "a.parquet")
    pq.write_table(table(c=pa.array(["w"] * 10).dictionary_encode()).select(["kind", "c", "a"]), tmp_path / "b.parquet")
    pq.write_table(table(c=pa.nulls(10)), tmp_path / "c.parquet")
    assert [row["c"] for row in read(tmp_path)[1]] == [*["u", "v"] * 5, *["w"] * 10, *[None] * 10]


def test_an_index_of_pandas_is_no_input_unless_it_is_named(file):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "kind": ["x", "y", "x"]})
    for index, name in ((pd.Index([5, 3, 9]), "__index_level_0__"), (pd.Index([5, 3, 9], name="id"), "id")):
        frame.set_index(index).to_parquet(file)
        assert read(file)[0] == ["a", "kind"]
        assert read(file, columns=["*"])[0] == ["a", "kind"]
        assert read(file, columns=[name, "a"])[0] == ["a", "kind", name]
        assert read(file, split={"by": "group", "column": name})[0] == ["a", "kind", name]
        assert json.loads(source_of(file).schema.metadata[b"index"]) == [name]
    frame.to_parquet(file)
    assert json.loads(source_of(file).schema.metadata[b"index"]) == []
    pq.write_table(table().replace_schema_metadata({"pandas": "[1"}), file)
    assert "a" in read(file)[0]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int32()), pa.list_(pa.float32(), 3)]
)
def test_embeddings_are_lists_of_one_length(tmp_path, kind):
    rows = [[number, number + 1, number + 2] for number in range(10)]
    table = pa.table({"x": pa.array(rows, kind), "kind": ["a", "b"] * 5})
    pq.write_table(table, tmp_path / "data.parquet")
    names, found = read(tmp_path / "data.parquet")
    assert names == ["x", "kind"]
    assert [row["x"] for row in found] == rows
    if not pa.types.is_fixed_size_list(kind):
        for wrong, told in (([1], "a list of 1 values"), (None, "no list")):
            pq.write_table(
                pa.table({"x": pa.array([*rows, wrong], kind), "kind": ["a"] * 11}), tmp_path / "wrong.parquet"
            )
            assert refusal(tmp_path / "wrong.parquet").endswith(
                f"column 'x' has {told} among lists of 3; they must be of one length"
            )


@pytest.mark.parametrize("name", [None, "id"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_index_of_pandas_in_some_parts_alone(tmp_path, name, which):
    for part in range(3):
        frame = pd.DataFrame({"a": [part, 10 + part], "kind": ["x", "y"]})
        if part == which:
            frame = frame.set_index(pd.Index(["p", "q"], name=name))
        frame.to_parquet(tmp_path / f"{part}.parquet")
    names, rows = read(tmp_path)
    assert names == ["a", "kind"]
    assert [row["a"] for row in rows] == [0, 10, 1, 11, 2, 12]
    if which != 0:
        return
    column = name or "__index_level_0__"
    assert (
        refusal(tmp_path, columns=["a", column])
        == f"{tmp_path / '1.parquet'}: its columns aren't those of {tmp_path / '0.parquet'}: missing: {column}"
    )


def test_a_name_that_is_not_utf_8(file):
    pq.write_table(table(namée=pa.array([0.5] * 10), lists=[[1.0]] * 10), file)
    for name in ("namée".encode(), b"element"):
        data = file.read_bytes()
        assert name in data
        file.write_bytes(data.replace(name, b"\xff" * len(name)))
        assert refusal(file).startswith(f"{file}: isn't a Parquet file, or is cut short or damaged: ")
        file.write_bytes(data)


def test_what_pandas_would_not_have_written_is_no_index(file):
    for said in (b"[" * 100_000, b"\xff", b"[]", b'{"index_columns": 7}', b'{"index_columns": [7, null, {}]}'):
        pq.write_table(table().replace_schema_metadata({"pandas": said}), file)
        assert read(file)[0] == ["a", "kind"]
