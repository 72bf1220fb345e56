"""That the benchmark runs and prints a table. Nothing here looks at how long anything took."""

from dataclasses import replace

import pytest

from benchmarks.__main__ import LARGE, Row, ratio_row, table
from benchmarks.workload import call_worker


def test_times_the_loops_side_by_side(tmp_path):
    workload = replace(LARGE, rows=200, shape=(4,))
    call_worker("write_data", workload, tmp_path)
    seconds = call_worker("time_loops", workload, tmp_path, contenders=["tutorial", "bare", "ours"], rounds=2)
    assert {name: len(some) for name, some in seconds.items()} == {"tutorial": 2, "bare": 2, "ours": 2}


@pytest.mark.parametrize(("ours", "verdict"), [([2.0, 1.0, 9.0], "reached"), ([2.2, 1.0, 9.0], "missed")])
def test_a_ratio_is_the_median_of_those_within_rounds(ours, verdict):
    row = ratio_row("ours / bare", ours, [1.0, 1.0, 1.0], at_most=2.0)
    assert row.verdict == verdict
    assert row.figure.endswith("(1.000 to 9.000)")


def test_the_table_has_a_line_for_each_row():
    lines = table([Row("a", "1 ms"), Row("ours / bare", "0.9", "at most 1", "reached")]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
