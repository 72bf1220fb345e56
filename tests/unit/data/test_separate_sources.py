"""Validation and test sets with a source of their own."""

import os
import shutil
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surefoot.base.errors import UserError
from surefoot.data import shared_rows
from surefoot.data.readers.open_source import open_source
from surefoot.data.same_files import refuse_same
from surefoot.data.shared_rows import count_shared, hash_rows
from surefoot.data.tables import write_tables
from tests.unit.data.sources import prepare_of, write


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A table, a folder of parts, and folders of images; beside them the same rows in other ways."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.csv").write_text("a,kind\n1,x\n2,y\n")
    (tmp_path / "other.csv").write_text("a,kind\n3,x\n4,y\n")
    (tmp_path / "sub").mkdir()
    shutil.copy("raw.csv", "copy.csv")
    shutil.copy("raw.csv", "sub/part.csv")
    shutil.copy("other.csv", "sub/other.csv")
    (tmp_path / "link.csv").symlink_to("raw.csv")
    os.link("raw.csv", "hard.csv")
    (tmp_path / "linked").symlink_to("sub")
    for name in ("images/a/1.png", "images/b/2.png", "more/a/1.png", "more/b/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name[-5:].encode())
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("raw.csv", "raw.csv"),
        ("raw.csv", "./sub/../raw.csv"),
        ("raw.csv", "link.csv"),
        ("raw.csv", "hard.csv"),
        ("raw.csv", "copy.csv"),
        ("raw.csv", "sub"),
        ("sub", "raw.csv"),
        ("sub", "linked"),
        ("sub", "sub/"),
        ("images", "images/"),
        ("images", "images/a"),
        ("sklearn:wine", "sklearn:wine"),
        ("sources.mine:rows", "sources.mine:rows"),
    ],
)
def test_the_same_rows_as_another_source_are_refused(files, one, other):
    for keys in (("source", "test_source"), ("source", "validation_source"), ("validation_source", "test_source")):
        given = {"source": "other.npz"} | dict(zip(keys, (one, other), strict=True))
        with pytest.raises(UserError) as refused:
            refuse_same(prepare_of(**given))
        assert str(refused.value).startswith(f"{other} (prepare.{keys[1]}) ")
        assert f"{one} (prepare.{keys[0]})" in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [("raw.csv", "other.csv"), ("images", "more"), ("sklearn:wine", "sklearn:iris"), ("raw.csv", "nowhere.csv")],
)
def test_other_rows_are_not(files, one, other):
    refuse_same(prepare_of(source=one, test_source=other))


def numbered(first, rows, **more):
    return {
        "a": [float(number) for number in range(first, first + rows)],
        "kind": ["xy"[number % 2] for number in range(rows)],
        **more,
    }


def test_rows_in_both_are_counted(tmp_path):
    rows = numbered(
        0,
        60,
        c=["p", "q", None] * 20,
        d=[date(2020, 1, 1 + number % 28) for number in range(60)],
        b=[number % 3 == 0 for number in range(60)],
    )
    shuffled = np.random.default_rng(0).permutation(60)[:25].tolist()
    other = {name: [values[number] for number in shuffled] for name, values in rows.items()}
    other["a"][:5] = [-1.0 - number for number in range(5)]
    other["kind"][5] = "x" if other["kind"][5] == "y" else "y"
    options = {"missing": {"category": "constant"}}
    _, said = write(tmp_path, rows, test=other, **options)
    assert any(
        note.startswith("19 of the 25 rows of test.csv (prepare.test_source) are also among those of raw.csv")
        for note in said
    ), said
    _, said = write(
        tmp_path, rows, test=numbered(100, 20, **{name: rows[name][:20] for name in "cdb"}), validation=other, **options
    )
    assert [note for note in said if "are also" in note] == [
        next(note for note in said if note.startswith("19 of the 25 rows of validation.csv"))
    ]
    _, said = write(tmp_path, rows, test=numbered(100, 20), validation=numbered(90, 30), columns=["a"])
    assert any(
        note.startswith("20 of the 20 rows of test.csv (prepare.test_source) are also among those of validation.csv")
        for note in said
    ), said


def test_of_many_rows_a_part_is_looked_for(monkeypatch):
    monkeypatch.setattr(shared_rows, "SAMPLE", 1 << 10)
    rows = pa.record_batch({"a": pa.array(np.arange(40_000.0)), "b": pa.array(np.arange(40_000) % 2 == 0)})
    hashes = hash_rows(rows)
    assert len(set(hashes.tolist())) == 40_000
    count = count_shared(
        lambda: iter([rows.slice(0, 20_000)]),
        20_000,
        [lambda: iter([rows.slice(15_000, 9_000)]), lambda: iter([rows.slice(19_000)])],
    )
    assert 4_000 < count < 6_000


def test_arrays_in_both_are_counted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 6), np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=np.arange(40) % 2)
    np.savez(tmp_path / "b.npz", x=images[[4, 5, 6, 5]], y=np.array([0, 1, 1, 1]))
    prepare = prepare_of(source=str(tmp_path / "a.npz"), test_source=str(tmp_path / "b.npz"))
    opener = lambda told: open_source(told, told.test_source, None)  # noqa: E731
    _, said = write_tables(tmp_path, prepare, 0, open_source(prepare, prepare.source, None), {"test": opener})
    assert [note.split(" (")[0] for note in said] == [f"3 of the 4 rows of {tmp_path / 'b.npz'}"]


# --- columns as in the main source


