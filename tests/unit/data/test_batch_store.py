import json
import os
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.base import digests, writing
from surefoot.base.errors import UserError
from surefoot.data import batch_writer
from surefoot.data.batch_index import Preparation, write_index
from surefoot.data.batch_store import open_store
from surefoot.data.batch_writer import write_split
from surefoot.data.order import RowOrder
from surefoot.data.splits import SPLITS

CLASSES = ["x", "y", "z"]


def make(
    out,
    rows=(11, 4, 3),
    shape=(2, 3),
    size=4,
    drop_last=False,
    block=3,
    dtype="float32",
    targets_dtype="int64",
    **index,
):
    """A store whose every value is different: (inputs, targets) of each split, in file order."""
    source, splits = {}, {}
    for number, (split, count) in enumerate(zip(SPLITS, rows, strict=True)):
        inputs = (1000 * number + np.arange(count * np.prod(shape))).reshape(count, -1).astype(dtype)
        targets = (np.arange(count) % len(CLASSES)).astype(targets_dtype)
        source[split] = inputs, targets
        blocks = ((inputs[start : start + block], targets[start : start + block]) for start in range(0, count, block))
        places = RowOrder(count, 0, 0) if split == "train" else None
        splits[split] = write_split(
            out / split, blocks, count, shape, places, classes=len(CLASSES), dtype=dtype, targets_dtype=targets_dtype
        )
    write_index(
        out,
        splits,
        batch_size=size,
        drop_last=drop_last,
        shape=shape,
        classes=CLASSES,
        preparation=Preparation(source="raw.csv"),
        **index,
    )
    return source


@settings(max_examples=30)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.integers(1, 20),
    st.integers(1, 45),
    st.booleans(),
    st.integers(1, 2000),
    st.sampled_from(["float32", "int64", "uint8"]),
    st.sampled_from(["float32", "int64"]),
)
def test_every_row_is_there_once(tmp_path_factory, rows, block, size, drop_last, bucket_bytes, dtype, targets_dtype):
    out = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_writer, "BUCKET_BYTES", bucket_bytes)
        source = make(out, rows, block=block, size=size, drop_last=drop_last, dtype=dtype, targets_dtype=targets_dtype)
    store = open_store(out)
    for split in SPLITS:
        inputs, targets = source[split]
        found = getattr(store, split)
        places = RowOrder(len(targets), 0, 0).indices() if split == "train" else np.arange(len(targets))
        assert (found.inputs[places].reshape(len(targets), -1) == inputs).all()
        assert (found.targets[places] == targets).all()
        for name, array in (("inputs", found.inputs), ("targets", found.targets)):
            described = getattr(store.index.splits[split], name)
            assert described.dtype == array.dtype.name == (dtype if name == "inputs" else targets_dtype)
            assert described.sha256 == digests.sha256_file(out / split / f"{name}.npy")
    batches = rows[0] // size if drop_last else -(-rows[0] // size)
    assert store.index.batches_per_epoch == batches
    assert store.rows_per_epoch == (batches * size if drop_last else rows[0])


@pytest.mark.parametrize(
    "damage", [lambda index: {}, lambda index: index | {"batch_size": 8}, lambda index: {"digest": 1}]
)
def test_an_index_that_is_not_as_it_was_written(tmp_path, damage):
    make(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match="is damaged; remove it, and `dvc repro batch` makes it again"):
        open_store(tmp_path)


def test_the_index_says_what_is_there(tmp_path):
    make(tmp_path)
    store = open_store(tmp_path)
    index = store.index
    assert (index.batch_size, index.drop_last, index.batches_per_epoch) == (4, False, 3)
    assert (store.batch_size, store.input_shape, store.classes) == (4, (2, 3), CLASSES)
    assert (index.task, index.outputs, index.dtype) == ("classification", 3, "float32")
    assert (index.scale, index.target_scale, index.features, index.parts) == (None, None, [], [])
    assert (index.shuffle, index.block, index.window) == ("full", None, None)
    assert index.preparation.plain() == {"source": "raw.csv"}
    for split, rows in zip(SPLITS, (11, 4, 3), strict=True):
        described = index.splits[split]
        assert described.rows == rows
        assert sum(described.class_counts) == rows
        assert len(described.class_counts) == len(CLASSES)
        for name, dtype, shape in (("inputs", "float32", [rows, 2, 3]), ("targets", "int64", [rows])):
            file = getattr(described, name)
            assert (file.dtype, file.shape) == (dtype, shape)
            assert file.sha256 == digests.sha256_file(tmp_path / split / f"{name}.npy")
            array = getattr(getattr(store, split), name)
            assert (array.dtype.name, list(array.shape)) == (dtype, shape)
            assert isinstance(array, np.memmap)


