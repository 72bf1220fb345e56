import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surefoot.base.errors import UserError
from surefoot.data.readers import csv_text
from tests.helpers import PROJECT
from tests.unit.data.readers.reading import read, refusal, source_of

TEXT = "a,kind\n1,x\n"


def test_a_source_that_is_not_there(tmp_path):
    file = tmp_path / "raw.csv"
    told = (
        "there is no such file or directory; prepare.source must name a file, a directory, sklearn:NAME or"
        " module:function"
    )
    assert refusal(file) == f"{file}: {told}"


def test_a_test_set_that_is_not_there_is_told_by_its_key(tmp_path):
    (tmp_path / "raw.csv").write_text(TEXT)
    message = refusal(tmp_path / "test.csv", source=str(tmp_path / "raw.csv"), test_source=str(tmp_path / "test.csv"))
    assert "prepare.test_source must name" in message


@pytest.mark.parametrize(("name", "form"), [(b"b\xff.csv", "csv"), (b"b\xff.parquet", "auto"), (b"b\xff", "images")])
def test_a_part_file_whose_name_is_no_text(tmp_path, name, form):
    (tmp_path / os.fsdecode(name)).write_text(TEXT)
    assert "its name isn't UTF-8" in refusal(tmp_path, format=form)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    file = tmp_path / "raw.csv"
    file.write_text(TEXT)
    file.chmod(0)
    assert refusal(file) == f"{file}: can't be read: Permission denied"


def test_a_file_that_cannot_be_opened(tmp_path):
    file = tmp_path / "raw.csv"
    file.symlink_to(file)  # for ever
    assert refusal(file) == f"{file}: can't be read: Too many levels of symbolic links"


def test_paths_may_lie_anywhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "raw.csv").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "here")
    for path in ("../raw.csv", tmp_path / "raw.csv"):
        assert read(path)[1] == [{"a": 1, "kind": "x"}]
        assert source_of(path).where(0) == f"{path}: row 2"


def test_formats_by_name_and_by_param(tmp_path):
    (tmp_path / "raw.dat").write_text(TEXT)
    told = (
        "what it holds can't be told from its name; rename or remove it, or set prepare.format (csv, parquet, npz, npy,"
        " idx, images)"
    )
    assert refusal(tmp_path / "raw.dat") == f"{tmp_path / 'raw.dat'}: {told}"
    assert len(read(tmp_path / "raw.dat", format="csv")[1]) == 1
    assert len(read(tmp_path, format="csv")[1]) == 1
    assert refusal(tmp_path / "raw.dat", format="parquet").startswith(f"{tmp_path / 'raw.dat'}: isn't a Parquet file")
    pq.write_table(pa.table({"a": [1], "kind": ["x"]}), tmp_path / "raw.parquet")
    (tmp_path / "raw.dat").rename(tmp_path / "raw.csv")
    assert refusal(tmp_path) == f"{tmp_path}: holds files of different formats, raw.csv and raw.parquet; it must be one"


def test_directories_that_hold_nothing_of_use(tmp_path):
    for keys in ({}, {"format": "parquet"}, {"format": "images"}):
        assert refusal(tmp_path, **keys) == f"{tmp_path}: is an empty directory"
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert refusal(tmp_path) == f"{tmp_path}: is a directory; of NPY, prepare.source must name a file"
    (tmp_path / "more").mkdir()
    assert refusal(tmp_path, format="csv") == f"{tmp_path}: must hold files alone; there is more"


def test_labels_where_they_have_no_use(tmp_path):
    (tmp_path / "raw.csv").write_text(TEXT)
    told = "params.yaml: prepare.labels: y.npy has no use: csv files hold their targets"
    assert refusal(tmp_path / "raw.csv", "y.npy") == told


