"""What MLflow's own pages read that is no interface of MLflow's: the charts of the page that compares runs, and some of
its address.

The page keeps its charts as a "Saved view": a tag of the experiment, with the page's state in it. `SEEN_WITH` is the
version of MLflow whose state was seen; where another one serves the page, none is written, and the page opens with the
charts of its own choice.
"""

import base64
import json
import time
import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from surefoot.base import digests
from surefoot.data.number_notation import is_number
from surefoot.run.page import SHOWN, differing_params
from surefoot.tracking import mlflow_client, mlflow_store, tag_names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SEEN_WITH = "3.17.2"
WORKFLOW = {"workflowType": "machine_learning"}  # without it MLflow opens its pages for language models
VIEW = "mlflow.sharedViewState."  # an experiment's tag: charts and filter, as "Saved views" write them

# By which runs are compared: the first that they have.
MEASURES = ("test/accuracy", "test/r2", "test/rmse", "test/mae", "test/loss", "validation/accuracy", "validation/loss")
CURVES = {  # over epochs, and the axis
    "validation/loss": "log",
    "train/loss": "log",
    "validation/accuracy": "linear",
    "lr": "linear",
    "gradient_norm": "log",
}
COLUMNS = 12  # params in MLflow's list


def compare_page_query(client: "MlflowClient", experiment: str, runs: "list[Run]", filtered: str) -> dict[str, str]:
    """The query of the page that compares these runs, which a filter finds; their charts are saved for it."""
    plain = WORKFLOW | {"searchFilter": filtered}
    if _serving_version() != SEEN_WITH:
        return plain
    as_charts = {"compareRunsMode": "CHART"}
    try:
        return as_charts | WORKFLOW | {"viewStateShareKey": _save_view(client, experiment, runs, filtered)}
    except mlflow_client.Refused:  # a server on which one may read alone: MLflow's own choice of charts
        return as_charts | plain


def _serving_version() -> str | None:
    """The version of the MLflow that serves the page: a server's, or else the one that is installed here."""
    uri = mlflow_store.store_uri()
    if not uri.startswith(("http:", "https:")):
        return version("mlflow-skinny")
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = mlflow_client.call(lambda: http_request(get_default_host_creds(uri), "/version", "GET"))
    except mlflow_client.Failure:
        return None
    return str(answer.text) if answer.status_code == 200 else None


def _save_view(client: "MlflowClient", experiment: str, runs: "list[Run]", filtered: str) -> str:
    """Save the charts of these runs, where they aren't saved; the key that names them."""
    sweep = runs[0].data.tags.get(tag_names.SWEEP)
    key = f"surefoot-{digests.sha256((sweep or 'latest').encode())[:16]}"
    packed = zlib.compress(digests.canonical_json(_page_state(runs, filtered)))
    text = f"deflate;{base64.b64encode(packed).decode()}"
    if _saved(client.get_experiment(experiment).tags.get(VIEW + key, "")) != text:
        now = time.time_ns() // 1_000_000
        view = {
            "name": f"Sweep {sweep}" if sweep else "Latest runs",
            "createdAt": now,
            "updatedAt": now,
            "state": text,
        }
        client.set_experiment_tag(experiment, VIEW + key, json.dumps(view))
    return key


def _saved(view: str) -> Any:
    """The state in a saved view; None where that is none."""
    try:
        found = json.loads(view)
    except (ValueError, RecursionError):
        return None
    return found.get("state") if isinstance(found, dict) else None


