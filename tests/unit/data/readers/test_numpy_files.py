import zipfile

import numpy as np
import pytest

from surefoot.data.readers import array_columns
from tests.unit.data.readers.reading import read, read_arrays, refusal, source_of

X = np.arange(120).reshape(10, 3, 4)
Y = np.arange(10) % 3


@pytest.fixture
def file(tmp_path):
    return tmp_path / "raw.npz"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(array_columns, "BATCH_BYTES", 100)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("kind", "becomes"),
    [
        ("u1", "u1"),
        ("?", "u1"),
        ("i1", "i8"),
        (">i4", "i8"),
        ("i8", "i8"),
        ("u4", "i8"),
        ("f2", "f4"),
        (">f4", "f4"),
        ("f4", "f4"),
        ("f8", "f8"),
    ],
)
def test_arrays_come_back_in_any_type_and_order(file, save, order, kind, becomes):
    x = np.asarray(X, dtype=kind, order=order)
    save(file, x=x, y=Y)
    inputs, targets = read_arrays(file)
    assert inputs.dtype == becomes and inputs.shape == X.shape
    assert (inputs == x).all() and targets == Y.tolist()
    assert len(list(source_of(file).batches)) > 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_with_targets_beside(tmp_path, order):
    np.save(tmp_path / "x.npy", np.asfortranarray(X / 2) if order == "F" else X / 2)
    np.save(tmp_path / "y.npy", Y)
    inputs, targets = read_arrays(tmp_path / "x.npy", tmp_path / "y.npy")
    assert (inputs == X / 2).all() and targets == Y.tolist()
    read(tmp_path / "x.npy", tmp_path / "y.npy")


def test_targets_of_other_kinds_and_names(file):
    np.savez(file, images=X, classes=np.array(["é", "bb", ""] * 3 + ["z"]))
    assert read_arrays(file, arrays={"inputs": "images", "targets": "classes"})[1] == [*["é", "bb", ""] * 3, "z"]
    np.savez(file, x=X[:, 0, 0], y=Y[:, None] / 2)
    inputs, targets = read_arrays(file)
    assert inputs.shape == (10, 1) and targets == (Y / 2).tolist()


def test_rows_are_named(file):
    np.savez(file, x=X, y=Y)
    assert source_of(file).where(3) == f"{file}: row 4"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, ": has no array 'y', it has x; prepare.arrays names those that count"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y},
            (
                ": has no array 'x', it has x_train, y_train, x_test, y_test; prepare.arrays names those that count: "
                "{{inputs: x_train, targets: y_train, test_inputs: x_test, test_targets: y_test}}"
            ),
        ),
        (
            {"Data": X, "target": Y},
            (
                ": has no array 'x', it has Data, target; prepare.arrays names those that count: {{inputs: Data,"
                " targets: target}}"
            ),
        ),
        (
            {"x": X, "y": np.eye(10)},
            (
                ": array 'x' has 10 rows, but {file}: array 'y' is of shape (10, 10); it must be (10,); of one-hot"
                " targets save y.argmax(1)"
            ),
        ),
        ({"x": X, "y": Y[:9]}, ": array 'x' has 10 rows, but {file}: array 'y' is of shape (9,); it must be (10,)"),
        ({"x": X, "y": X}, ": array 'x' has 10 rows, but {file}: array 'y' is of shape (10, 3, 4); it must be (10,)"),
        (
            {"x": X * 1j, "y": Y},
            (
                ": array 'x': holds complex128 values; inputs must be numbers of 64 bits at most: save its parts,"
                " `np.stack([x.real, x.imag], -1)`"
            ),
        ),
        (
            {"x": X.astype("U3"), "y": Y},
            ": array 'x': holds <U3 values; inputs must be numbers of 64 bits at most: save x.astype('float32')",
        ),
        (
            {"x": X, "y": Y * 1j},
            (
                ": array 'y': holds complex128 values; targets must be numbers or texts: save its parts,"
                " `np.stack([y.real, y.imag], -1)`"
            ),
        ),
        ({"x": np.float64(1), "y": Y}, ": array 'x': is a single value; its first axis must be the rows"),
        ({"x": X[:0], "y": Y[:0]}, ": array 'x': is empty: its shape is (0, 3, 4)"),
    ],
)
def test_arrays_that_do_not_fit(file, arrays, message):
    np.savez(file, **arrays)
    assert refusal(file) == f"{file}{message.format(file=file)}"


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_pickled_objects_are_refused_and_not_loaded(file, tmp_path):
    told = (
        "holds pickled Python objects, which can run any code when loaded; "
        "save an array of numbers, of texts as `y.astype(str)`, or of lists of one length as `np.stack(x)`"
    )
    bombs = np.array([Bomb()] * 10, dtype=object)
    np.savez(file, x=bombs, y=Y)
    assert refusal(file) == f"{file}: array 'x': {told}"
    np.savez(file, x=X, y=bombs)
    assert refusal(file) == f"{file}: array 'y': {told}"
    np.save(tmp_path / "x.npy", bombs)
    np.save(tmp_path / "y.npy", Y)
    assert refusal(tmp_path / "x.npy", tmp_path / "y.npy") == f"{tmp_path / 'x.npy'}: {told}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_an_npz_file_that_is_cut_short(file, save, part):
    save(file, x=np.random.default_rng(0).random((1000, 3)), y=np.arange(1000))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    assert refusal(file) == f"{file}: is cut short or damaged: an NPZ file has its list of arrays at the end"


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_file_that_is_damaged_within(file, order):
    np.savez(file, x=np.asarray(np.random.default_rng(0).random((1000, 3)), order=order), y=np.arange(1000))
    data = bytearray(file.read_bytes())
    data[5000] ^= 255
    file.write_bytes(data)
    assert refusal(file).startswith(f"{file}: array 'x': is cut short or damaged: Bad CRC-32")