@pytest.mark.parametrize("change", ["append", "replace", "touch", "remove", "cut"])
@pytest.mark.parametrize("parts", [False, True])
def test_a_source_that_changes_while_it_is_read(tmp_path, monkeypatch, change, parts):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 1 << 12)
    file = tmp_path / "raw.csv"
    file.write_text("a,kind\n" + "1,x\n" * 20_000)
    if parts:
        (tmp_path / "sub.csv").write_text(TEXT)
    source = source_of(tmp_path if parts else file)
    next(source.batches)
    if change == "append":
        file.write_text(file.read_text() + "1,x\n")
    elif change == "replace":
        (tmp_path / "new").write_text(file.read_text())
        os.utime(tmp_path / "new", ns=(0, file.stat().st_mtime_ns))
        (tmp_path / "new").rename(file)
    elif change == "touch":
        os.utime(file, ns=(0, 0))
    elif change == "remove":
        file.unlink()
    else:
        os.truncate(file, 50_001)  # in the midst of a row: the change is what must be told
    with pytest.raises(UserError) as refused:
        list(source.batches)
    assert str(refused.value) == f"{file}: changed while it was read; run again when nothing writes to it"


def test_a_part_that_comes_while_they_are_read(tmp_path):
    for part in "ab":
        (tmp_path / f"{part}.csv").write_text(TEXT)
    source = source_of(tmp_path)
    (tmp_path / "c.csv").write_text(TEXT)
    with pytest.raises(UserError, match=r"c\.csv: changed while it was read"):
        list(source.batches)


def test_a_class_of_images_that_changes_while_it_is_read(tmp_path):
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "0.png")
    source = source_of(tmp_path)
    Image.new("L", (2, 2)).save(tmp_path / "a/1.png")
    with pytest.raises(UserError, match="a: changed while it was read"):
        list(source.batches)


def test_who_stops_reading_leaves_no_thread(tmp_path):
    (tmp_path / "raw.csv").write_text("a,kind\n" + "1,x\n" * 500_000)
    before = threading.active_count()
    source = source_of(tmp_path / "raw.csv")
    next(source.batches)
    source.batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "idx", "images"])
def test_no_reader_imports_what_is_slow(tmp_path, kind):
    code = """
import sys
from surefoot.data.readers.open_source import open_source
from surefoot.params.prepare_section import PrepareParams
_, kind, labels = sys.argv
source = open_source(PrepareParams(source="raw", target="kind", format=kind), "raw", labels or None)
assert sum(len(batch) for batch in source.batches) == 2
print(*sys.modules)
"""
    labels = "y" if kind == "idx" else ""
    raw = tmp_path / "raw"
    x, y = np.zeros((2, 1, 1), np.uint8), np.zeros(2, np.uint8)
    if kind == "csv":
        raw.write_text("a,d,kind\n1,2024-01-01,x\n2,,y\n")
    elif kind == "parquet":
        pq.write_table(pa.table({"a": [1, 2], "c": pa.array(["u", "v"]).dictionary_encode(), "kind": ["x", "y"]}), raw)
    elif kind == "npz":
        with raw.open("wb") as file:
            np.savez(file, x=x, y=np.array(["a", "b"]))
    elif kind == "idx":
        raw.write_bytes(b"\0\0\x08\x03" + np.array(x.shape, ">u4").tobytes() + x.tobytes())
        (tmp_path / "y").write_bytes(b"\0\0\x08\x01" + np.array(y.shape, ">u4").tobytes() + y.tobytes())
    else:
        from PIL import Image

        for name in "ab":
            (raw / name).mkdir(parents=True)
            Image.new("L", (2, 2)).save(raw / name / "0.png")
    done = subprocess.run(
        [sys.executable, "-c", code, kind, labels],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(done.stdout.split()) & {
        "torch",
        "mlflow",
        "pandas",
        "matplotlib",
        "sklearn",
        *(["PIL"] if kind != "images" else []),
    }


def test_a_part_whose_name_begins_with_an_underscore_counts(tmp_path):
    for name in ("_a.csv", "b.csv"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "_SUCCESS").touch()
    assert len(read(tmp_path)[1]) == 2
