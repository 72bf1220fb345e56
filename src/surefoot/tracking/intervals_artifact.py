"""The intervals of a run's test metrics in MLflow: an artifact, as metrics would be a chart of one bar for each end."""

from typing import TYPE_CHECKING

from surefoot.base.documents import Document, Number, parse_document
from surefoot.tracking.find_runs import read_artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACT = "intervals.json"
PREFIX = "test_interval/"  # of the names of their ends, as of metrics


class Interval(Document):
    """The ends of an interval."""

    low: Number
    high: Number


class Intervals(Document):
    """`intervals.json`: the intervals of a run's test metrics, by name."""

    test: dict[str, Interval]

    def ends(self) -> dict[str, float]:
        """The ends of each, as `test_interval/accuracy_low`."""
        return interval_ends({name: {"low": ends.low, "high": ends.high} for name, ends in self.test.items()})


def recorded_intervals(client: "MlflowClient", run: "Run") -> dict[str, float]:
    """The ends of the intervals of a run's test metrics, as `test_interval/accuracy_low`.

    Raises:
        Failure: MLflow is out of reach.
        Malformed: what it has of them isn't that.
    """
    # An older Surefoot had them as metrics.
    as_metrics = {name: value for name, value in run.data.metrics.items() if name.startswith(PREFIX)}
    data = None if as_metrics else read_artifact(client, run, ARTIFACT)
    return as_metrics if data is None else parse_document(Intervals, data).ends()


def interval_ends(ranges: dict[str, dict[str, float]]) -> dict[str, float]:
    """The ends of the intervals of test metrics by name, as `test_interval/accuracy_low`."""
    return {f"{PREFIX}{name}_{end}": value for name, ends in ranges.items() for end, value in ends.items()}
