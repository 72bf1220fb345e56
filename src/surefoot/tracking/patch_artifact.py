"""The patch of what wasn't committed: in MLflow once, where many runs of a sweep are made by one state of the code."""

from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.tracking.tag_names import PATCH_DIGEST, PATCH_RUN

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PATCH = "source/uncommitted.patch"  # the artifact


def has_patch(client: "MlflowClient", run_id: str) -> bool:
    """Whether a run has the artifact."""
    return any(file.path == PATCH for file in client.list_artifacts(run_id, str(Path(PATCH).parent)))


def run_with_patch(client: "MlflowClient", run: "Run", digest: str) -> str | None:
    """The id of another run of the experiment whose artifact is the patch of this digest; None where there is none."""
    same = client.search_runs([run.info.experiment_id], f"tags.`{PATCH_DIGEST}` = '{digest}'", max_results=100)
    others = {other.data.tags[PATCH_RUN] for other in same if PATCH_RUN in other.data.tags}
    return next((other for other in sorted(others) if has_patch(client, other)), None)
