import gzip
import re

import numpy as np
import pytest

from surefoot.data.readers import array_columns
from tests.unit.data.readers.reading import read, read_arrays, refusal, source_of

X = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
Y = np.arange(10, dtype=np.uint8) % 3
CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    kind = array.dtype.str[1:]
    return (
        bytes([0, 0, CODES[kind], array.ndim])
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(f">{kind}").tobytes()
    )


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(array_columns, "BATCH_BYTES", 20)


@pytest.fixture
def pair(tmp_path):
    """An IDX pair, named as MNIST's."""
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    images.write_bytes(gzip.compress(idx(X)))
    labels.write_bytes(gzip.compress(idx(Y)))
    return images, labels


def test_images_and_labels_as_mnist_ships_them(pair):
    inputs, targets = read_arrays(pair[0])
    assert inputs.dtype == np.uint8 and inputs.shape == (10, 1, 2, 3)
    assert (inputs[:, 0] == X).all() and targets == Y.tolist()
    assert source_of(pair[0]).where(9) == f"{pair[0]}: row 10"
    read(*pair)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
    ],
)
def test_labels_are_found_by_name(tmp_path, images, labels):
    (tmp_path / images).write_bytes(gzip.compress(idx(X)) if images.endswith("gz") else idx(X))
    (tmp_path / labels).write_bytes(idx(Y))
    assert read_arrays(tmp_path / images)[1] == Y.tolist()


def test_labels_that_are_not_there(pair):
    pair[1].rename(pair[1].with_name("other.idx"))
    assert (
        refusal(pair[0])
        == f"{pair[0]}: there is no file 'train-labels-idx1-ubyte.gz' of labels beside it; prepare.labels must name it"
    )
    read(pair[0], pair[1].with_name("other.idx"))
    assert refusal(pair[0], "nowhere").startswith("nowhere: there is no such file")
    missing = pair[0].with_name("no-images-idx3-ubyte")
    assert refusal(missing).startswith(f"{missing}: there is no such file")


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(10,), (10, 6), (10, 1, 2, 3)])
def test_other_types_and_shapes(tmp_path, kind, shape):
    x = X.astype(kind).reshape(shape if len(shape) > 1 else (10, 6))
    x = x[:, 0] if len(shape) == 1 else x
    (tmp_path / "x.idx").write_bytes(idx(x))
    (tmp_path / "y.idx").write_bytes(idx(Y.astype("i4")))
    inputs, targets = read_arrays(tmp_path / "x.idx", tmp_path / "y.idx")
    assert (
        inputs.shape == (*shape, *(1,) * (len(shape) == 1))
        and (inputs.reshape(x.shape) == x).all()
        and targets == Y.tolist()
    )
    assert inputs.dtype == {"u1": "u1", "f4": "f4", "f8": "f8"}.get(kind, "i8")


def test_a_pair_of_different_lengths(pair):
    pair[1].write_bytes(gzip.compress(idx(Y[:9])))
    assert refusal(pair[0]) == f"{pair[0]} has 10 rows, but {pair[1]} has 9 labels; each row needs one"


def test_images_in_place_of_labels(pair):
    assert (
        refusal(pair[0], pair[0])
        == f"{pair[0]}: holds values of shape [2, 3]; labels are single numbers (prepare.labels)"
    )


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_is_cut_short(pair, which):
    file, array = pair[which], (X, Y)[which]
    whole = gzip.compress(idx(array))
    file.write_bytes(whole[:-12])
    assert refusal(pair[0]).startswith(f"{file}: its compressed data is damaged or cut short: ")
    file.write_bytes(gzip.compress(idx(array)[:-2]))
    assert refusal(pair[0]) == f"{file}: is cut short: its header announces 10 rows of shape {list(array.shape[1:])}"
    file.write_bytes(idx(array)[:6])
    assert refusal(pair[0]) == f"{file}: is cut short in its header"
    file.write_bytes(idx(array) + b"0")
    assert refusal(pair[0]) == f"{file}: goes on after the 10 rows that its header announces"


def test_what_is_no_idx_file(pair):
    pair[0].write_text("hello")
    assert refusal(pair[0]) == f"{pair[0]}: isn't an IDX file: it begins with 68 65 6c 6c"
    pair[0].write_bytes(b"")
    assert refusal(pair[0]) == f"{pair[0]}: isn't an IDX file: it begins with nothing"


def test_no_rows(pair):
    pair[0].write_bytes(idx(X[:0]))
    pair[1].write_bytes(idx(Y[:0]))
    assert refusal(pair[0]) == f"{pair[0]}: is empty: its shape is [0, 2, 3]"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (8, [1] * 200),
        (8, [1] * 255),
        (0x0E, [1, 46_000, 46_000]),
        (8, [1, 4_000_000_000, 4_000_000_000]),
        (0x0E, [1, 2**31 - 1]),
        (8, [4_000_000_000, 28, 28]),
    ],
)
def test_a_header_that_announces_too_much(tmp_path, kind, sizes, compressed):
    header = bytes([0, 0, kind, len(sizes)]) + np.array(sizes, ">u4").tobytes()
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(header + bytes(5000)) if compressed else header + bytes(5000))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(
        b"\0\0\x08\x01" + np.array(sizes[:1], ">u4").tobytes() + bytes(min(sizes[0], 1000))
    )
    assert re.search("is cut short|axes, which is too many|values, which is too many", refusal(path))


def test_a_gzip_bomb_that_is_cut(tmp_path):
    whole = gzip.compress(b"\0\0\x08\x03" + np.array([10, 4000, 4000], ">u4").tobytes() + bytes(10 * 4000 * 4000))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(10, dtype=np.uint8)))
    assert "is damaged or cut short" in refusal(tmp_path / "train-images-idx3-ubyte.gz")


def test_a_file_in_proc(tmp_path):
    (tmp_path / "images.idx").symlink_to("/proc/self/status")
    assert "it doesn't hold as many bytes as the system says" in refusal(
        tmp_path / "images.idx", tmp_path / "images.idx"
    )