def test_the_digest_covers_the_whole_index(tmp_path):
    make(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    digest = index.pop("digest")
    assert digest == digests.sha256(digests.canonical_json(index))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": (12, 4, 3)},
        {"size": 5},
        {"drop_last": True},
        {"shape": (6,)},
        {"blocks": (4, 2)},
        {"task": "regression"},
    ],
)
def test_another_store_has_another_digest(tmp_path, change):
    digests = []
    for name, options in (("one", {}), ("two", change)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, **options)
        digests.append(open_store(tmp_path / name).index.digest)
    assert digests[0] != digests[1]


def test_the_same_rows_give_the_same_bytes_in_any_blocks(tmp_path, monkeypatch):
    for block in (1, 5, 100):
        (tmp_path / str(block)).mkdir()
        monkeypatch.setattr(batch_writer, "BUCKET_BYTES", block * 30)
        make(tmp_path / str(block), block=block)
    written = {
        str(file.relative_to(tmp_path / "1")): file.read_bytes()
        for file in (tmp_path / "1").rglob("*")
        if file.is_file()
    }
    assert len(written) == 7
    for block in ("5", "100"):
        assert {name: (tmp_path / block / name).read_bytes() for name in written} == written


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_the_store_knows_the_order_of_an_epoch(tmp_path, shuffle):
    make(tmp_path, drop_last=True, **({"blocks": (2, 3)} if shuffle == "blocks" else {}))
    store = open_store(tmp_path)
    wanted = (RowOrder(11, 5, 2, 2, 3) if shuffle == "blocks" else RowOrder(11, 5, 2)).indices()
    assert store.order(5, 2).indices().tolist() == wanted.tolist()[:8]


def test_what_is_written_is_as_numpy_writes_it(tmp_path):
    source = make(tmp_path)
    np.save(tmp_path / "wanted.npy", source["test"][0].reshape(-1, 2, 3))
    assert (tmp_path / "test/inputs.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


def test_progress_is_told_of_each_row_in_each_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_writer, "BUCKET_BYTES", 100)
    blocks = [(np.zeros((7, 2), np.float32), np.zeros(7, np.int64))] * 3
    for name, places, wanted in (("shuffled", RowOrder(21, 0, 0), 42), ("in file order", None, 21)):
        told = []
        write_split(tmp_path / name, iter(blocks), 21, (2,), places, classes=2, tick=told.append)
        assert sum(told) == wanted


def test_nothing_but_the_arrays_is_left(tmp_path):
    make(tmp_path)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["inputs.npy", "targets.npy"]


class TestNoSpaceLeft:
    @pytest.fixture(autouse=True)
    def limit(self):
        """A file may have 100 kB: what the system says then is what it says of a full disk, but for the words."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.mark.parametrize("reserves", [True, False])
    def test_says_so_and_leaves_what_was_there(self, tmp_path, monkeypatch, reserves):
        if not reserves:
            monkeypatch.delattr(os, "posix_fallocate")
        (tmp_path / "batches").mkdir()
        (tmp_path / "batches/index.json").write_text("{}")
        read = []

        def blocks():
            for number in range(20):
                read.append(number)
                yield np.zeros((1000, 4), np.float32), np.zeros(1000, np.int64)

        wanted = (
            rf"^{tmp_path}/batches can't be written: the limit on the size of a file is reached: `ulimit -f` is 97;"
            r" raise it\nwhat was stored before is whole$"
        )
        with pytest.raises(UserError, match=wanted), writing.new_directory(tmp_path / "batches") as out:
            write_split(out / "train", blocks(), 20_000, (4,), RowOrder(20_000, 0, 0))
        assert [path.name for path in tmp_path.iterdir()] == ["batches"]
        assert (tmp_path / "batches/index.json").read_text() == "{}"
        # Where space can be reserved, that is known before the first row is read.
        assert bool(read) is not reserves
