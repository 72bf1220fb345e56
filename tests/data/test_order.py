import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data.order import epoch_order


@given(st.integers(0, 3000), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_an_order_is_a_permutation_and_a_pure_function(rows, seed, epoch):
    order = epoch_order(rows, seed, epoch)
    assert order.dtype == np.int64
    assert (np.sort(order) == np.arange(rows)).all()
    np.random.default_rng().random()  # another stream has no part in it
    assert (epoch_order(rows, seed, epoch) == order).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(20, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_the_order_is_the_same_as_ever():
    assert epoch_order(10, 0, 1).tolist() == [9, 1, 3, 8, 7, 6, 0, 4, 2, 5]