DAYS = [datetime(2020, 1, 1) + timedelta(days=11 * number, hours=number) for number in range(60)]
MAIN = {
    "n": pa.array(range(60)),
    "f": pa.array([number / 4 for number in range(60)]),
    "c": pa.array([f"0{number % 5}" for number in range(60)]),
    "b": pa.array([number % 3 == 0 for number in range(60)]),
    "at": pa.array(DAYS, pa.timestamp("us")),
    "zoned": pa.array(DAYS, pa.timestamp("us", "UTC")),
    "day": pa.array(DAYS, pa.timestamp("us")).cast(pa.date32(), safe=False),
    "kind": pa.array(["x", "y"] * 30),
}
MISSING = {"missing": {"numeric": "mean", "boolean": "constant", "category": "constant", "date": "mean"}}


def prepared(directory, main, test, ending, **options):
    """The test rows as they are written."""
    for name, table in (("main", main), ("test", test)):
        file = directory / f"{name}.{ending}"
        if ending == "csv":
            import pyarrow.csv as csv

            csv.write_csv(pa.table(table), file)
        else:
            pq.write_table(pa.table(table), file)
    prepare = prepare_of(
        source=str(directory / f"main.{ending}"), test_source=str(directory / f"test.{ending}"), **MISSING, **options
    )
    opener = lambda told: open_source(told, told.test_source, None)  # noqa: E731
    write_tables(directory, prepare, 0, open_source(prepare, prepare.source, None), {"test": opener})
    return pq.read_table(directory / "test.parquet")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("column", [name for name in MAIN if name != "kind"])
def test_a_column_that_is_empty_there(tmp_path, ending, column):
    test = {name: values.slice(0, 4) for name, values in MAIN.items()}
    for empty in (pa.nulls(4), pa.nulls(4, pa.float64()), pa.nulls(4, MAIN[column].type), pa.array([float("nan")] * 4)):
        if ending == "csv" and pa.types.is_floating(empty.type) and not empty.null_count:
            continue
        found = prepared(tmp_path, MAIN, test | {column: empty}, ending)
        assert found.column(column).null_count == 4 or np.isnan(found.column(column).to_pylist()).all()


def test_what_only_looks_otherwise_there(tmp_path):
    """Digits without zeros before them, whole numbers, days alone, another zone: as the values are in
    the main source.
    """
    test = {name: values.slice(0, 4) for name, values in MAIN.items()}
    as_csv = prepared(
        tmp_path,
        MAIN,
        test | {"c": pa.array(["10", "01", "1", "02"]), "f": pa.array([1, 2, 3, 4])},
        "csv",
        kinds={"c": "category"},
    )
    assert as_csv.column("c").to_pylist() == ["10", "01", "1", "02"]
    assert as_csv.column("f").to_pylist() == [1.0, 2.0, 3.0, 4.0]
    days = pa.array([date(2024, 1, 1 + number) for number in range(4)])
    for ending in ("csv", "parquet"):
        found = prepared(tmp_path, MAIN, test | {"at": days}, ending)
        assert found.column("at").to_pylist() == [datetime(2024, 1, 1 + number) for number in range(4)]
    finer = prepared(tmp_path, MAIN, test | {"day": pa.array(DAYS[:4])}, "parquet")
    assert finer.column("day").to_pylist() == [day.date() for day in DAYS[:4]]
    moments = [day.replace(tzinfo=UTC) for day in DAYS[:4]]
    east = pa.array(moments, pa.timestamp("s", "Asia/Kolkata"))
    texts = pa.array([moment.astimezone(timezone(timedelta(hours=-5))).isoformat() for moment in moments])
    for ending, given in (("parquet", east), ("parquet", texts), ("csv", texts)):
        assert prepared(tmp_path, MAIN, test | {"zoned": given}, ending).column("zoned").to_pylist() == moments
    ints = pa.array([3, None, 5, 6], pa.int16())
    assert prepared(tmp_path, MAIN, test | {"f": ints, "n": ints.cast(pa.float64())}, "parquet").column(
        "n"
    ).to_pylist() == [3.0, None, 5.0, 6.0]


def test_dates_there_are_read_by_the_format_here(tmp_path):
    main = {"day": [f"{day:%m/%d/%Y}" for day in DAYS], "kind": ["x", "y"] * 30}
    found = prepared(tmp_path, main, {"day": ["01/02/2024", "02/03/2024"], "kind": ["x", "y"]}, "csv")
    assert found.column("day").to_pylist() == [date(2024, 1, 2), date(2024, 2, 3)], "which alone could be read two ways"
    with pytest.raises(
        UserError, match=r"test.csv: row 3, column 'day': '14/03/2024' is not a date such as 12/31/2024"
    ):
        prepared(tmp_path, main, {"day": ["01/02/2024", "14/03/2024"], "kind": ["x", "y"]}, "csv")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("c", [1.5, None, None, None], "column 'c' is double, but in .* it is a category column"),
        ("c", [1, 2, 3, 4], "column 'c' is int64, but in .* it is a category column"),
        ("n", ["a", "b", "c", "d"], "column 'n' is string, but in .* it is a numeric column"),
        ("b", [0.0, 1.0, 0.5, None], "column 'b' is double, but in .* it is a boolean column"),
        (
            "at",
            [datetime(2020, 1, 1, tzinfo=UTC)] * 4,
            "row 1, column 'at': .* has a time zone, and the others have none",
        ),
        ("zoned", [datetime(2020, 1, 1)] * 4, "row 1, column 'zoned': .* has no time zone"),
        ("at", [1, 2, 3, 4], "row 1, column 'at': 1 .*is no date"),
    ],
)
def test_what_is_otherwise_there(tmp_path, column, values, said):
    test = {name: values.slice(0, 4) for name, values in MAIN.items()}
    with pytest.raises(UserError, match=said):
        prepared(tmp_path, MAIN, test | {column: pa.array(values)}, "parquet")
