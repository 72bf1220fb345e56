"""The run in MLflow above those of a sweep or a search: made once, and RUNNING as long as one of them is."""

from typing import TYPE_CHECKING

from surefoot.tracking.tag_names import INCOMPLETE, KIND, OF, PARENT, PARENT_KIND, SWEEP

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def join_parent(client: "MlflowClient", experiment: str, run: "Run", sweep: str) -> None:
    """Put a run below its sweep's, which is made if it isn't there. One process at a time."""
    quoted = quote(sweep)
    if quoted is None:
        return
    parent = _find(client, experiment, quoted) or _make(client, experiment, sweep, quoted)
    if run.data.tags.get(PARENT) != parent.info.run_id:
        client.set_tag(run.info.run_id, PARENT, parent.info.run_id)
    _settle(client, experiment, parent, quoted)


def settle_parent(client: "MlflowClient", experiment: str, sweep: str) -> None:
    """Give a sweep's run the status that those below it make. One process at a time."""
    quoted = quote(sweep)
    parent = _find(client, experiment, quoted) if quoted else None
    if parent and quoted:
        _settle(client, experiment, parent, quoted)


def _find(client: "MlflowClient", experiment: str, quoted: str) -> "Run | None":
    """The parent of a sweep; the first one, should two machines have made one each."""
    found = client.search_runs(
        [experiment],
        f"tags.`{OF}` = {quoted}",
        max_results=1,
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return found[0] if found else None


def _make(client: "MlflowClient", experiment: str, sweep: str, quoted: str) -> "Run":
    note = f"The parent of the runs of {sweep}: ``tags.`{SWEEP}` = {quoted}`` finds them. It trained nothing itself."
    tags = {
        OF: sweep,
        KIND: PARENT_KIND,
        "mlflow.note.content": note,
        "mlflow.source.name": f"sweep {sweep}",
        "mlflow.source.type": "LOCAL",
    }
    made = client.create_run(experiment, run_name=sweep, tags=tags)
    first = _find(client, experiment, quoted) or made
    if first.info.run_id != made.info.run_id:  # another machine was quicker
        client.delete_run(made.info.run_id)
        return first
    # Those that were made before it: by an older Surefoot, or while a parent was there that somebody deleted.
    for run in client.search_runs([experiment], f"tags.`{SWEEP}` = {quoted}"):
        client.set_tag(run.info.run_id, PARENT, made.info.run_id)
    return made


def _settle(client: "MlflowClient", experiment: str, parent: "Run", quoted: str) -> None:
    status = _status(client, experiment, quoted)
    if status == "RUNNING" and parent.info.status != "RUNNING":
        client.update_run(parent.info.run_id, status="RUNNING")
    elif status not in ("RUNNING", parent.info.status):
        client.set_terminated(parent.info.run_id, status)


def _status(client: "MlflowClient", experiment: str, quoted: str) -> str:
    """RUNNING while a run of the sweep is; then KILLED where the last one was, unless a search pruned it; FINISHED
    where any run was trained to its end.
    """

    def some(filtered: str = "") -> "Run | None":
        every = f"tags.`{SWEEP}` = {quoted}{filtered}"
        found = client.search_runs([experiment], every, max_results=1, order_by=["attributes.end_time DESC"])
        return found[0] if found else None

    last = some(" and attributes.status = 'RUNNING'") or some()
    if last is None or last.info.status == "RUNNING":
        return "FINISHED" if last is None else "RUNNING"
    if last.info.status == "KILLED":
        return "FINISHED" if last.data.tags.get(INCOMPLETE) else "KILLED"
    return "FINISHED" if some(" and attributes.status = 'FINISHED'") else str(last.info.status)


def quote(text: str) -> str | None:
    """A text in quotes for a filter of MLflow's, which knows no escape; None if it has quotes of both kinds."""
    mark = '"' if "'" in text else "'"
    return None if mark in text else f"{mark}{text}{mark}"
