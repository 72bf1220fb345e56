"""MLflow as a view: writes what a run there lacks, in order, exactly once. A server that fails holds nothing up."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot import files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "surefoot"
IDENTITY = "surefoot.identity"
COMPLETE = "surefoot.complete"  # the tag of a run that lacks nothing
SECONDS_BETWEEN_WRITES = 1.0
BATCH = 1000  # metrics that MLflow takes in one call; of params and tags it takes 100
# A tracking server must not hold training up; a user's own setting is left as it is.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


@dataclass(frozen=True)
class Description:
    """What a run in MLflow says of itself."""

    name: str
    params: Mapping[str, Any]
    dataset: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)  # small artifacts, by path


@dataclass(frozen=True)
class Point:
    """A metric at a step; `ended` in seconds since 1970."""

    name: str
    value: float
    step: int
    ended: float


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file at the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.root() / 'mlflow.db'}"


def configure() -> str:
    """Set MLflow up for this process, before it is imported: the store, no telemetry, short time-outs. Returns the store's URI."""
    os.environ["MLFLOW_TRACKING_URI"] = store_uri()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # "Creating initial MLflow database tables..." and such are no news to the person at the terminal.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    return store_uri()


class Tracker:
    """One MLflow run, found by its identity or made. After a failure every method does nothing, until `open` is called again."""

    def __init__(self, identity: str, description: Description, locks: files.Locks) -> None:
        self.identity = identity
        self._description = description
        self._locks = locks
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._alone: ExitStack | None = None  # holds this run's lock, until the process ends
        self._id = ""
        self._points: list[Point] = []
        self._have: set[tuple[str, int]] = set()
        self._written = 0.0
        self._warned = False
        self._notes: dict[str, str] = {}

    @property
    def run_id(self) -> str | None:
        """The run's id, or None while MLflow is out of reach."""
        return self._id if self._client else None

    @property
    def complete(self) -> bool:
        """Whether the run was marked as lacking nothing when it was opened."""
        return bool(self._client and self._run and self._run.data.tags.get(COMPLETE) == "true" and self._run.info.status == "FINISHED")

    def open(self, status: str | None = None) -> None:
        """Find the run or make it, and bring params, tags, data set and texts up to date. Does nothing where it is open.

        With a status (RUNNING) it also takes over the tags and texts of this process, such as the Git commit and the patch.
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
                from mlflow import MlflowClient

                _build_tables(uri)
                client = MlflowClient(uri)
                found = find(client, self.identity)
                self._run = found or self._create(client)
            self._client, self._id = client, self._run.info.run_id
            self._complement(client, self._run, new=found is None, take_over=bool(status))
            if status and found:
                self.tag(self._description.tags)
                client.update_run(self._id, status=status)
        except Exception as error:
            self._give_up(error)

    def continues(self, identity: str, epoch: int) -> None:
        """Say, by a tag and a link, which run this one goes on from."""

        def write(client: "MlflowClient") -> None:
            other = find(client, identity)
            if other:
                self.tag({"surefoot.continues": other.info.run_id})
                self._note("continues", f"Goes on from {_link(other)} after epoch {epoch}.")

        self._try(write)

    def started(self, start: Mapping[str, Any]) -> None:
        """Say, by tags and a link, which model this run started from: `from`, and as far as they are known `run`, its identity, `run_id` and `name`."""

        def write(client: "MlflowClient") -> None:
            from mlflow.exceptions import MlflowException

            try:
                other = client.get_run(start["run_id"]) if start["run_id"] else find(client, start["run"]) if start["run"] else None
            except MlflowException:  # it was deleted since
                other = None
            self.tag({"surefoot.start": other.info.run_id if other else start["from"], "surefoot.start.weights": start["weights"]})
            self._note("started", f"Started from {_link(other) if other else '`' + start['from'] + '`'}.")

        self._try(write)

    def _note(self, key: str, text: str) -> None:
        self._notes[key] = text
        self.tag({"mlflow.note.content": "\n\n".join(self._notes.values())})

    def add(self, points: Iterable[Point]) -> None:
        """Take in metrics. They are written about once a second, and by `flush`."""
        self._points += points
        if time.monotonic() > self._written + SECONDS_BETWEEN_WRITES:
            self.flush()

    def results(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics, at step 0, unless they are there with these values."""

        def write(client: "MlflowClient") -> None:
            there = client.get_run(self._id).data.metrics
            for name, value in metrics.items():
                if there.get(name) != value:
                    client.log_metric(self._id, name, value, step=0)

        self._try(write)

    def flush(self) -> None:
        """Write the metrics that the run lacks."""

        def write(client: "MlflowClient") -> None:
            from mlflow.entities import Metric

            lacking = [point for point in self._points if (point.name, point.step) not in self._have]
            for start in range(0, len(lacking), BATCH):
                some = lacking[start : start + BATCH]
                client.log_batch(self._id, metrics=[Metric(point.name, point.value, int(point.ended * 1000), point.step) for point in some])
                self._have |= {(point.name, point.step) for point in some}
            self._written = time.monotonic()

        self._try(write)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""

        def write(client: "MlflowClient") -> None:
            from mlflow.entities import RunTag

            client.log_batch(self._id, tags=[RunTag(name, value) for name, value in tags.items()])

        self._try(write)

    def artifact(self, path: str, data: bytes) -> None:
        """Log `data` as the artifact `path`."""

        def write(client: "MlflowClient") -> None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / Path(path).name
                file.write_bytes(data)
                client.log_artifact(self._id, str(file), str(Path(path).parent) if "/" in path else None)

        self._try(write)

    def artifacts(self, directory: str) -> set[str]:
        """The paths of the artifacts in a directory."""
        found: set[str] = set()
        self._try(lambda client: found.update(file.path for file in client.list_artifacts(self._id, directory)))
        return found

    def model(self, digest: str, log_model: Callable[[str], str]) -> None:
        """Log an MLflow model, once for each digest of its weights, by a function of the run's id that returns the model's id."""

        def write(client: "MlflowClient") -> None:
            if client.get_run(self._id).data.tags.get("surefoot.model_weights") != digest:
                self.tag({"surefoot.model_id": log_model(self._id), "surefoot.model_weights": digest})

        self._try(write)

    def end(self, status: str) -> None:
        """Write what is left and end the run: FINISHED, FAILED or KILLED."""
        self.flush()
        self._try(lambda client: client.set_terminated(self._id, status))

    def _create(self, client: "MlflowClient") -> "Run":
        return client.create_run(experiment(client), run_name=self._description.name, tags={**self._description.tags, IDENTITY: self.identity})

    def _complement(self, client: "MlflowClient", run: "Run", new: bool, take_over: bool) -> None:
        """Bring to a run what it lacks, as one may that was killed or cut off while it was made."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        run_id, said = run.info.run_id, self._description
        params = [Param(name, str(value)) for name, value in said.params.items() if name not in run.data.params]
        for start in range(0, len(params), 100):
            client.log_batch(run_id, params=params[start : start + 100])
        if not (run.inputs and run.inputs.dataset_inputs):
            dataset = Dataset(
                name=said.dataset["path"],
                digest=said.dataset["digest"][:36],  # MLflow takes no more: the whole one is in the profile and in a tag
                source_type="local",
                source=files.canonical_json({"uri": said.dataset["path"]}).decode(),
                profile=files.canonical_json(dict(said.dataset)).decode(),
            )
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        # Tags and texts belong together: those of the last one who made it. An empty text only takes the place of an older one.
        there = set() if new or take_over else {file.path for path in said.texts for file in client.list_artifacts(run_id, str(Path(path).parent))}
        for path, text in said.texts.items():
            if (text or not new) and path not in there:
                self.artifact(path, text.encode("utf-8", "surrogateescape"))
        self._have = {(name, metric.step) for name in run.data.metrics for metric in client.get_metric_history(run_id, name)}

    def _try(self, call: Callable[["MlflowClient"], None]) -> None:
        if self._client is None:
            return
        try:
            call(self._client)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        if self._warned:
            return
        self._warned = True
        reason = without_password(str(error).strip()).splitlines()[0][:200] if str(error).strip() else type(error).__name__
        print(f"warning: MLflow at {without_password(store_uri())} can't be written, going on without it: {reason}", file=sys.stderr, flush=True)


def _say_who(pid: int) -> None:
    print(f"waiting: process {pid or 'unknown'} is at work on the same run", flush=True)


def _build_tables(uri: str) -> None:
    """Build the tables of an SQLite store that isn't there yet beside it, then rename it.

    MLflow builds them in many steps, for seconds. Killed between two of them it would leave a store that never opens again.
    """
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if uri == f"sqlite:///{path}" and path.name and ":" not in path.name and "?" not in path.name and not path.exists():
        beside = path.with_name(f"{path.name}.partial")
        for leftover in (beside, path.with_name(f"{beside.name}-journal")):
            leftover.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)
        beside.rename(path)


def find(client: "MlflowClient", identity: str) -> "Run | None":
    """The run of an identity, the latest if there should be several."""
    runs = client.search_runs([experiment(client)], f"tags.`{IDENTITY}` = '{identity}'", max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0] if runs else None


def by_name(client: "MlflowClient", wanted: str) -> "list[Run]":
    """The runs of this id or name, or of the DVC experiment of that name."""
    from mlflow.exceptions import MlflowException

    if re.fullmatch("[0-9a-f]{32}", wanted):
        try:
            return [client.get_run(wanted)]
        except MlflowException:
            return []
    quote = '"' if "'" in wanted else "'"
    if quote in wanted:
        return []
    named: dict[str, Run] = {}
    for filtered in (f"attributes.run_name = {quote}{wanted}{quote}", f"tags.DVC_EXP_NAME = {quote}{wanted}{quote}"):
        for run in search(client, filtered):
            named[run.info.run_id] = run
    return list(named.values())


def search(client: "MlflowClient", filtered: str) -> "list[Run]":
    """The runs that a filter is true of, the latest first."""
    # Not `experiment`, which would make the experiment.
    found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    return list(client.search_runs([found.experiment_id], filtered, order_by=["attributes.start_time DESC"])) if found else []


def _link(run: "Run") -> str:
    return f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"


def experiment(client: "MlflowClient") -> str:
    """The id of the experiment, which is made if it isn't there."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server has its own place for artifacts; the default store's are beside it.
        beside = (files.root() / "mlartifacts").as_uri() if store_uri().startswith("sqlite:") else None
        try:
            return str(client.create_experiment(name, artifact_location=beside))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody else was quicker
            if found is None:
                raise
    return str(found.experiment_id)


def without_password(text: str) -> str:
    """The same text without user and password in the addresses in it."""
    return re.sub(r"://[^/\s]*@", "://", text)
