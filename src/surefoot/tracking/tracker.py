"""MLflow as a view: writes what a run there lacks, in order, exactly once. A server that fails holds nothing up."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from surefoot.base import digests, terminal
from surefoot.base.locks import Locks
from surefoot.reproduction import patches
from surefoot.tracking import mlflow_client, parent_run
from surefoot.tracking.description import Description, mlflow_dataset, param_name, short_tags
from surefoot.tracking.experiment import build_tables, ensure_experiment, find_by_identity
from surefoot.tracking.metric_points import BATCH, Point, lacking_results, log_points, metrics_of_model
from surefoot.tracking.mlflow_client import OutOfReach, Refused, configure, store_uri, without_password
from surefoot.tracking.patch_artifact import PATCH, has_patch, run_with_patch
from surefoot.tracking.tag_names import (
    COMPLETE,
    IDENTITY,
    INCOMPLETE,
    KIND,
    MODEL,
    NOTE,
    PATCH_DIGEST,
    PATCH_RUN,
    REGISTERED,
    SWEEP,
    WEIGHTS,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE_MARK = "\n<!-- written by surefoot, which writes it anew while it is as it was: "
SECONDS_TO_STOP = 5  # for the sampler of system metrics
SCRATCH = "SUREFOOT_SCRATCH"  # the variable that is set where a run is made again only to be compared
SECONDS_BETWEEN_WRITES = 1.0


class Tracker:
    """One MLflow run, found by its identity or made.

    Once MLflow is out of reach, every method does nothing, until `open` is called again. What MLflow refuses, the run
    lacks: the other methods go on.
    """

    def __init__(self, identity: str, description: Description, locks: Locks) -> None:
        self.identity = identity
        self.lacks: dict[str, str] = {}  # what the run can't be given, and why
        self.deleted = ""  # the id of the run, if it was deleted in MLflow and isn't to come back
        self._description = description
        self._locks = locks
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._sweep = ""
        self._alone: ExitStack | None = None  # holds this run's lock, until the process ends
        self._id = ""
        self._points: list[Point] = []
        self._have: set[tuple[str, int]] = set()
        self._next_write = 0.0
        self._warned: set[str] = set()
        self._sampler: Any = None  # of system metrics

    @property
    def run_id(self) -> str | None:
        """The run's id, or None where MLflow is out of reach, or doesn't take the run."""
        return self._id if self._client else None

    @property
    def complete(self) -> bool:
        """Whether the run was marked as lacking nothing when it was opened."""
        return bool(
            self._client
            and self._run
            and self._run.data.tags.get(COMPLETE) == "true"
            and self._run.info.status == "FINISHED"
        )

    @property
    def model_weights(self) -> str | None:
        """The digest of the weights of the model that the run had when it was opened; None if it had none."""
        return self._run.data.tags.get(WEIGHTS) if self._run else None

    @property
    def incomplete(self) -> str:
        """Why the run had not come to its end when it was opened; empty where it had."""
        return self._run.data.tags.get(INCOMPLETE, "") if self._run else ""

    def open(self, status: str | None = None, anew: bool = True) -> None:
        """Find the run or make it, and bring params, tags, data set and texts up to date. Does nothing where it is
        open.

        Args:
            status: RUNNING: also take over the tags and texts of this process, such as the Git commit and the patch.
            anew: make it again where it was deleted in MLflow.
        """
        if self._client is not None:
            return
        # One process at a time writes a run: two would each see only what the run lacked before the other came, and the
        # one that stops would call it KILLED after the one that goes on has called it FINISHED.
        if self._alone is None:
            self._alone = ExitStack()
            self._alone.enter_context(self._locks.held(f"mlflow {self.identity}", _say_who))
        uri = configure()
        try:
            # The first processes on an empty SQLite file would collide in building its tables, and two processes of
            # one identity would each make a run.
            with self._locks.held("mlflow"):
                mlflow_client.check_file(uri)
                build_tables(uri)
                client = mlflow_client.connect()
                found = find_by_identity(client, self.identity)
                gone = None if found or anew else find_by_identity(client, self.identity, deleted=True)
                if gone:
                    self.deleted = gone.info.run_id
                    return
                self._run = found or self._create(client)
            self._client, self._id = client, self._run.info.run_id
        except Exception as error:
            self._give_up(error)
            return
        self._complement(self._run, new=found is None, take_over=bool(status))
        if status and found:
            self.tag(self._description.tags)
            self._try("its status", lambda client: client.update_run(self._id, status=status))
        # That of this process where it takes the run over; a run that is brought later keeps its own.
        own, said = self._run.data.tags.get(SWEEP), self._description.tags.get(SWEEP)
        self._sweep = (said or own if status or not found else own) or ""
        if KIND not in self._description.tags:
            self._above(
                "its parent",
                lambda client: parent_run.join_parent(
                    client, ensure_experiment(client), client.get_run(self._id), self._sweep
                ),
            )

    def _above(self, what: str, write: Callable[["MlflowClient"], None]) -> None:
        """Write to the run above this one, one process at a time."""
        if self._sweep and self._client:
            with self._locks.held(f"mlflow sweep {self._sweep}"):
                self._try(what, write)

    def sample_system(self) -> None:
        """Let MLflow's own sampler log the load of processors, memory, disks and network every ten seconds until the
        run ends.
        """
        if (
            self._client is None
            or self._sampler
            or os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0")
        ):
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._sampler = SystemMetricsMonitor(self._id, resume_logging=True)
        self._sampler.start()

    def _stop_sampler(self) -> None:
        if self._sampler:
            # A server that answers no more doesn't hold us up.
            stopping = Thread(target=self._sampler.finish, daemon=True)
            stopping.start()
            stopping.join(SECONDS_TO_STOP)
            self._sampler = None

    def lack(self, what: str, why: str) -> None:
        """Note what the run can't be given now."""
        self.lacks[what] = why

    def continues(self, identity: str, epoch: int) -> str:
        """Say by a tag which run this one goes on from.

        Returns a line of Markdown with a link to it; `''` where MLflow doesn't have it.
        """
        found: list[Run] = []

        def write(client: "MlflowClient") -> None:
            other = find_by_identity(client, identity)
            if other:
                self.tag({"surefoot.continues": other.info.run_id})
                found.append(other)

        self._try("its tags", write)
        return "".join(f"Goes on from {_link(run)} after epoch {epoch}." for run in found)

    def note(self, text: str) -> None:
        """Set the description that the run's page opens on, unless a person has written it anew."""

        def write(client: "MlflowClient") -> None:
            ours, _, mark = client.get_run(self._id).data.tags.get(NOTE, "").rpartition(NOTE_MARK)
            if ours != text and (mark == f"{digests.sha256(ours.encode())[:16]} -->" or not mark):
                self.tag({NOTE: f"{text}{NOTE_MARK}{digests.sha256(text.encode())[:16]} -->"})

        self._try("its description", write)

    def started(self, wanted: str, weights: str, *, run: str | None, run_id: str | None) -> str:
        """Say by tags which model this run started from: what params.yaml names, the digest of its weights, and where
        known the run that made it, by its identity `run` or its id `run_id`.

        Returns a link, in Markdown.
        """
        others: list[Run] = []

        def write(client: "MlflowClient") -> None:
            try:
                by_identity = find_by_identity(client, run) if run and not run_id else None
                other = client.get_run(run_id) if run_id else by_identity
            except Refused:  # it was deleted since
                other = None
            self.tag(
                {
                    "surefoot.start": other.info.run_id if other else wanted,
                    "surefoot.start.weights": weights,
                }
            )
            others.extend([other] if other else [])

        self._try("its tags", write)
        return f"Started from {_link(others[0]) if others else f'`{wanted}`'}."

    def add(self, points: Iterable[Point]) -> None:
        """Take in metrics. They are written about once a second, less often where that takes long, and by `flush`."""
        self._points += points
        if time.monotonic() > self._next_write:
            self.flush()

    def results(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics, at step 0, unless they are there with these values; to the run, and to its model where it
        has one.
        """

        def write(client: "MlflowClient") -> None:
            model = client.get_run(self._id).data.tags.get(MODEL)
            known = metrics_of_model(client, model)
            lacking = lacking_results(client, self._id, metrics, known, time.time())
            log_points(client, self._id, lacking, self._description.dataset, None if known is None else model)

        self._try("its results", write)

    def link(self, points: Iterable[Point]) -> None:
        """Show metrics, which were added to the run, on its model's page, too."""
        self.flush()  # or they would come again

        def write(client: "MlflowClient") -> None:
            model = client.get_run(self._id).data.tags.get(MODEL)
            known = metrics_of_model(client, model)
            if known is not None:
                lacking = [point for point in points if known.get((point.name, point.step)) != point.value]
                log_points(client, self._id, lacking, self._description.dataset, model)

        self._try("its model's metrics", write)

    def flush(self) -> None:
        """Write the metrics that the run lacks."""

        def write(client: "MlflowClient") -> None:
            lacking = [point for point in self._points if (point.name, point.step) not in self._have]
            for start in range(0, len(lacking), BATCH):
                some = lacking[start : start + BATCH]
                log_points(client, self._id, some, self._description.dataset)
                self._have |= {(point.name, point.step) for point in some}

        began = time.monotonic()
        self._try("its metrics", write)
        # A slow server takes a tenth of the time.
        now = time.monotonic()
        self._next_write = now + max(SECONDS_BETWEEN_WRITES, 10 * (now - began))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags. An empty value deletes the tag."""

        def write(client: "MlflowClient") -> None:
            from mlflow.entities import RunTag

            given = short_tags(tags)
            client.log_batch(self._id, tags=[RunTag(name, value) for name, value in given.items()])
            there = client.get_run(self._id).data.tags if len(given) < len(tags) else {}
            for name in (tags.keys() - given.keys()) & there.keys():
                client.delete_tag(self._id, name)

        self._try("its tags", write)

    def artifact(self, path: str, data: bytes) -> None:
        """Log `data` as the artifact `path`."""

        def write(client: "MlflowClient") -> None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / Path(path).name
                file.write_bytes(data)
                client.log_artifact(self._id, str(file), str(Path(path).parent) if "/" in path else None)

        self._try(path, write)

    def artifacts(self, directory: str) -> set[str]:
        """The paths of the artifacts in a directory."""
        found: set[str] = set()
        self._try(
            f"what is in {directory}",
            lambda client: found.update(file.path for file in client.list_artifacts(self._id, directory)),
        )
        return found

    def model(self, digest: str, size: int, log_model: Callable[[str], str]) -> None:
        """Log an MLflow model, once for each digest of its weights of `size` bytes, by a function of the run's id that
        returns the model's id.
        """

        def write(client: "MlflowClient") -> None:
            if client.get_run(self._id).data.tags.get(WEIGHTS) != digest:
                logged = mlflow_client.call(
                    lambda: log_model(self._id), size=size, requests=mlflow_client.MODEL_REQUESTS
                )
                self.tag({MODEL: logged, WEIGHTS: digest})

        self._try("its model", write)

    def register(self, name: str, alias: str) -> None:
        """Put the run's model into the registry, once, and point the alias to it.

        The tag comes last: what was cut off before is taken up again.
        """

        def write(client: "MlflowClient") -> None:
            tags = client.get_run(self._id).data.tags
            if MODEL not in tags:
                terminal.warn(f"the run has no model in MLflow, so none is registered as {name!r}")
                self.lack(f"its model in the registry as {name}", "it has no model")
                return
            as_said = f"{name}@{alias} {tags[MODEL]}"
            if tags.get(REGISTERED) == as_said:
                return
            with self._locks.held("mlflow"):  # two runs that make the same name
                if not client.search_registered_models(f"name = '{name}'", max_results=1):
                    client.create_registered_model(name)
            source = f"models:/{tags[MODEL]}"
            versions = client.search_model_versions(f"name = '{name}' and run_id = '{self._id}'")
            there = [version for version in versions if version.source == source]
            found = there[0] if there else client.create_model_version(name, source, self._id, model_id=tags[MODEL])
            client.set_registered_model_alias(name, alias, found.version)
            client.set_tag(self._id, REGISTERED, as_said)

        self._try(f"its model in the registry as {name}", write)

    def end(self, status: str) -> None:
        """Write what is left and end the run: FINISHED, FAILED or KILLED."""
        self._stop_sampler()
        self.flush()
        self._try("its end", lambda client: client.set_terminated(self._id, status))
        self._above(
            "the status of its parent",
            lambda client: parent_run.settle_parent(client, ensure_experiment(client), self._sweep),
        )

    def _create(self, client: "MlflowClient") -> "Run":
        return client.create_run(
            ensure_experiment(client),
            run_name=self._description.name,
            tags=short_tags({**self._description.tags, IDENTITY: self.identity}),
        )

    def _complement(self, run: "Run", new: bool, take_over: bool) -> None:
        """Bring to a run what it lacks, as one may that was killed or cut off while it was made."""
        from mlflow.entities import DatasetInput, InputTag, Param

        run_id, said = run.info.run_id, self._description
        named = {param_name(name): str(value) for name, value in said.params.items()}
        params = [Param(name, value) for name, value in named.items() if name not in run.data.params]
        for start in range(0, len(params), 100):
            some = params[start : start + 100]
            self._try("its params", lambda client, some=some: client.log_batch(run_id, params=some))  # type: ignore[misc]
        if not (run.inputs and run.inputs.dataset_inputs):
            inputs = [DatasetInput(mlflow_dataset(said.dataset), [InputTag("mlflow.data.context", "training")])]
            with self._locks.held("mlflow"):  # two runs that are the first of a data set would each make it
                self._try("its data set", lambda client: client.log_inputs(run_id, inputs))
        # Tags and texts belong together: those of the last one who made it. An empty text only takes the place of an
        # older one.
        there = (
            set()
            if new or take_over
            else {
                path
                for directory in {str(Path(path).parent) for path in said.texts}
                for path in self.artifacts(directory)
            }
        )
        for path, text in said.texts.items():
            if (text or not new) and path not in there:
                self.artifact(path, text.encode("utf-8", "surrogateescape"))

        def known(client: "MlflowClient") -> None:
            self._have = {
                (name, metric.step) for name in run.data.metrics for metric in client.get_metric_history(run_id, name)
            }

        self._try("its metrics", known)
        self._try("what wasn't committed", lambda client: self._complement_patch(client, run, take_over))

    def _complement_patch(self, client: "MlflowClient", run: "Run", take_over: bool) -> None:
        """Bring what wasn't committed, unless a run in MLflow has the same: many of a sweep are made by one state of
        the code.
        """
        digest = self._description.tags.get(PATCH_DIGEST)
        if not digest or (PATCH_RUN in run.data.tags and not take_over):
            return
        patch = patches.kept_patch(digest)
        own = has_patch(client, run.info.run_id)
        if patch is None:
            if own and take_over:  # that of another time
                self.artifact(PATCH, b"")
            return
        where = None if own else run_with_patch(client, run, digest)
        if where is None:
            self.artifact(PATCH, patch)
        self.tag({PATCH_RUN: where or run.info.run_id})

    def _try(self, what: str, call: Callable[["MlflowClient"], Any]) -> None:
        """Do something with MLflow's client; `what` the run lacks if that is refused."""
        if self._client is None:
            return
        try:
            call(self._client)
        except OutOfReach as error:
            self._give_up(error)
        except Exception as error:  # also by us: a model that can't be made, a disk that is full
            self.lack(what, mlflow_client.failure_reason(error))
            self._warn_once(what, f"doesn't take {what} of the run {self._id}: {self.lacks[what]}")

    def _give_up(self, error: Exception) -> None:
        self._client = None
        why = mlflow_client.failure_reason(error)
        if isinstance(error, Refused):
            self.lack("the run", why)
        self._warn_once("", f"can't be written, going on without it: {why}")

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            terminal.warn(f"MLflow at {without_password(store_uri())} {text}")


def _say_who(pid: int) -> None:
    terminal.print_lines(f"waiting: process {pid or 'unknown'} is at work on the same run")


def _link(run: "Run") -> str:
    return f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"
