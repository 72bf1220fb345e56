import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.data.order import RowOrder
from surefoot.training import minibatches as minibatches_module
from surefoot.training.minibatches import Rows, Stored, minibatches

SCALE = {"subtract": [100.0, 50.0], "divide": [3.0, 7.0]}


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 400), st.data())
def test_minibatches_are_the_rows_in_order(count, size, chunk_bytes, data):
    inputs, targets = torch.arange(count * 3.0).reshape(count, 3), torch.arange(count)
    order = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=90)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minibatches_module, "CHUNK_BYTES", chunk_bytes)
        found = list(minibatches(inputs, targets, order, size))
    same(found, [(inputs[places], targets[places]) for places in order.split(size)])


def test_minibatches_can_be_left_before_the_end():
    batches = minibatches(torch.zeros(100, 2), torch.zeros(100, dtype=torch.int64), torch.arange(100), 1)
    next(batches)
    batches.close()


def same(found, wanted):
    assert len(found) == len(wanted)
    for some, others in zip(found, wanted, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def mapped(directory, name, array):
    np.save(directory / f"{name}.npy", array)
    return np.load(directory / f"{name}.npy", mmap_mode="c")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


orders = st.builds(
    RowOrder,
    rows=st.integers(1, 90),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
    block=st.none() | st.integers(1, 40),
    window=st.integers(1, 5),
)


@settings(deadline=None)
@given(
    order=orders,
    size=st.integers(1, 50),
    chunk_bytes=st.integers(1, 400),
    dtype=st.sampled_from(["uint8", "float32", "int64"]),
    data=st.data(),
)
def test_rows_come_the_same_from_memory_and_from_files_larger_than_it(scratch, order, size, chunk_bytes, dtype, data):
    generator = np.random.default_rng(0)
    inputs = generator.integers(256, size=(order.rows, 2, 3)).astype(dtype)
    targets = np.arange(order.rows)
    stretch = order[data.draw(st.integers(0, order.rows)) : data.draw(st.integers(0, order.rows))]
    wanted_inputs = torch.from_numpy(inputs)
    if dtype == "uint8":
        wanted_inputs = (wanted_inputs.to(torch.float32) - torch.tensor([[100.0], [50.0]])) / torch.tensor(
            [[3.0], [7.0]]
        )
    wanted = (
        [
            (wanted_inputs[places], torch.from_numpy(targets)[places])
            for places in torch.from_numpy(stretch.indices()).split(size)
        ]
        if len(stretch)
        else []
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minibatches_module, "CHUNK_BYTES", chunk_bytes)
        for limit in (0, 1 << 20):
            patch.setattr(minibatches_module, "MAPPED_BYTES", limit)
            source = Rows.stored(mapped(scratch, "inputs", inputs), mapped(scratch, "targets", targets), SCALE)
            same(list(minibatches(source.inputs, source.targets, stretch, size)), wanted)


SCALE_OF_TARGET = {"subtract": [1.6e9], "divide": [0.01]}


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize(
    ("scale", "divide"),
    [
        (None, 1.0),
        ({"subtract": [1.0], "divide": [2.0]}, 2.0),
        ({"subtract": [1.0] * 12, "divide": list(range(1, 13))}, None),
    ],
)
def test_images_are_brought_to_scale(monkeypatch, tmp_path, limit, scale, divide):
    monkeypatch.setattr(minibatches_module, "MAPPED_BYTES", limit)
    images = np.random.default_rng(0).integers(256, size=(9, 3, 2, 2), dtype=np.uint8)
    source = Stored(mapped(tmp_path, "inputs", images), scale)
    subtract = np.float32(scale["subtract"][0] if scale else 0)
    by = np.float32(divide) if divide else np.arange(1, 13, dtype=np.float32).reshape(3, 2, 2)
    wanted = (images.astype(np.float32) - subtract) / by
    assert source[2:5].dtype == torch.float32
    assert (source[2:5].numpy() == wanted[2:5]).all()
    assert (torch.cat(list(source.split(4))).numpy() == wanted).all()
    assert (len(source), source.shape, source.row_bytes) == (9, (9, 3, 2, 2), 48)
    assert images.dtype == np.load(tmp_path / "inputs.npy").dtype  # what is on disk stays


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_numbers_to_predict_are_brought_to_scale_before_they_lose_digits(monkeypatch, tmp_path, limit):
    monkeypatch.setattr(minibatches_module, "MAPPED_BYTES", limit)
    numbers = 1.6e9 + np.random.default_rng(0).normal(size=9) / 100
    source = Rows.stored(
        mapped(tmp_path, "inputs", np.zeros((9, 2), np.float32)),
        mapped(tmp_path, "targets", numbers),
        None,
        SCALE_OF_TARGET,
    )
    wanted = ((numbers - 1.6e9) / 0.01).astype(np.float32)
    for _ in range(2):  # the file's own numbers stay
        assert source.targets[:].dtype == torch.float32
        assert (source.targets[:].numpy() == wanted).all()
    ((_, targets),) = minibatches(source.inputs, source.targets, torch.arange(9).flip(0), 9)
    assert (targets.numpy() == wanted[::-1]).all()


def test_numbers_of_tokens_stay_whole(monkeypatch, tmp_path):
    monkeypatch.setattr(minibatches_module, "MAPPED_BYTES", 0)
    source = Stored(mapped(tmp_path, "inputs", np.arange(20).reshape(5, 4) + 2**40))
    inputs, _ = next(minibatches(source, torch.arange(5), RowOrder(5, 0, 1), 5))
    assert inputs.dtype == torch.int64
    assert inputs.sort(0).values.tolist() == (np.arange(20).reshape(5, 4) + 2**40).tolist()


def test_a_window_is_read_once_however_often_it_is_gone_on_in(monkeypatch, tmp_path):
    monkeypatch.setattr(minibatches_module, "MAPPED_BYTES", 0)
    read = []
    monkeypatch.setattr(Stored, "_read", lambda self, first, into: read.append((first, len(into))))
    source = Stored(mapped(tmp_path, "inputs", np.zeros((64, 2), np.float32)))
    order = RowOrder(64, 0, 1, block=8, window=4)
    for first in range(0, 64, 6):
        list(minibatches(source, torch.zeros(64, dtype=torch.int64), order[first : first + 6], 3))
    assert sorted(read) == [(first, 8) for first in range(0, 64, 8)]


def test_a_file_that_ends_too_early_is_no_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(minibatches_module, "MAPPED_BYTES", 0)
    source = Stored(mapped(tmp_path, "inputs", np.zeros((64, 2), np.float32)))
    with (tmp_path / "inputs.npy").open("r+b") as file:
        file.truncate(300)
    with pytest.raises(EOFError):
        source[:]
