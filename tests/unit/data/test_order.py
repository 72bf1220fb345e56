import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data import order
from surefoot.data.order import RowOrder

SEEDS, EPOCHS = st.integers(0, 2**63 - 1), st.integers(0, 10**6)
BLOCKS = {"block": st.none() | st.integers(1, 500), "window": st.integers(1, 20)}


@pytest.fixture(params=[order.HELD_ROWS, 16], ids=["held", "computed"])
def held(request, monkeypatch):
    """As if there were more rows than are held in memory, too."""
    monkeypatch.setattr(order, "HELD_ROWS", request.param)
    monkeypatch.setattr(order, "CHUNK_ROWS", 100)


@pytest.mark.usefixtures("held")
class TestOrder:
    @given(st.builds(RowOrder, rows=st.integers(0, 800), seed=SEEDS, epoch=EPOCHS, **BLOCKS))
    def test_an_order_is_a_permutation_and_a_pure_function(self, some):
        indices = some.indices()
        assert indices.dtype == np.int64
        assert len(some) == some.rows
        assert (np.sort(indices) == np.arange(some.rows)).all()
        np.random.default_rng().random()  # another stream has no part in it
        assert (some.indices() == indices).all()

    @given(st.builds(RowOrder, rows=st.integers(1, 1000), seed=SEEDS, epoch=EPOCHS, **BLOCKS), st.data())
    def test_a_stretch_of_an_order_is_had_by_itself(self, some, data):
        first, end = data.draw(st.integers(0, some.rows)), data.draw(st.integers(0, some.rows + 10))
        assert (some[first:end].indices() == some.indices()[first:end]).all()
        assert len(some[first:end]) == len(range(some.rows)[first:end])
        part = data.draw(st.integers(0, 50))
        assert (some[first:][:part].indices() == some.indices()[first:][:part]).all()

    @given(st.integers(1, 2000), SEEDS, EPOCHS, st.integers(1, 300), st.integers(1, 8))
    def test_a_window_reads_whole_blocks_and_uses_each_row_once(self, rows, seed, epoch, block, window):
        windows = list(RowOrder(rows, seed, epoch, block, window).windows())
        blocks = [one for some in windows for one in some.blocks]
        assert sorted(blocks) == [(first, min(first + block, rows)) for first in range(0, rows, block)]
        assert [len(some.blocks) for some in windows[:-1]] == [window] * (len(windows) - 1)
        for some, after in zip(windows, [*windows[1:], None], strict=True):
            assert sorted(some.places) == list(range(sum(end - first for first, end in some.blocks)))
            assert some.ahead == (after.blocks if after else ())

    @pytest.mark.parametrize("block", [None, 4])
    def test_epochs_and_seeds_differ(self, block):
        orders = {
            tuple(RowOrder(20, seed, epoch, block, 2).indices().tolist()) for seed in range(10) for epoch in range(10)
        }
        assert len(orders) == 100

    @pytest.mark.parametrize("blocks", [(), (8, 2)])
    def test_each_row_comes_about_as_often_at_each_place(self, blocks):
        rows, epochs = 40, 4000
        where = np.array([RowOrder(rows, 1, epoch, *blocks).indices() for epoch in range(epochs)])
        counts = np.stack([np.bincount(where[:, place], minlength=rows) for place in range(rows)])
        # Sums of squares of (counted - expected) / sqrt(expected), whose mean is (rows - 1) ** 2 if they are even.
        assert ((counts - epochs / rows) ** 2).sum() / (epochs / rows) < 1.25 * (rows - 1) ** 2


def test_a_stretch_has_no_step():
    with pytest.raises(ValueError, match="no step"):
        RowOrder(10, 0, 1)[::2]


def test_the_order_is_the_same_as_ever():
    assert RowOrder(10, 0, 1).indices().tolist() == [9, 1, 3, 8, 7, 6, 0, 4, 2, 5]
    assert (RowOrder(5000, 7, 3).indices() == np.random.default_rng([7, 3]).permutation(5000)).all()
    # What others have trained by these must not move.
    assert RowOrder(10, 0, 1, block=3, window=2).indices().tolist() == [6, 2, 1, 7, 0, 8, 3, 9, 5, 4]
    assert order._walk(np.arange(10, dtype=np.uint64), 10, (0, 1)).tolist() == [6, 0, 7, 5, 3, 9, 1, 4, 2, 8]


@pytest.mark.parametrize("rows", [order.HELD_ROWS + 1, 5_000_000_000])
def test_a_stretch_of_many_rows_takes_no_memory_for_the_others(rows):
    some = RowOrder(rows, 3, 1)[rows // 2 : rows // 2 + 200_000]
    found = some.indices()
    assert len(np.unique(found)) == 200_000
    assert 0 <= found.min() < rows / 1000
    assert rows * 0.999 < found.max() < rows
    near = np.histogram(found, bins=100, range=(0, rows))[0]
    assert ((near - 2000) ** 2).sum() / 2000 < 160  # of 99 expected, with a deviation of 14


def test_blocks_of_many_rows_too():
    some = RowOrder(5_000_000_001, 3, 1, block=1000, window=8)
    window = next(some[3_000_000_500:].windows())
    assert len(window.blocks) == 8
    assert 0 < len(window.places) <= 8000


def test_blocks_and_windows_beyond_64_bits():
    assert sorted(RowOrder(10, 0, 1, block=10**30, window=10**30).indices().tolist()) == list(range(10))
