"""MLflow as a view: writes what a run there lacks, in order, exactly once. A server that fails holds nothing up."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from surefoot.base import terminal
from surefoot.base.locks import Locks
from surefoot.base.wording import without_password
from surefoot.reproduction import patches
from surefoot.tracking import mlflow_client, parent_run
from surefoot.tracking.description import Description, mlflow_dataset, param_name, short_tags
from surefoot.tracking.experiment import build_tables, ensure_experiment, find_by_identity
from surefoot.tracking.metric_points import BATCH, Point, log_points
from surefoot.tracking.mlflow_client import OutOfReach, Refused
from surefoot.tracking.mlflow_store import configure, store_uri
from surefoot.tracking.patch_artifact import PATCH, has_patch, run_with_patch
from surefoot.tracking.tag_names import (
    COMPLETE,
    IDENTITY,
    INCOMPLETE,
    KIND,
    PATCH_DIGEST,
    PATCH_RUN,
    SWEEP,
    WEIGHTS,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SECONDS_TO_STOP = 5  # for the sampler of system metrics
SCRATCH = "SUREFOOT_SCRATCH"  # the variable that is set where a run is made again only to be compared


class Tracker:
    """One MLflow run, found by its identity or made; `run_links` and `run_model` write to it, too.

    Once MLflow is out of reach, every method does nothing, until `open` is called again. What MLflow refuses, the run
    lacks: the other methods go on.
    """

    def __init__(self, identity: str, description: Description, locks: Locks) -> None:
        self.identity = identity
        self.locks = locks
        self.dataset = description.dataset
        self.lacks: dict[str, str] = {}  # what the run can't be given, and why
        self.deleted = ""  # the id of the run, if it was deleted in MLflow and isn't to come back
        self._description = description
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._sweep = ""
        self._alone: ExitStack | None = None  # holds this run's lock
        self._id = ""
        self._have: set[tuple[str, int]] = set()
        self._unwritten: dict[tuple[str, int], Point] = {}
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
            self._alone.enter_context(self.locks.held(f"mlflow {self.identity}", _say_who))
        uri = configure()
        try:
            # The first processes on an empty SQLite file would collide in building its tables, and two processes of
            # one identity would each make a run.
            with self.locks.held("mlflow"):
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
            self.set_tags(self._description.tags)
            self.attempt("its status", lambda client: client.update_run(self._id, status=status))
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
            with self.locks.held(f"mlflow sweep {self._sweep}"):
                self.attempt(what, write)

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

    def note_lacking(self, what: str, why: str) -> None:
        """Note what the run can't be given now."""
        self.lacks[what] = why

    def attempt(self, what: str, call: Callable[["MlflowClient"], Any]) -> None:
        """Do something with MLflow's client, if it is in reach; `what` the run lacks if that is refused."""
        if self._client is None:
            return
        try:
            call(self._client)
        except OutOfReach as error:
            self._give_up(error)
        except Exception as error:  # also by us: a model that can't be made, a disk that is full
            self.note_lacking(what, mlflow_client.failure_reason(error))
            self._warn_once(what, f"doesn't take {what} of the run {self._id}: {self.lacks[what]}")

    def add_points(self, points: Iterable[Point]) -> None:
        """Take in metrics; `flush` writes those that the run lacks."""
        self._unwritten |= {place: point for point in points if (place := (point.name, point.step)) not in self._have}

    @property
    def has_unwritten(self) -> bool:
        """Whether metrics were added that the run may lack."""
        return bool(self._client and self._unwritten)

    def flush(self) -> None:
        """Write the metrics that the run lacks."""

        def write(client: "MlflowClient") -> None:
            lacking = [point for place, point in self._unwritten.items() if place not in self._have]
            for start in range(0, len(lacking), BATCH):
                some = lacking[start : start + BATCH]
                log_points(client, self._id, some, self.dataset)
                self._have |= {(point.name, point.step) for point in some}
            self._unwritten.clear()

        self.attempt("its metrics", write)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags. An empty value deletes the tag."""

        def write(client: "MlflowClient") -> None:
            from mlflow.entities import RunTag

            given = short_tags(tags)
            client.log_batch(self._id, tags=[RunTag(name, value) for name, value in given.items()])
            there = client.get_run(self._id).data.tags if len(given) < len(tags) else {}
            for name in (tags.keys() - given.keys()) & there.keys():
                client.delete_tag(self._id, name)

        self.attempt("its tags", write)

    def log_artifact(self, path: str, data: bytes) -> None:
        """Log `data` as the artifact `path`."""

        def write(client: "MlflowClient") -> None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / Path(path).name
                file.write_bytes(data)
                client.log_artifact(self._id, str(file), str(Path(path).parent) if "/" in path else None)

        self.attempt(path, write)

    def list_artifacts(self, directory: str) -> set[str]:
        """The paths of the artifacts in a directory."""
        found: set[str] = set()
        self.attempt(
            f"what is in {directory}",
            lambda client: found.update(file.path for file in client.list_artifacts(self._id, directory)),
        )
        return found

    def end(self, status: str) -> None:
        """Write what is left and end the run: FINISHED, FAILED or KILLED."""
        self._stop_sampler()
        self.flush()
        self.attempt("its end", lambda client: client.set_terminated(self._id, status))
        self._above(
            "the status of its parent",
            lambda client: parent_run.settle_parent(client, ensure_experiment(client), self._sweep),
        )

    def close(self) -> None:
        """Let another process write the run."""
        if self._alone:
            self._alone.close()
        self._client = self._alone = None

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
            self.attempt("its params", lambda client, some=some: client.log_batch(run_id, params=some))  # type: ignore[misc]
        if not (run.inputs and run.inputs.dataset_inputs):
            inputs = [DatasetInput(mlflow_dataset(said.dataset), [InputTag("mlflow.data.context", "training")])]
            with self.locks.held("mlflow"):  # two runs that are the first of a data set would each make it
                self.attempt("its data set", lambda client: client.log_inputs(run_id, inputs))
        # Tags and texts belong together: those of the last one who made it. An empty text only takes the place of an
        # older one.
        there = (
            set()
            if new or take_over
            else {
                path
                for directory in {str(Path(path).parent) for path in said.texts}
                for path in self.list_artifacts(directory)
            }
        )
        for path, text in said.texts.items():
            if (text or not new) and path not in there:
                self.log_artifact(path, text.encode("utf-8", "surrogateescape"))

        def known(client: "MlflowClient") -> None:
            self._have = {
                (name, metric.step) for name in run.data.metrics for metric in client.get_metric_history(run_id, name)
            }

        self.attempt("its metrics", known)
        self.attempt("what wasn't committed", lambda client: self._complement_patch(client, run, take_over))

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
                self.log_artifact(PATCH, b"")
            return
        where = None if own else run_with_patch(client, run, digest)
        if where is None:
            self.log_artifact(PATCH, patch)
        self.set_tags({PATCH_RUN: where or run.info.run_id})

    def _give_up(self, error: Exception) -> None:
        self._client = None
        why = mlflow_client.failure_reason(error)
        if isinstance(error, Refused):
            self.note_lacking("the run", why)
        self._warn_once("", f"can't be written, going on without it: {why}")

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            terminal.warn(f"MLflow at {without_password(store_uri())} {text}")


def _say_who(pid: int) -> None:
    terminal.print_lines(f"waiting: process {pid or 'unknown'} is at work on the same run")
