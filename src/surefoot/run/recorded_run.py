"""A run as MLflow has it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surefoot.base import digests, paths, reading
from surefoot.base.documents import Kind, Malformed, parse_document
from surefoot.base.errors import CannotSay, UserError
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import load_params
from surefoot.reproduction import patches
from surefoot.run import record
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import find_runs, intervals_artifact, tag_names
from surefoot.tracking.mlflow_client import Failure
from surefoot.tracking.patch_artifact import PATCH

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TAG = "surefoot.verify"


@dataclass(frozen=True)
class Recorded:
    """What MLflow has of a run that it takes to make it again, and to compare."""

    run: "Run"
    client: "MlflowClient"

    @property
    def title(self) -> str:
        """Its name and id."""
        return f"{self.run.info.run_name} ({self.run.info.run_id})"

    @property
    def commit(self) -> str:
        """The Git commit it was made at.

        Raises:
            CannotSay: it has none.
        """
        commit = self.run.data.tags.get("mlflow.source.git.commit")
        if not commit:
            why = self.run.data.tags.get(tag_names.NO_GIT)
            raise CannotSay(
                f"its code isn't recorded: Git was out of reach when it was made ({why})"
                if why
                else "it was made outside of Git, so its code isn't recorded"
            )
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise CannotSay(f"the commit that it was made at is no commit's name: {commit[:100]}")
        return commit

    @property
    def patch(self) -> bytes:
        """What of its code wasn't committed.

        Raises:
            CannotSay: it isn't there, though there was something; or it is that of another time when the run was made.
        """
        if self.run.data.tags.get("surefoot.git.dirty") != "true":
            return b""
        digest = self.run.data.tags.get(tag_names.PATCH_DIGEST)
        patch = self.artifact(PATCH) or b""
        if not digest or digest == digests.sha256(patch):
            return patch
        # Kept once: by another run that was made of the same code, and in the store of where it was made.
        kept = self._patch_of(self.run.data.tags.get(tag_names.PATCH_RUN, "")) or patches.kept_patch(digest)
        if kept is None or digests.sha256(kept) != digest:
            raise CannotSay(
                f"its uncommitted changes, {PATCH} in MLflow, "
                + ("aren't those of its commit" if patch else "can't be had")
            )
        return kept

    def _patch_of(self, run_id: str) -> bytes | None:
        try:
            return (
                find_runs.read_artifact(self.client, self.client.get_run(run_id), PATCH)
                if re.fullmatch("[0-9a-f]{32}", run_id)
                else None
            )
        except Failure:
            return None

    @property
    def left_out(self) -> str:
        """Files that weren't in Git and too large to be recorded; `''` if there were none."""
        return str(self.run.data.tags.get("surefoot.git.left_out", ""))

    @property
    def untracked_data(self) -> str:
        """The digest of the raw data that neither Git nor DVC had; `''` if there were none."""
        return str(self.run.data.tags.get("surefoot.git.data", ""))

    def curves(self) -> list[dict[str, float]]:
        """The metrics of each epoch, from the first, as MLflow shows them.

        Raises:
            CannotSay: MLflow can't be reached any more.
        """
        found: dict[int, dict[str, float]] = {}
        for name in sorted(
            name
            for name in self.run.data.metrics
            if name in ("lr", "gradient_norm") or name.startswith(("train/", "validation/"))
        ):
            try:
                history = self.client.get_metric_history(self.run.info.run_id, name)
            except Failure as error:
                raise CannotSay(f"MLflow can't be read: {error}") from None
            for metric in history:
                found.setdefault(metric.step, {})[name] = metric.value
        return [found[step] for step in sorted(found)]

    @property
    def results(self) -> dict[str, float]:
        """The test metrics."""
        return {name: value for name, value in self.run.data.metrics.items() if name.startswith("test/")}

    @property
    def intervals(self) -> dict[str, float]:
        """The ends of the test metrics' intervals.

        Raises:
            CannotSay: they aren't what they should be, or MLflow can't be reached any more.
        """
        try:
            return intervals_artifact.recorded_intervals(self.client, self.run)
        except Failure as error:
            raise CannotSay(f"MLflow can't be read: {error}") from None
        except Malformed as error:
            raise CannotSay(f"its {intervals_artifact.ARTIFACT} in MLflow is damaged: {error}") from None

    def account(self) -> bytes:
        """`trajectory.json`, as it is (`account.read_account`).

        Raises:
            CannotSay: the run isn't complete.
        """
        kind = self.run.data.tags.get(tag_names.KIND)
        if kind:
            raise CannotSay(
                f"it is no training but a run of `surefoot {kind}`: to make it again, run that with its params"
            )
        data = self.artifact(record.ACCOUNT)
        if data is None:
            why = f"it is {self.run.info.status}"
            if self.run.info.status == "FINISHED":
                why = (
                    f"it was made by an older Surefoot, or its artifacts at {self.run.info.artifact_uri} are out of"
                    " reach"
                )
            raise CannotSay(f"it has no {record.ACCOUNT}, which says what to compare with: {why}")
        return data

    def artifact(self, path: str, largest: int = reading.LARGEST_WHOLE) -> bytes | None:
        """The bytes of an artifact, or None if there is none.

        Raises:
            CannotSay: it can't be had.
        """
        try:
            return find_runs.read_artifact(self.client, self.run, path, largest)
        except Failure as error:
            raise CannotSay(f"MLflow can't be read: {error}") from None

    def document(self, kind: type[Kind], path: str) -> Kind | None:
        """An artifact that is a JSON document, or None if there is none.

        Raises:
            CannotSay: it isn't such a document.
        """
        data = self.artifact(path)
        try:
            return None if data is None else parse_document(kind, data)
        except Malformed as error:
            raise CannotSay(f"its {path} in MLflow is damaged: {error}") from None

    def tag(self, verdict: str, scope: str, reason: str) -> None:
        """Set the verdict as tags."""
        from mlflow.entities import RunTag

        tags = {TAG: verdict, f"{TAG}.scope": scope, f"{TAG}.reason": reason[:5000]}
        self.client.log_batch(self.run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def find_recorded(wanted: str | None) -> Recorded:
    """The run that is meant (`find_runs.find_run`); the workspace's last one for None.

    Raises:
        UserError: there is none, or there are several of that name; or MLflow can't be reached.
    """
    with find_runs.reading_mlflow() as client:
        found = find_runs.find_run(client, wanted) if wanted else _last(client)
        return Recorded(found, client)


def _last(client: "MlflowClient") -> "Run":
    store = TrajectoryStore(paths.trajectory_store())
    marks = sorted((store.path / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not marks:
        raise UserError("no run was made here yet")
    # What DVC took from its run cache was marked long ago: of the runs with the model that lies here the last one, if
    # there is one.
    model = digests.sha256_file(paths.MODEL) if paths.MODEL.is_file() else None
    params = flatten(load_params(paths.PARAMS).model_dump(mode="json"))
    known = store.runs()
    present = [mark for mark in marks if model and mark.stem in known and known[mark.stem].weights == model]
    same = [mark for mark in present if known[mark.stem].description.params == params]
    last = (same or present or marks)[-1].stem
    found = find_runs.search_runs(client, f"tags.`{tag_names.IDENTITY}` = '{last}'")
    if not found:
        raise UserError("this workspace's last run isn't in MLflow; `surefoot sync` brings it there")
    return found[0]
