"""A run's model in MLflow: logged once, with its metrics, and in the registry."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from surefoot.base import terminal
from surefoot.tracking import mlflow_client
from surefoot.tracking.metric_points import Point, lacking_results, log_points, metrics_of_model
from surefoot.tracking.tag_names import MODEL, REGISTERED, WEIGHTS
from surefoot.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_model_once(tracker: Tracker, digest: str, size: int, make_model: Callable[[str], str]) -> None:
    """Log an MLflow model, once for each digest of its weights of `size` bytes, by a function of the run's id that
    returns the model's id.
    """

    def write(client: "MlflowClient") -> None:
        run_id = str(tracker.run_id)
        if client.get_run(run_id).data.tags.get(WEIGHTS) != digest:
            logged = mlflow_client.call(lambda: make_model(run_id), size=size, requests=mlflow_client.MODEL_REQUESTS)
            tracker.set_tags({MODEL: logged, WEIGHTS: digest})

    tracker.attempt("its model", write)


def log_results(tracker: Tracker, metrics: Mapping[str, float]) -> None:
    """Log final metrics, at step 0, unless they are there with these values; to the run, and to its model where it has
    one.
    """

    def write(client: "MlflowClient") -> None:
        run_id = str(tracker.run_id)
        model = client.get_run(run_id).data.tags.get(MODEL)
        known = metrics_of_model(client, model)
        lacking = lacking_results(client, run_id, metrics, known, time.time())
        log_points(client, run_id, lacking, tracker.dataset, None if known is None else model)

    tracker.attempt("its results", write)


def log_model_metrics(tracker: Tracker, points: Iterable[Point]) -> None:
    """Show metrics, which were added to the run, on its model's page, too."""
    tracker.flush()  # or they would come again

    def write(client: "MlflowClient") -> None:
        run_id = str(tracker.run_id)
        model = client.get_run(run_id).data.tags.get(MODEL)
        known = metrics_of_model(client, model)
        if known is not None:
            lacking = [point for point in points if known.get((point.name, point.step)) != point.value]
            log_points(client, run_id, lacking, tracker.dataset, model)

    tracker.attempt("its model's metrics", write)


def register_model(tracker: Tracker, name: str, alias: str) -> None:
    """Put the run's model into the registry, once, and point the alias to it.

    The tag comes last: what was cut off before is taken up again.
    """

    def write(client: "MlflowClient") -> None:
        run_id = str(tracker.run_id)
        tags = client.get_run(run_id).data.tags
        if MODEL not in tags:
            terminal.warn(f"the run has no model in MLflow, so none is registered as {name!r}")
            tracker.note_lacking(f"its model in the registry as {name}", "it has no model")
            return
        as_said = f"{name}@{alias} {tags[MODEL]}"
        if tags.get(REGISTERED) == as_said:
            return
        with tracker.locks.held("mlflow"):  # two runs that make the same name
            if not client.search_registered_models(f"name = '{name}'", max_results=1):
                client.create_registered_model(name)
        source = f"models:/{tags[MODEL]}"
        versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        there = [version for version in versions if version.source == source]
        found = there[0] if there else client.create_model_version(name, source, run_id, model_id=tags[MODEL])
        client.set_registered_model_alias(name, alias, found.version)
        client.set_tag(run_id, REGISTERED, as_said)

    tracker.attempt(f"its model in the registry as {name}", write)
