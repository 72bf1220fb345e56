"""`surefoot sync`: brings to MLflow all that it lacks of the runs in the trajectory store, or says what it still lacks, and why."""

from typing import Any

from surefoot import files, runs, terminal, tracking
from surefoot.errors import UserError
from surefoot.params import load
from surefoot.training import numerics
from surefoot.training.trajectory_store import TrajectoryStore


def sync() -> None:
    """Bring each finished run there, the shorter ones first: a longer one links to the one that it goes on from.

    Raises:
        UserError: MLflow is out of reach; or a run still lacks something.
    """
    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    store = TrajectoryStore(files.trajectory())
    locks = files.Locks(store.path / "lock")
    found = sorted(store.runs().items(), key=lambda item: len(item[1]["epoch_keys"]))
    lacking = sum(_bring(identity, run, store, locks) for identity, run in found)
    if lacking:
        raise UserError(f"{lacking} of {len(found)} runs {'lacks' if lacking == 1 else 'lack'} something in MLflow, as told above")


def _bring(identity: str, run: dict[str, Any], store: TrajectoryStore, locks: files.Locks) -> bool:
    """Bring a run to MLflow; returns whether it lacks something."""
    name = run["description"]["name"]
    if not run["last"] or "chosen" not in run:
        terminal.say(f"unfinished, left as it is: {name}" if not run["last"] else f"of an older Surefoot, left as it is: {name}")
        return False
    tracker: tracking.Tracker = runs.publish(identity, run, store, locks, anew=False)
    if tracker.deleted:
        terminal.say(f"was deleted in MLflow, left so: {name} ({tracker.deleted}); `mlflow runs restore --run-id` brings it back")
        return False
    if tracker.run_id is None and not tracker.lacks:
        raise UserError("MLflow can't be reached; nothing is lost: run `surefoot sync` again once it is back")
    if not tracker.lacks:
        terminal.say(f"up to date: {name} ({tracker.run_id})")
    for what, why in tracker.lacks.items():
        terminal.say(f"lacks {what}: {name} ({tracker.run_id or identity[:8]}): {why}")
    return bool(tracker.lacks)
