"""The description of a run in MLflow, and its links to the runs that it goes on from or started from."""

from typing import TYPE_CHECKING

from surefoot.base import digests
from surefoot.tracking.experiment import find_by_identity
from surefoot.tracking.mlflow_client import Refused
from surefoot.tracking.tag_names import NOTE
from surefoot.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE_MARK = "\n<!-- written by surefoot, which writes it anew while it is as it was: "


def describe_run(tracker: Tracker, text: str) -> None:
    """Set the description that the run's page opens on, unless a person has written it anew."""

    def write(client: "MlflowClient") -> None:
        ours, _, mark = client.get_run(str(tracker.run_id)).data.tags.get(NOTE, "").rpartition(NOTE_MARK)
        if ours != text and (mark == f"{digests.sha256(ours.encode())[:16]} -->" or not mark):
            tracker.set_tags({NOTE: f"{text}{NOTE_MARK}{digests.sha256(text.encode())[:16]} -->"})

    tracker.attempt("its description", write)


def link_continued(tracker: Tracker, identity: str, epoch: int) -> str:
    """Say by a tag which run this one goes on from.

    Returns a line of Markdown with a link to it; `''` where MLflow doesn't have it.
    """
    found: list[Run] = []

    def write(client: "MlflowClient") -> None:
        other = find_by_identity(client, identity)
        if other:
            tracker.set_tags({"surefoot.continues": other.info.run_id})
            found.append(other)

    tracker.attempt("its tags", write)
    return "".join(f"Goes on from {_link(run)} after epoch {epoch}." for run in found)


def link_start(tracker: Tracker, wanted: str, weights: str, *, run: str | None, run_id: str | None) -> str:
    """Say by tags which model this run started from: what params.yaml names, the digest of its weights, and where known
    the run that made it, by its identity `run` or its id `run_id`.

    Returns a link, in Markdown.
    """
    others: list[Run] = []

    def write(client: "MlflowClient") -> None:
        try:
            by_identity = find_by_identity(client, run) if run and not run_id else None
            other = client.get_run(run_id) if run_id else by_identity
        except Refused:  # it was deleted since
            other = None
        tracker.set_tags(
            {
                "surefoot.start": other.info.run_id if other else wanted,
                "surefoot.start.weights": weights,
            }
        )
        others.extend([other] if other else [])

    tracker.attempt("its tags", write)
    return f"Started from {_link(others[0]) if others else f'`{wanted}`'}."


def _link(run: "Run") -> str:
    return f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"
