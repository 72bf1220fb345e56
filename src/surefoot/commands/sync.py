"""`surefoot sync`: brings to MLflow all that it lacks of the runs in the trajectory store, or says what it still lacks,
and why; before that to the store that machines share what it lacks.
"""

from collections.abc import Collection

from surefoot.base import paths, terminal
from surefoot.base.errors import UserError
from surefoot.base.installation import script
from surefoot.base.locks import Locks
from surefoot.base.wording import without_password
from surefoot.run import publish
from surefoot.run.pinned_params import load_and_pin
from surefoot.run.record import RunRecord
from surefoot.run.sharing import bring
from surefoot.run.trajectory_store import TrajectoryStore, open_trajectory_store
from surefoot.tracking import find_runs, mlflow_store, tag_names


def main() -> None:
    """Bring to MLflow, and to a shared store, what they lack of all runs."""
    shared = bring.bring_left()
    sync_runs()
    if not shared:
        raise UserError("the shared store still lacks something, as told above")


def sync_runs(only: Collection[str] | None = None) -> None:
    """Bring each finished run to MLflow, the shorter ones first: a longer one links to the one that it goes on from.

    Args:
        only: the identities of those to bring; None: of all.

    Raises:
        UserError: MLflow is out of reach; or a run still lacks something.
    """
    load_and_pin()
    store = TrajectoryStore(paths.trajectory_store())
    locks = Locks(store.path / "lock")
    chosen = [run for identity, run in store.runs().items() if only is None or identity in only]
    found = sorted(chosen, key=lambda run: len(run.epoch_keys))
    incomplete = sum(_bring(run, open_trajectory_store(run.origin), locks) for run in found)
    if incomplete:
        raise UserError(
            f"{incomplete} of {len(found)} runs {'lacks' if incomplete == 1 else 'lack'} something in MLflow, as told"
            " above"
        )


def lacking_runs() -> set[str]:
    """The identities of finished runs that MLflow doesn't have whole; those that were deleted there aren't among them.

    Raises:
        UserError: MLflow can't be read.
    """
    runs = TrajectoryStore(paths.trajectory_store()).runs()
    finished = {identity for identity, run in runs.items() if run.finished}
    path = mlflow_store.sqlite_file(mlflow_store.configure())
    if not finished or (path and not path.exists()):
        return finished
    from mlflow.entities import ViewType

    with find_runs.reading_mlflow() as client:
        experiment = find_runs.experiment_id(client)
        for filtered, view in (
            (f"tags.`{tag_names.COMPLETE}` = 'true'", ViewType.ACTIVE_ONLY),
            ("", ViewType.DELETED_ONLY),
        ):
            token = None
            while experiment and finished:
                page = client.search_runs([experiment], filtered, run_view_type=view, page_token=token)
                finished -= {run.data.tags.get(tag_names.IDENTITY, "") for run in page}
                token = page.token
                if not token:
                    break
    return finished


def _bring(run: RunRecord, store: TrajectoryStore, locks: Locks) -> bool:
    """Bring a run to MLflow; returns whether it lacks something."""
    name = run.description.name
    if not run.finished:
        terminal.print_lines(f"{'of an older Surefoot' if run.last else 'unfinished'}, left as it is: {name}")
        return False
    lacks = run.lacks()
    if lacks:
        terminal.print_lines(
            f"left as it is, since what {store.run_path(run.identity)} says of it isn't whole: {name}: {lacks}"
        )
        return False
    tracker = publish.publish_run(run, store, locks, anew=False)
    if tracker.deleted:
        uri = without_password(mlflow_store.store_uri())
        restore = f"MLFLOW_TRACKING_URI={uri} {script('mlflow')} runs restore --run-id {tracker.deleted}"
        terminal.print_lines(f"was deleted in MLflow, left so: {name}; `{restore}` brings it back")
        return False
    if tracker.run_id is None and not tracker.lacks:
        raise UserError("MLflow can't be reached; nothing is lost: run `surefoot sync` again once it is back")
    if not tracker.lacks:
        terminal.print_lines(f"up to date: {name} ({tracker.run_id})")
    for what, why in tracker.lacks.items():
        terminal.print_lines(f"lacks {what}: {name} ({tracker.run_id or run.identity[:8]}): {why}")
    return bool(tracker.lacks)
