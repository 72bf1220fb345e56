"""Where runs are written in MLflow: the store, the experiment, and in it the run of an identity."""

from typing import TYPE_CHECKING

from surefoot.base import paths
from surefoot.tracking.mlflow_client import Refused, active_experiment
from surefoot.tracking.mlflow_store import experiment_name, sqlite_file, store_uri
from surefoot.tracking.tag_names import IDENTITY

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def build_tables(uri: str) -> None:
    """Build the tables of an SQLite store that isn't there yet beside it, then rename it.

    MLflow builds them in many steps, for seconds. Killed between two of them it would leave a store that never opens
    again.
    """
    from mlflow import MlflowClient

    path = sqlite_file(uri)
    if path and not path.exists():
        beside = path.with_name(f"{path.name}.partial")
        for leftover in (beside, path.with_name(f"{beside.name}-journal")):
            leftover.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)
        beside.rename(path)


def ensure_experiment(client: "MlflowClient") -> str:
    """The id of the experiment, which is made if it isn't there.

    Raises:
        Refused: it was deleted.
    """
    found = active_experiment(client)
    if found is None:
        # A server has its own place for artifacts; the default store's are beside it.
        beside = (paths.repository_root() / "mlartifacts").as_uri() if store_uri().startswith("sqlite:") else None
        try:
            return str(client.create_experiment(experiment_name(), artifact_location=beside))
        except Refused:
            found = active_experiment(client)  # somebody else was quicker
            if found is None:
                raise
    return str(found.experiment_id)


def find_by_identity(client: "MlflowClient", identity: str, deleted: bool = False) -> "Run | None":
    """The run of an identity, the latest if there should be several; or of those that were deleted."""
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    filtered, order = f"tags.`{IDENTITY}` = '{identity}'", ["attributes.start_time DESC"]
    runs = client.search_runs([ensure_experiment(client)], filtered, run_view_type=view, max_results=1, order_by=order)
    return runs[0] if runs else None
