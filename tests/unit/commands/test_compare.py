"""`surefoot compare`, `surefoot ui`'s page, and how runs are found, on runs that a Tracker has written."""

import base64
import json
import sys
import urllib.parse
import zlib
from importlib.metadata import version

import pytest

from surefoot import cli
from surefoot.base import locks
from surefoot.commands import ui, ui_page_state
from surefoot.tracking import find_runs
from surefoot.tracking.tracker import Point, Tracker
from tests.helpers import description


@pytest.fixture
def surefoot(monkeypatch, capfd):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["surefoot", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


def write(here, name, lr, accuracy=None, epochs=3, **tags):
    """A run as a training leaves it; its id."""
    params = {"train.lr": lr, "batch.size": 4, "train.save_every": int(lr * 100)}
    tracker = Tracker(
        f"{name} {lr} {accuracy}",
        description(name, params, tags),
        locks.Locks(here / "lock"),
    )
    tracker.open("RUNNING")
    for epoch in range(1, epochs + 1):
        values = {
            "train/loss": 1 / epoch,
            "validation/loss": abs(epoch - 2) + lr,
            "validation/accuracy": 0.5 + epoch / 10,
            "lr": lr,
        }
        tracker.add(Point(key, value, epoch, 1_700_000_000.0 + epoch) for key, value in values.items())
    if accuracy:
        tracker.results(
            {
                "test/accuracy": accuracy,
                "test_interval/accuracy_low": accuracy - 0.03,
                "test_interval/accuracy_high": accuracy + 0.02,
                "test/loss": 0.25,
            }
        )
    tracker.end("FINISHED")
    return tracker.run_id


def test_runs_are_compared(tracked, surefoot):
    slow, fast = write(tracked, "slow", 0.01, 0.9), write(tracked, "fast", 0.1, 0.95)
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
    ids = [write(tracked, f"run {number}", number / 100, 0.9) for number in range(1, 6)]
    code, out, _ = surefoot("compare", *ids, "--out", str(tracked / "deep/er.png"))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 60
    assert sum(line.startswith("train.lr") for line in out.splitlines()) > 1
    assert (tracked / "deep/er.png").is_file()


def test_a_run_that_has_no_metric_yet(tracked, surefoot):
    write(tracked, "one", 0.1, epochs=0)
    write(tracked, "two", 0.2, epochs=0)
    assert surefoot("compare", "one", "two") == (
        2,
        "",
        "error: none of these runs has a metric yet: wait until an epoch is trained\n",
    )


def test_a_run_without_an_epoch_beside_one_that_has(tracked, surefoot):
    write(tracked, "one", 0.1, epochs=0)
    write(tracked, "two", 0.2)
    code, out, err = surefoot("compare", "one", "two")
    assert (code, err) == (0, "")
    assert "epochs" in out


def test_runs_that_are_not_there(tracked, surefoot):
    write(tracked, "one", 0.1)
    for unknown in ("nothing", "abcdef", "0" * 32, "'\""):
        code, out, err = surefoot("compare", "one", unknown)
        assert (code, out) == (2, "")
        assert err == f"error: there is no run {unknown!r} in MLflow; give a run's id or name, or a DVC experiment's\n"


def test_a_name_of_two_runs(tracked, surefoot):
    ids = {write(tracked, "same", 0.1), write(tracked, "same", 0.2)}
    write(tracked, "other", 0.3)
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
    run_id = write(tracked, "one", 0.1)
    assert surefoot("compare", "one", run_id) == (
        2,
        "",
        f"error: {run_id!r} is a run that was named before: one ({run_id}); give different ones\n",
    )


def test_a_dvc_experiment_is_found_by_its_name(tracked, surefoot):
    write(tracked, "one", 0.1)
    write(tracked, "two", 0.2, DVC_EXP_NAME="puffy-oats")
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
    write(tracked, "one", 0.1)
    write(tracked, "two", 0.2)
    code, out, err = surefoot("compare", "one", "two", "--out", str(tracked / "params.yaml/picture.png"))
    assert (code, out) == (2, "")
    assert "can't be written" in err


# --- the page that `surefoot ui` opens


def view(here, page):
    """The query of the page's address, and the view that it names, as MLflow's page reads it."""
    query = dict(urllib.parse.parse_qsl(page.partition("?")[2]))
    client = here.client()
    (tag,) = [
        tag
        for tag in client.get_experiment_by_name("surefoot").tags.items()
        if tag[0].startswith("mlflow.sharedViewState.")
    ]
    assert tag[0] == f"mlflow.sharedViewState.{query['viewStateShareKey']}"
    saved = json.loads(tag[1])
    return (
        query,
        saved["name"],
        json.loads(zlib.decompress(base64.b64decode(saved["state"].removeprefix("deflate;")))),
        tag[1],
    )


def test_the_page_compares_the_latest_sweep(tracked):
    write(tracked, "old", 0.3, 0.9)
    for lr in (0.1, 0.2):
        write(tracked, "run", lr, 0.9, **{"surefoot.sweep": "it's a sweep"})
    query, name, state, tag = view(tracked, ui.page())
    assert query["compareRunsMode"] == "CHART"
    assert state["selectedColumns"] == [
        "params.`train.lr`",
        "metrics.`test/accuracy`",
        "metrics.`test/loss`",
        "metrics.`validation/loss`",
    ]
    assert name == "Sweep it's a sweep"
    assert state["searchFilter"] == """tags.`surefoot.sweep` = "it's a sweep\""""
    cards = [(card["type"], card["displayName"]) for card in state["compareRunCharts"]]
    assert ("SCATTER", "test/accuracy over train.lr") in cards
    assert ("LINE", "validation/loss over epochs") in cards
    assert not any(kind == "CONTOUR" for kind, _ in cards), "one param differs"
    assert {card["metricSectionId"] for card in state["compareRunCharts"]} <= {
        section["uuid"] for section in state["compareRunSections"]
    }
    assert ui.page()
    assert view(tracked, ui.page())[3] == tag, "nothing is written where nothing is new"


def test_the_page_compares_the_latest_runs_where_there_is_no_sweep(tracked):
    write(tracked, "swept", 0.3, 0.9, **{"surefoot.sweep": "sweep"})
    ids = [write(tracked, "run", lr) for lr in (0.1, 0.2)]
    _, name, state, _ = view(tracked, ui.page())
    assert name == "Latest runs"
    assert all(run_id in state["searchFilter"] for run_id in ids)
    assert any(card["displayName"].startswith("test/accuracy") for card in state["compareRunCharts"])


def test_the_page_of_a_single_run(tracked):
    run_id = write(tracked, "one", 0.1)
    assert ui.page().partition("?")[0].endswith(f"/runs/{run_id}")


@pytest.mark.parametrize("other", ["3.17.1", "4.0.0"])
def test_the_page_of_another_mlflow_has_no_charts_of_ours(tracked, monkeypatch, other):
    """Their form is private to the page: nothing of it is written."""
    for lr in (0.1, 0.2):
        write(tracked, "run", lr, 0.9, **{"surefoot.sweep": "a sweep"})
    monkeypatch.setattr(ui_page_state, "version", lambda package: other)
    address, _, query = ui.page().partition("?")
    assert address.endswith("/runs")
    assert dict(urllib.parse.parse_qsl(query)) == {
        "workflowType": "machine_learning",
        "searchFilter": "tags.`surefoot.sweep` = 'a sweep'",
    }
    tags = tracked.client().get_experiment_by_name("surefoot").tags
    assert not any(name.startswith(ui_page_state.VIEW) for name in tags)


def test_the_version_is_that_which_is_installed():
    """Whoever updates MLflow looks at `make ui` and `make test-slow`, and writes down the version."""
    assert version("mlflow") == ui_page_state.SEEN_WITH
