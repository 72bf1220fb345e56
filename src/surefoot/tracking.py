"""MLflow as a view: writes what a run there lacks, in order, exactly once. A server that fails holds nothing up."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot import errors, files, terminal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run

EXPERIMENT = "surefoot"
IDENTITY = "surefoot.identity"
COMPLETE = "surefoot.complete"  # the tag of a run that lacks nothing
MODEL = "surefoot.model_id"  # the tag that names a run's model
REGISTERED = "surefoot.registered"  # the tag that says as what the model is in the registry
NOTE = "mlflow.note.content"
NOTE_MARK = "\n<!-- written by surefoot, which writes it anew while it is as it was: "
KIND = "surefoot.kind"  # the tag of a run that is no training: the command that made it
SWEEP = "surefoot.sweep"  # the tag that groups the runs of a sweep or a search
INCOMPLETE = "surefoot.incomplete"  # the tag that says why a run ended before its last epoch; empty where it didn't
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

    @property
    def run_id(self) -> str | None:
        """The run's id, or None while MLflow is out of reach."""
        return self._id if self._client else None

    @property
    def complete(self) -> bool:
        """Whether the run was marked as lacking nothing when it was opened."""
        return bool(self._client and self._run and self._run.data.tags.get(COMPLETE) == "true" and self._run.info.status == "FINISHED")

    @property
    def incomplete(self) -> str:
        """Why the run had not come to its end when it was opened; empty where it had."""
        return self._run.data.tags.get(INCOMPLETE, "") if self._run else ""

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

    def continues(self, identity: str, epoch: int) -> str:
        """Say by a tag which run this one goes on from. Returns a line of Markdown with a link to it; `''` where MLflow doesn't have it."""
        found: list[Run] = []

        def write(client: "MlflowClient") -> None:
            other = find(client, identity)
            if other:
                self.tag({"surefoot.continues": other.info.run_id})
                found.append(other)

        self._try(write)
        return "".join(f"Goes on from {_link(run)} after epoch {epoch}." for run in found)

    def note(self, text: str) -> None:
        """Set the description that the run's page opens on, unless a person has written it anew."""

        def write(client: "MlflowClient") -> None:
            ours, _, mark = client.get_run(self._id).data.tags.get(NOTE, "").rpartition(NOTE_MARK)
            if ours != text and (mark == f"{files.sha256(ours.encode())[:16]} -->" or not mark):
                self.tag({NOTE: f"{text}{NOTE_MARK}{files.sha256(text.encode())[:16]} -->"})

        self._try(write)

    def started(self, start: Mapping[str, Any]) -> str:
        """Say by tags which model this run started from: `from`, and where known `run`, its identity, and `run_id`. Returns a link, in Markdown."""
        others: list[Run] = []

        def write(client: "MlflowClient") -> None:
            from mlflow.exceptions import MlflowException

            try:
                other = client.get_run(start["run_id"]) if start["run_id"] else find(client, start["run"]) if start["run"] else None
            except MlflowException:  # it was deleted since
                other = None
            self.tag({"surefoot.start": other.info.run_id if other else start["from"], "surefoot.start.weights": start["weights"]})
            others.extend([other] if other else [])

        self._try(write)
        return f"Started from {_link(others[0]) if others else '`' + start['from'] + '`'}."

    def add(self, points: Iterable[Point]) -> None:
        """Take in metrics. They are written about once a second, and by `flush`."""
        self._points += points
        if time.monotonic() > self._written + SECONDS_BETWEEN_WRITES:
            self.flush()

    def results(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics, at step 0, unless they are there with these values; to the run, and to its model where it has one."""

        def write(client: "MlflowClient") -> None:
            there, now = client.get_run(self._id).data, time.time()
            known = self._of_model(client, there.tags.get(MODEL))
            lacking = []
            for name, value in metrics.items():
                if there.metrics.get(name) != value:
                    lacking.append(Point(name, value, 0, now))
                elif known is not None and known.get((name, 0)) != value:
                    # With the time that it has in the run: MLflow takes it for the same there, and writes it to the model alone.
                    lacking.append(Point(name, value, 0, (client.get_metric_history(self._id, name)[-1].timestamp + 0.5) / 1000))
            self._log(client, lacking, there.tags.get(MODEL) if known is not None else None)

        self._try(write)

    def link(self, points: Iterable[Point]) -> None:
        """Show metrics, which were added to the run, on its model's page, too."""
        self.flush()  # or they would come again

        def write(client: "MlflowClient") -> None:
            model = client.get_run(self._id).data.tags.get(MODEL)
            known = self._of_model(client, model)
            if known is not None:
                self._log(client, [point for point in points if known.get((point.name, point.step)) != point.value], model)

        self._try(write)

    def _of_model(self, client: "MlflowClient", model: str | None) -> dict[tuple[str, int], float] | None:
        """The metrics of the model, by name and step; None where there is no model, or it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return {(metric.key, metric.step): metric.value for metric in client.get_logged_model(model).metrics or []} if model else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _log(self, client: "MlflowClient", points: list[Point], model: str | None = None) -> None:
        from mlflow.entities import Metric

        dataset = _dataset(self._description)
        of_model = {"model_id": model, "dataset_name": dataset.name, "dataset_digest": dataset.digest, "run_id": self._id} if model else {}
        metrics = [Metric(point.name, point.value, int(point.ended * 1000), point.step, **of_model) for point in points]
        for start in range(0, len(metrics), BATCH):
            client.log_batch(self._id, metrics=metrics[start : start + BATCH])

    def flush(self) -> None:
        """Write the metrics that the run lacks."""

        def write(client: "MlflowClient") -> None:
            lacking = [point for point in self._points if (point.name, point.step) not in self._have]
            for start in range(0, len(lacking), BATCH):
                some = lacking[start : start + BATCH]
                self._log(client, some)
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
                self.tag({MODEL: log_model(self._id), "surefoot.model_weights": digest})

        self._try(write)

    def register(self, name: str, alias: str) -> None:
        """Put the run's model into the registry, once, and point the alias to it. The tag comes last: what was cut off before is taken up again."""

        def write(client: "MlflowClient") -> None:
            tags = client.get_run(self._id).data.tags
            if MODEL not in tags:
                errors.say("warning", f"the run has no model in MLflow, so none is registered as {name!r}")
                return
            if tags.get(REGISTERED) == f"{name}@{alias} {tags[MODEL]}":
                return
            with self._locks.held("mlflow"):  # two runs that make the same name
                if not client.search_registered_models(f"name = '{name}'", max_results=1):
                    client.create_registered_model(name)
            source = f"models:/{tags[MODEL]}"
            there = [version for version in client.search_model_versions(f"name = '{name}' and run_id = '{self._id}'") if version.source == source]
            found = there[0] if there else client.create_model_version(name, source, self._id, model_id=tags[MODEL])
            client.set_registered_model_alias(name, alias, found.version)
            client.set_tag(self._id, REGISTERED, f"{name}@{alias} {tags[MODEL]}")

        self._try(write)

    def end(self, status: str) -> None:
        """Write what is left and end the run: FINISHED, FAILED or KILLED."""
        self.flush()
        self._try(lambda client: client.set_terminated(self._id, status))

    def _create(self, client: "MlflowClient") -> "Run":
        return client.create_run(experiment(client), run_name=self._description.name, tags={**self._description.tags, IDENTITY: self.identity})

    def _complement(self, client: "MlflowClient", run: "Run", new: bool, take_over: bool) -> None:
        """Bring to a run what it lacks, as one may that was killed or cut off while it was made."""
        from mlflow.entities import DatasetInput, InputTag, Param

        run_id, said = run.info.run_id, self._description
        params = [Param(name, str(value)) for name, value in said.params.items() if name not in run.data.params]
        for start in range(0, len(params), 100):
            client.log_batch(run_id, params=params[start : start + 100])
        if not (run.inputs and run.inputs.dataset_inputs):
            client.log_inputs(run_id, [DatasetInput(_dataset(said), [InputTag("mlflow.data.context", "training")])])
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
        errors.say("warning", f"MLflow at {without_password(store_uri())} can't be written, going on without it: {reason}")


def _dataset(said: Description) -> "Dataset":
    from mlflow.entities import Dataset

    return Dataset(
        name=said.dataset["path"],
        digest=said.dataset["digest"][:36],  # MLflow takes no more: the whole one is in the profile and in a tag
        source_type="local",
        source=files.canonical_json({"uri": said.dataset["path"]}).decode(),
        profile=files.canonical_json(dict(said.dataset)).decode(),
    )


def _say_who(pid: int) -> None:
    terminal.say(f"waiting: process {pid or 'unknown'} is at work on the same run")


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
