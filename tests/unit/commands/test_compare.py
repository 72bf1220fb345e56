"""`surefoot compare`, and how runs are found, on runs that a Tracker has written."""

from functools import partial

import pytest

from surefoot.tracking import find_runs
from tests.helpers import call_surefoot
from tests.unit.commands.recorded_runs import write_run


@pytest.fixture
def surefoot(monkeypatch, capfd):
    return partial(call_surefoot, monkeypatch, capfd)


def test_runs_are_compared(tracked, surefoot):
    slow, fast = write_run(tracked, "slow", 0.01, 0.9), write_run(tracked, "fast", 0.1, 0.95)
    code, out, err = surefoot("compare", "slow", fast[:8])
    assert (code, err) == (0, "")
    rows = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["run"] == ["slow", "fast"]
    assert rows["id"] == [slow[:8], fast[:8]]
    assert rows["train.lr"] == ["0.01", "0.1"]
    assert "batch.size" not in rows, "it is the same"
    assert "train.save_every" not in rows, "it changes no result"
    assert "0.9 [0.87, 0.92]" in out
    assert "0.95 [0.92, 0.97]" in out
    assert "test_interval/accuracy_low" not in rows
    assert out.count("0.25") == 2
    assert "0.01 (epoch 2)" in out, "the least validation loss"
    assert "0.8 (epoch 3)" in out, "the greatest accuracy"
    assert rows["epochs"] == ["3", "3"]
    picture = tracked / ".surefoot/compare.png"
    assert "\ncurves: .surefoot/compare.png\n" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_many_runs_take_several_blocks(tracked, surefoot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    ids = [write_run(tracked, f"run {number}", number / 100, 0.9) for number in range(1, 6)]
    code, out, _ = surefoot("compare", *ids, "--out", str(tracked / "deep/er.png"))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 60
    assert sum(line.startswith("train.lr") for line in out.splitlines()) > 1
    assert (tracked / "deep/er.png").is_file()


def test_a_run_that_has_no_metric_yet(tracked, surefoot):
    write_run(tracked, "one", 0.1, epochs=0)
    write_run(tracked, "two", 0.2, epochs=0)
    assert surefoot("compare", "one", "two") == (
        2,
        "",
        "error: none of these runs has a metric yet: wait until an epoch is trained\n",
    )


def test_a_run_without_an_epoch_beside_one_that_has(tracked, surefoot):
    write_run(tracked, "one", 0.1, epochs=0)
    write_run(tracked, "two", 0.2)
    code, out, err = surefoot("compare", "one", "two")
    assert (code, err) == (0, "")
    assert "epochs" in out


def test_runs_that_are_not_there(tracked, surefoot):
    write_run(tracked, "one", 0.1)
    for unknown in ("nothing", "abcdef", "0" * 32, "'\""):
        code, out, err = surefoot("compare", "one", unknown)
        assert (code, out) == (2, "")
        assert err == f"error: there is no run {unknown!r} in MLflow; give a run's id or name, or a DVC experiment's\n"


def test_a_name_of_two_runs(tracked, surefoot):
    ids = {write_run(tracked, "same", 0.1), write_run(tracked, "same", 0.2)}
    write_run(tracked, "other", 0.3)
    code, _, err = surefoot("compare", "other", "same")
    assert code == 2
    assert err.startswith("error: 2 runs are called 'same'; give the id of one: ")
    assert all(run_id in err for run_id in ids)


def test_a_start_of_two_ids(monkeypatch):
    """Two real ids seldom start alike."""

    class Run:
        def __init__(self, run_id):
            self.info = type("Info", (), {"run_id": run_id, "run_name": "a name"})
            self.data = type("Data", (), {"tags": {}})

    monkeypatch.setattr(
        find_runs, "search_runs", lambda _, filtered: [Run("abcd1"), Run("abcd2")] if "LIKE 'abcd%'" in filtered else []
    )
    with pytest.raises(
        find_runs.UserError, match=r"^2 runs have an id that starts with 'abcd'; give the id of one: abcd1, abcd2$"
    ):
        find_runs.find_run(None, "abcd")


def test_the_same_run_twice(tracked, surefoot):
    run_id = write_run(tracked, "one", 0.1)
    assert surefoot("compare", "one", run_id) == (
        2,
        "",
        f"error: {run_id!r} is a run that was named before: one ({run_id}); give different ones\n",
    )


def test_a_dvc_experiment_is_found_by_its_name(tracked, surefoot):
    write_run(tracked, "one", 0.1)
    write_run(tracked, "two", 0.2, DVC_EXP_NAME="puffy-oats")
    assert surefoot("compare", "one", "puffy-oats")[0] == 0


def test_one_run_is_too_few(tracked, surefoot):
    code, _, err = surefoot("compare", "one")
    assert code == 2
    assert err.startswith("error: compare takes two runs or more")


def test_without_a_store(here, surefoot):
    code, _, err = surefoot("compare", "one", "two")
    assert code == 2
    assert err.startswith("error: there is no run yet: ")
    assert here.files() == {"params.yaml"}


def test_a_picture_that_can_not_be_written(tracked, surefoot):
    write_run(tracked, "one", 0.1)
    write_run(tracked, "two", 0.2)
    code, out, err = surefoot("compare", "one", "two", "--out", str(tracked / "params.yaml/picture.png"))
    assert (code, out) == (2, "")
    assert "can't be written" in err