def _page_state(runs: "list[Run]", filtered: str) -> dict[str, Any]:
    """The state of the page for these runs: what differs, what came of it, and the curves; the other metrics in folded
    sections.
    """
    # `system/` has a section of MLflow's own
    metrics = {name for run in runs for name in run.data.metrics if not name.startswith("system/")}
    measure = next((name for name in MEASURES if name in metrics), None)
    params = differing_params([run.data.params for run in runs])
    cards = [*(_result_cards(runs, measure, params) if measure else []), *_curve_cards(metrics), _difference_card()]
    return {
        "searchFilter": filtered,
        "orderByKey": f"metrics.`{measure}`" if measure else "attributes.start_time",
        "orderByAsc": bool(measure and measure.endswith(("loss", "rmse", "mae"))),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": _columns(runs, params, [measure, "test/loss", "validation/loss"], metrics),
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [
            card | {"uuid": f"{card['metricSectionId']}-{number}", "runsCountToCompare": len(runs)}
            for number, card in enumerate(cards)
        ],
        "compareRunSections": _sections(metrics),
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
    }


def _sections(metrics: set[str]) -> list[dict[str, Any]]:
    shown = [("result", "Result", 2), ("curves", "Curves", 2), ("table", "Table", 1)]
    folded = [*sorted({name.rpartition("/")[0] for name in metrics} - {""}), "Model metrics", "System metrics"]
    settled = {"isReordered": True, "deleted": False, "isGenerated": False}
    return [
        settled | {"uuid": key, "name": name, "display": key not in folded, "columns": columns}
        for key, name, columns in [*shown, *((name, name, 2) for name in folded)]
    ]


def _card(section: str, kind: str, title: str, **settings: Any) -> dict[str, Any]:
    common = {"type": kind, "metricSectionId": section, "displayName": title, "deleted": False, "isGenerated": False}
    return common | settings


def _result_cards(runs: "list[Run]", measure: str, params: list[str]) -> list[dict[str, Any]]:
    """A metric by the params that differ."""
    numbers = [name for name in params if all(is_number(run.data.params.get(name, "")) for run in runs)]
    result, over = {"key": measure, "type": "METRIC"}, [{"key": name, "type": "PARAM"} for name in numbers]
    cards = []
    if params:
        title = f"{measure} by {', '.join(params)}"
        chosen = {"selectedParams": params, "selectedMetrics": [measure], "showAllRuns": True}
        cards.append(_card("result", "PARALLEL", title, **chosen))
    for name, axis in zip(numbers[:3], over, strict=False):
        cards.append(_card("result", "SCATTER", f"{measure} over {name}", xaxis=axis, yaxis=result))
    if len(numbers) > 1:
        title = f"{measure} over {numbers[0]} and {numbers[1]}"
        cards.append(_card("result", "CONTOUR", title, xaxis=over[0], yaxis=over[1], zaxis=result))
    return [*cards, _card("result", "BAR", measure, metricKey=measure)]


def _curve_cards(metrics: set[str]) -> list[dict[str, Any]]:
    drawn = {"xAxisKey": "step", "lineSmoothness": 0}
    return [
        _card(
            "curves",
            "LINE",
            f"{name} over epochs",
            metricKey=name,
            selectedMetricKeys=[name],
            scaleType=axis,
            **drawn,
        )
        for name, axis in CURVES.items()
        if name in metrics
    ]


def _difference_card() -> dict[str, Any]:
    compared = {"compareGroups": ["Parameters", "Model metrics"]}
    shown = {"showDifferencesOnly": True, "showChangeFromBaseline": False}
    return _card("table", "DIFFERENCE", "What differs", **compared, **shown)


def _columns(runs: "list[Run]", params: list[str], figures: list[str | None], metrics: set[str]) -> list[str]:
    """The columns of MLflow's list: what the runs were trained by that differs, what everybody asks for first, and what
    came of it.
    """
    known = sorted(params, key=lambda name: not name.startswith(SHOWN))[:COLUMNS]
    data = {
        (given.dataset.name, given.dataset.digest) for run in runs if run.inputs for given in run.inputs.dataset_inputs
    }
    found = [f"metrics.`{name}`" for name in dict.fromkeys(figures) if name in metrics]
    return ["attributes.`Dataset`"] * (len(data) > 1) + [f"params.`{name}`" for name in known] + found
