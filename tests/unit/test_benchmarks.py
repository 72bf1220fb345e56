"""That the benchmark runs and prints a table. Nothing here looks at how long anything took."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks import day, others, pipeline
from benchmarks.report import Row, ratio_row, table
from benchmarks.scaling import scaling_table
from benchmarks.workload import LARGE, ROOT, call_worker
from tests.helpers import wait_for


def test_times_the_loops_side_by_side(tmp_path):
    workload = replace(LARGE, rows=200, shape=(4,))
    call_worker("write_data", workload, tmp_path)
    contenders = ["tutorial", "bare", "eager", "ours", "products"]
    seconds = call_worker("time_loops", workload, tmp_path, contenders=contenders, rounds=2)
    assert {name: len(some) for name, some in seconds.items()} == dict.fromkeys(contenders, 2)


@pytest.mark.parametrize(("ours", "verdict"), [([2.0, 1.0, 9.0], "reached"), ([2.2, 1.0, 9.0], "missed")])
def test_a_ratio_is_the_median_of_those_within_rounds(ours, verdict):
    row = ratio_row("ours / bare", ours, [1.0, 1.0, 1.0], at_most=2.0)
    assert row.verdict == verdict
    assert row.figure.endswith("(1.000 to 9.000)")


def test_the_table_has_a_line_for_each_row():
    lines = table([Row("a", "1 ms"), Row("ours / bare", "0.9", "at most 1", "reached")]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


TOLD = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 | encodings
import time:        10 |         10 |       numpy.core
import time:        20 |         30 |     numpy
import time:       300 |        300 |       sqlalchemy.sql
import time:      5000 |       5300 |     mlflow.store
import time:      1000 |       6330 |   mlflow
import time:         7 |       6337 | surefoot.tracking
note: a stage says this
import time:       200 |        200 | torch.optim
"""


def test_imports_count_for_the_package_that_asked_for_them():
    found = {name: round(1e6 * seconds) for name, seconds in day.import_seconds(TOLD).items()}
    assert found == {"mlflow": 6330, "surefoot": 7, "torch": 200, "others": 100}


def test_the_learning_rate_of_a_copy_is_bumped(tmp_path):
    (tmp_path / "params.yaml").write_text("train:\n  lr: 0.1  # per row\n  lr_reference_batch:\n")
    pipeline.bump_lr(tmp_path, 0.0125)
    assert (tmp_path / "params.yaml").read_text() == "train:\n  lr: 0.0125  # per row\n  lr_reference_batch:\n"


def test_processes_are_timed_beside_one(tmp_path):
    ways = "1 shard, eager", "2 shards, 2 processes"
    found = call_worker("time_processes", LARGE, tmp_path, rounds=1, ways=ways)
    assert found.keys() == set(ways)
    assert found[ways[1]]["sent"][0] <= 1.1  # of what a ring all-reduce sends


def test_what_else_runs_is_named(tmp_path):
    (tmp_path / "busy").symlink_to(Path(sys.executable).resolve())
    with subprocess.Popen([tmp_path / "busy", "-I", "-S", "-c", "while True: pass"]) as other:
        with others.watch_others() as found:
            before = psutil.Process(other.pid).cpu_times().user
            wait_for(lambda: psutil.Process(other.pid).cpu_times().user > before + 0.5, pause=0.01)
        other.kill()
    assert 0 < found.cores <= os.cpu_count()
    assert [name for name in found.names if name.startswith("busy ")] or len(found.names) == others.NAMED
    assert str(found).startswith(f"{found.cores:.2f} of {os.cpu_count()} cores busy (")


def test_the_simulation_is_that_of_its_page():
    assert "\n".join(scaling_table()) in (ROOT / "docs/scaling.md").read_text()