def test_an_array_shorter_than_its_header_says(file, tmp_path):
    np.savez(file, x=X, y=Y)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data[:-8])
    assert refusal(file) == f"{file}: array 'x': is cut short: it should hold (10, 3, 4) int64 values"
    for order in "CF":
        np.save(tmp_path / "x.npy", np.asarray(X, order=order))
        np.save(tmp_path / "y.npy", Y)
        (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
        assert (
            refusal(tmp_path / "x.npy", tmp_path / "y.npy")
            == f"{tmp_path / 'x.npy'}: is cut short: it should hold (10, 3, 4) int64 values"
        )


def test_what_is_no_array(file, tmp_path):
    file.write_text("hello")
    assert refusal(file).startswith(f"{file}: isn't an array as NumPy saves it, or is cut short: ")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "hello")
    assert refusal(file).startswith(f"{file}: array 'x': isn't an array as NumPy saves it, or is cut short: ")


def test_npy_without_targets(tmp_path):
    np.save(tmp_path / "x.npy", X)
    assert (
        refusal(tmp_path / "x.npy")
        == f"{tmp_path / 'x.npy'}: holds the inputs alone; prepare.labels must name the NPY file of the targets"
    )


@pytest.mark.parametrize(
    "shape", ["(10, -1)", "(-10, 4)", "(10, True)", str((10,) + (1,) * 50), "(10, 4000000000, 4000000000)"]
)
def test_a_header_of_an_odd_shape(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(1013) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(80))
    np.save(tmp_path / "y.npy", np.arange(10))
    assert "x.npy: " in refusal(tmp_path / "x.npy", tmp_path / "y.npy") or "a row has 50 axes" in refusal(
        tmp_path / "x.npy", tmp_path / "y.npy"
    )


@pytest.mark.parametrize(
    ("inputs", "way_out"),
    [
        (np.zeros((10, 2), complex), "np.stack([x.real, x.imag], -1)"),
        (np.zeros((10, 2), "M8[s]"), "x.astype('int64')"),
        (np.full((10, 2), "1"), "x.astype('float32')"),
    ],
)
def test_a_type_that_is_not_taken_comes_with_the_way_out(tmp_path, inputs, way_out):
    np.savez(tmp_path / "data.npz", x=inputs, y=np.arange(10))
    assert way_out in refusal(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", x=np.zeros((10, 2)), y=np.full(10, b"a"))
    assert "save y.astype('str')" in refusal(tmp_path / "data.npz")
