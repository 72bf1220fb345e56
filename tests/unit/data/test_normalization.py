import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data import normalization as module
from surefoot.data.normalization import ByteStatistics, Statistics, normalize, scaling
from surefoot.data.quantiles import median, numbers_at_ranks, sortable, unsortable

VALUES = st.integers(-(10**9), 10**9).map(lambda number: number / 1000)


def measure(*blocks):
    measured = Statistics(blocks[0].shape[1])
    for block in blocks:
        measured.add(block)
    return measured


def close(ours, exact):
    assert ours == pytest.approx(exact, rel=1e-12, abs=1e-300)


@given(st.lists(VALUES, min_size=1, max_size=200), st.sampled_from([0.0, 1e6, -1e9]))
def test_statistics_are_right_to_twelve_digits(values, offset):
    values = [value + offset for value in values]
    measured = measure(np.array(values)[:, None])
    assert measured.count == len(values)
    assert (measured.minimum[0], measured.maximum[0]) == (min(values), max(values))
    close(measured.deviation[0], statistics.pstdev(values))
    # A mean near 0 of values that are not is known to the digits of the values.
    assert abs(measured.mean[0] - statistics.mean(values)) <= 1e-12 * max(map(abs, values))


def test_statistics_equal_those_of_numpy():
    rows = np.random.default_rng(0).normal(5, 3, (5000, 7))
    measured = measure(*np.array_split(rows, 13))
    close(measured.mean, rows.mean(axis=0))
    close(measured.deviation, rows.std(axis=0))


@pytest.fixture(params=[16, 4096], scope="module")
def few_lanes(request):
    """Also with so few lanes that the rows go round."""
    before, module.LANES = module.LANES, request.param
    yield
    module.LANES = before


@given(st.data(), st.integers(1, 4), st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from("CF"))
def test_statistics_are_the_same_bits_for_any_size_of_blocks(few_lanes, data, columns, rows, seed, layout):
    table = np.random.default_rng(seed).normal(1e3, 1, (rows, columns)).copy(order=layout)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5)))
    whole, parts = measure(table), measure(*np.split(table, cuts))
    for name in ("mean", "deviation", "minimum", "maximum"):
        assert getattr(whole, name).tobytes() == getattr(parts, name).tobytes(), name


@given(VALUES, st.integers(1, 50))
def test_a_constant_column_has_no_deviation_and_becomes_zero(value, rows):
    table = np.full((rows, 1), value)
    measured = measure(table)
    assert measured.deviation[0] == 0
    assert (normalize(table, *scaling("standard", measured)) == 0).all()


def test_standard_brings_mean_0_and_deviation_1():
    rows = np.random.default_rng(1).uniform(-4, 90, (1000, 3))
    scaled = normalize(rows, *scaling("standard", measure(rows)))
    assert scaled.dtype == np.float32
    assert scaled.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert scaled.std(axis=0) == pytest.approx(1, abs=1e-6)


def test_none_leaves_rows_as_they_are():
    rows = np.random.default_rng(2).uniform(-4, 90, (10, 3))
    assert (normalize(rows, *scaling("none", measure(rows))) == rows.astype(np.float32)).all()


@given(st.lists(st.floats(-1e30, 1e30), max_size=60), st.integers(1, 10))
def test_the_median_is_exact(values, size):
    blocks = [np.array(values[start : start + size]) for start in range(0, len(values), size)]
    assert median(lambda: iter(blocks), len(values)) == (np.median(values) if values else 0.0)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), min_size=1, max_size=60))
def test_select_gives_a_rank_and_the_rank_among_equals(values):
    ranks = list(range(len(values)))
    image = sortable(np.array(values, np.int64))
    found = numbers_at_ranks(lambda: [image], ranks)
    ordered = sorted(image.tolist())
    assert found == [(ordered[rank], rank - ordered.index(ordered[rank])) for rank in ranks]


@given(st.lists(st.floats(allow_nan=False), min_size=2))
def test_sortable_keeps_the_order(values):
    image = sortable(np.array(values)).tolist()
    assert [unsortable(number) for number in image] == values
    for one, other, a, b in zip(values, values[1:], image, image[1:], strict=False):
        assert (a < b) == (one < other) or one == other == 0


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_statistics_of_bytes_are_exact(channels, rows, values, seed):
    table = np.random.default_rng(seed).integers(0, 256, (rows, channels, values)).astype(np.uint8)
    measured = ByteStatistics(channels)
    for part in np.array_split(table, 3):
        measured.add(part)
    flat = table.transpose(1, 0, 2).reshape(channels, -1).tolist()
    assert measured.mean == [sum(channel) / len(channel) for channel in flat]
    close(measured.deviation, [statistics.pstdev(channel) for channel in flat])


def test_statistics_of_nothing():
    measured = Statistics(2)
    assert (measured.mean.tolist(), measured.deviation.tolist()) == ([0, 0], [0, 0])
