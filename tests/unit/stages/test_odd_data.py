"""Odd data, each refused in a line or two, or read for what it is; nothing half-written."""

import io
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROWS = 60
KIND = pa.array(["x", "y", "z"] * (ROWS // 3))


def refused(here, *said: str) -> None:
    error = here.stage("prepare").refused()
    assert all(text in error for text in said), error
    assert not (here / "data").exists() or not list((here / "data").iterdir())


def parquet(here, column: pa.Array) -> None:
    pq.write_table(pa.table({"a": column, "kind": KIND}), here / "raw.parquet")
    here.edit("prepare.source", "raw.parquet")


def npz(here, inputs: np.ndarray, targets: np.ndarray) -> None:
    np.savez(here / "raw.npz", x=inputs, y=targets)
    here.edit("prepare.source", "raw.npz")


def texts(values: list[bytes]) -> pa.Array:
    _, offsets, data = pa.array(values, pa.binary()).buffers()
    return pa.StringArray.from_buffers(len(values), offsets, data)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([2**45, 1] * 30, pa.timestamp("s")), ("row 1, column 'a'", "years 1 to 9999")),
        (pa.array([0, 2**31 - 1] * 30, pa.date32()), ("row 2, column 'a'", "years 1 to 9999")),
        (pa.array(["2020-01-01", "0000-01-01"] * 30), ("row 2, column 'a'", "'0000-01-01' is not a date")),
        (texts([b"\xff\xfe", b"b"] * 30), ("column 'a'", "not UTF-8")),
        (pa.array([[]] * ROWS, pa.list_(pa.float64(), 0)), ("column 'a'", "can't be an input")),
    ],
    ids=["timestamp", "date", "text", "utf-8", "no width"],
)
def test_parquet_column(here, column, said):
    parquet(here, column)
    if pa.types.is_string(column.type) and "date" in said[1]:
        (here / "params.yaml").write_text(
            (here / "params.yaml").read_text().replace("target: kind", "target: kind\n  kinds: {a: date}")
        )
    refused(here, "raw.parquet", *said)


def test_last_possible_dates(here):
    parquet(here, pa.array([-719162, 2932896] * 30, pa.date32()))
    assert here.stage("prepare").code == 0


def test_groups_of_arrays(here):
    parquet(here, pa.array([[1.0, 2.0]] * ROWS, pa.list_(pa.float64(), 2)))
    table = pq.read_table(here / "raw.parquet").append_column("b", pa.array(range(ROWS)))
    pq.write_table(table, here / "raw.parquet")
    (here / "params.yaml").write_text(
        (here / "params.yaml").read_text().replace("target: kind", "target: kind\n  split: {by: group, column: a}")
    )
    refused(here, "column 'a' (prepare.split.column) holds arrays")


def test_later_part_with_a_column_twice(here):
    (here / "raw").mkdir()
    numbers = pa.array(range(ROWS))
    pq.write_table(pa.table({"a": numbers, "kind": KIND}), here / "raw/1.parquet")
    pq.write_table(pa.Table.from_arrays([numbers, numbers, KIND], names=["a", "a", "kind"]), here / "raw/2.parquet")
    here.edit("prepare.source", "raw")
    refused(here, "raw/2.parquet: names column 'a' more than once")


@pytest.mark.parametrize("stray", ["1_000", "١٢"])
def test_what_only_python_reads_as_a_number(here, stray):
    here.csv()
    with (here / "raw.csv").open("a") as file:
        file.write(f"{stray},1,x\n")
    refused(here, f"column 'a': {stray!r} is not a number")


def test_pipe(here):
    os.mkfifo(here / "raw.csv")
    refused(here, "raw.csv: can't be read: it is a pipe, not a file")


def test_nul_in_a_name(here):
    here.edit("prepare.source", '"raw\\0.csv"')
    refused(here, "params.yaml: prepare.source", "NUL")


def test_array_values_beyond_float32(here):
    npz(here, np.where(np.arange(ROWS)[:, None] == 4, 1e300, np.ones((ROWS, 2))), np.arange(ROWS) % 3)
    refused(here, "raw.npz: row 5, column 'input'", "more than float32 can hold")


@pytest.mark.parametrize(
    "targets", [np.array(["a", "\ud800"] * 30), np.array(["a", "b"] * 30, "S1")], ids=["half a character", "bytes"]
)
def test_targets_that_are_no_texts(here, targets):
    npz(here, np.ones((ROWS, 2)), targets)
    refused(here)


@pytest.mark.parametrize(
    "header",
    [b"(" * 200 + b"\n", b"{'descr': '<U0', 'fortran_order': False, 'shape': (60,)}\n"],
    ids=["brackets", "no width"],
)
def test_damaged_header_of_an_array(here, header):
    inputs = io.BytesIO()
    np.save(inputs, np.ones((ROWS, 2)))
    with zipfile.ZipFile(here / "raw.npz", "w") as archive:
        archive.writestr("x.npy", inputs.getvalue())
        archive.writestr("y.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    here.edit("prepare.source", "raw.npz")
    refused(here, "raw.npz: array 'y'")


def pictures(here, folders: tuple[bytes, ...] = (b"a", b"b")) -> None:
    for folder in folders:
        at = os.path.join(os.fsencode(here.path), b"pictures", folder)  # noqa: PTH118
        os.makedirs(at)  # noqa: PTH103
        for number in range(20):
            with open(at + b"/%d.png" % number, "wb") as file:  # noqa: PTH123
                Image.new("L", (2, 2), number).save(file, "PNG")
    here.edit("prepare.source", "pictures")


def test_folder_whose_name_is_not_unicode(here):
    pictures(here, (b"a", b"b\xff"))
    refused(here, "its name isn't UTF-8")


def test_images_resized_beyond_what_arrow_counts(here):
    pictures(here)
    (here / "params.yaml").write_text(
        (here / "params.yaml").read_text().replace("target: kind", "target: kind\n  images: {resize: [100000, 100000]}")
    )
    refused(here, "[3, 100000, 100000]", "too many")


def test_damaged_tiff_is_told_of_once(here):
    pictures(here)
    tiff = io.BytesIO()
    Image.new("L", (40, 40)).save(tiff, "TIFF")
    (here / "pictures/a/x.tiff").write_bytes(tiff.getvalue()[:10])
    refused(here, "pictures/a/x.tiff")


def test_masked_values_of_a_reader_are_missing(here, monkeypatch):
    (here / "odd_reader.py").write_text(
        "import numpy as np\n\n\ndef rows():\n    return {'a': np.ma.array(np.arange(60.0), mask=np.arange(60) == 4),"
        " 'kind': np.arange(60) % 3}\n"
    )
    monkeypatch.syspath_prepend(here.path)
    here.edit("prepare.source", "odd_reader:rows")
    refused(here, "row 5, column 'a': empty")


@pytest.mark.parametrize(
    ("key", "value"), [("train.lr", "1e300"), ("batch.size", "4, shape: [" + "1, " * 70 + "2]")], ids=["lr", "shape"]
)
def test_params_beyond_what_torch_and_numpy_hold(here, key, value):
    here.edit(key, value)
    assert f"{'batch.shape' if key == 'batch.size' else key}: " in here.stage("prepare").refused()
