import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot import files
from surefoot.data.order import epoch_order
from surefoot.data.split import SPLITS
from surefoot.data.store import open_store, write_index, write_split

CLASSES = ["x", "y", "z"]


def make(out, rows=(11, 4, 3), shape=(2, 3), size=4, drop_last=False, block=3):
    """A store whose every value is different: (inputs, targets) of each split, in file order."""
    source = {}
    for number, (split, count) in enumerate(zip(SPLITS, rows, strict=True)):
        inputs = (1000 * number + np.arange(count * np.prod(shape))).reshape(count, -1).astype(np.float32)
        targets = np.arange(count) % len(CLASSES)
        source[split] = inputs, targets
        blocks = ((inputs[start : start + block], targets[start : start + block]) for start in range(0, count, block))
        write_split(out / split, blocks, count, shape, epoch_order(count, 0, 0) if split == "train" else None)
    write_index(out, batch_size=size, drop_last=drop_last, shape=shape, classes=CLASSES, preparation={"source": "raw.csv"})
    return source


@settings(max_examples=30)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 20), st.integers(1, 45), st.booleans())
def test_every_row_is_there_once(tmp_path_factory, rows, block, size, drop_last):
    out = tmp_path_factory.mktemp("store")
    source = make(out, rows, block=block, size=size, drop_last=drop_last)
    store = open_store(out)
    for split in SPLITS:
        inputs, targets = source[split]
        found = getattr(store, split)
        places = epoch_order(len(targets), 0, 0) if split == "train" else np.arange(len(targets))
        assert (found.inputs[places].reshape(len(targets), -1) == inputs).all()
        assert (found.targets[places] == targets).all()
    batches = rows[0] // size if drop_last else -(-rows[0] // size)
    assert store.index["batches_per_epoch"] == batches
    assert store.rows_per_epoch == (batches * size if drop_last else rows[0])


def test_the_index_says_what_is_there(tmp_path):
    make(tmp_path)
    store = open_store(tmp_path)
    index = store.index
    assert (index["batch_size"], index["drop_last"], index["batches_per_epoch"]) == (4, False, 3)
    assert (store.batch_size, store.input_shape, store.classes) == (4, (2, 3), CLASSES)
    assert index["preparation"] == {"source": "raw.csv"}
    for split, rows in zip(SPLITS, (11, 4, 3), strict=True):
        described = index["splits"][split]
        assert described["rows"] == rows
        assert sum(described["class_counts"]) == rows
        assert len(described["class_counts"]) == len(CLASSES)
        for name, dtype, shape in (("inputs", "float32", [rows, 2, 3]), ("targets", "int64", [rows])):
            assert (described[name]["dtype"], described[name]["shape"]) == (dtype, shape)
            assert described[name]["sha256"] == files.sha256_file(tmp_path / split / f"{name}.npy")
            array = getattr(getattr(store, split), name)
            assert (array.dtype.name, list(array.shape)) == (dtype, shape)
            assert isinstance(array, np.memmap)


def test_the_digest_covers_the_whole_index(tmp_path):
    make(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    digest = index.pop("digest")
    assert digest == files.sha256(files.canonical_json(index))


@pytest.mark.parametrize("change", [{"rows": (12, 4, 3)}, {"size": 5}, {"drop_last": True}, {"shape": (6,)}])
def test_another_store_has_another_digest(tmp_path, change):
    digests = []
    for name, options in (("one", {}), ("two", change)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, **options)
        digests.append(open_store(tmp_path / name).index["digest"])
    assert digests[0] != digests[1]


def test_the_same_rows_give_the_same_bytes_in_any_blocks(tmp_path):
    for block in (1, 5, 100):
        (tmp_path / str(block)).mkdir()
        make(tmp_path / str(block), block=block)
    written = {str(file.relative_to(tmp_path / "1")): file.read_bytes() for file in (tmp_path / "1").rglob("*") if file.is_file()}
    assert len(written) == 7
    for block in ("5", "100"):
        assert {name: (tmp_path / block / name).read_bytes() for name in written} == written
