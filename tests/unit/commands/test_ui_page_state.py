"""The page of MLflow's that `surefoot ui` opens: its address, and the charts that are saved for it."""

import base64
import json
import urllib.parse
import zlib
from importlib.metadata import version

import pytest

from surefoot.commands import ui, ui_page_state
from tests.unit.commands.recorded_runs import write_run


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
    write_run(tracked, "old", 0.3, 0.9)
    for lr in (0.1, 0.2):
        write_run(tracked, "run", lr, 0.9, **{"surefoot.sweep": "it's a sweep"})
    query, name, state, tag = view(tracked, ui.comparison_page())
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
    assert ui.comparison_page()
    assert view(tracked, ui.comparison_page())[3] == tag, "nothing is written where nothing is new"


def test_the_page_compares_the_latest_runs_where_there_is_no_sweep(tracked):
    write_run(tracked, "swept", 0.3, 0.9, **{"surefoot.sweep": "sweep"})
    ids = [write_run(tracked, "run", lr) for lr in (0.1, 0.2)]
    _, name, state, _ = view(tracked, ui.comparison_page())
    assert name == "Latest runs"
    assert all(run_id in state["searchFilter"] for run_id in ids)
    assert any(card["displayName"].startswith("test/accuracy") for card in state["compareRunCharts"])


def test_the_page_of_a_single_run(tracked):
    run_id = write_run(tracked, "one", 0.1)
    assert ui.comparison_page().partition("?")[0].endswith(f"/runs/{run_id}")


@pytest.mark.parametrize("other", ["3.17.1", "4.0.0"])
def test_the_page_of_another_mlflow_has_no_charts_of_ours(tracked, monkeypatch, other):
    """Their form is private to the page: nothing of it is written."""
    for lr in (0.1, 0.2):
        write_run(tracked, "run", lr, 0.9, **{"surefoot.sweep": "a sweep"})
    monkeypatch.setattr(ui_page_state, "version", lambda package: other)
    address, _, query = ui.comparison_page().partition("?")
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
