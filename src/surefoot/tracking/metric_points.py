"""Metrics of a run in MLflow, and of its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surefoot.tracking.description import DescribedData, mlflow_dataset
from surefoot.tracking.mlflow_client import Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics that MLflow takes in one call


@dataclass(frozen=True)
class Point:
    """A metric at a step; `ended` in seconds since 1970."""

    name: str
    value: float
    step: int
    ended: float


def metrics_of_model(client: "MlflowClient", model: str | None) -> dict[tuple[str, int], float] | None:
    """The metrics of a model, by name and step; None where there is no model, or it was deleted."""
    if not model:
        return None
    try:
        return {(metric.key, metric.step): metric.value for metric in client.get_logged_model(model).metrics or []}
    except Refused:
        return None


def lacking_results(
    client: "MlflowClient",
    run_id: str,
    results: Mapping[str, float],
    model: Mapping[tuple[str, int], float] | None,
    now: float,
) -> list[Point]:
    """The final metrics, at step 0, that a run lacks, or its model, whose metrics are given."""
    there, lacking = client.get_run(run_id).data.metrics, []
    for name, value in results.items():
        if there.get(name) != value:
            lacking.append(Point(name, value, 0, now))
        elif model is not None and model.get((name, 0)) != value:
            # With the time that it has in the run: MLflow takes it for the same there, and writes it to the model
            # alone.
            ended = (client.get_metric_history(run_id, name)[-1].timestamp + 0.5) / 1000
            lacking.append(Point(name, value, 0, ended))
    return lacking


def log_points(
    client: "MlflowClient", run_id: str, points: Sequence[Point], data: DescribedData, model: str | None = None
) -> None:
    """Log metrics to a run, and to its model where it has one, as metrics of the data set."""
    from mlflow.entities import Metric

    dataset = mlflow_dataset(data)
    named = {"model_id": model, "dataset_name": dataset.name, "dataset_digest": dataset.digest, "run_id": run_id}
    of_model = named if model else {}
    metrics = [Metric(point.name, point.value, int(point.ended * 1000), point.step, **of_model) for point in points]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
