"""MLflow as a view of a training: one run, written as it goes. A server that fails is warned of once, then let be."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot import files
from surefoot.errors import Stopped
from surefoot.params import Params
from surefoot.provenance import Source, packages

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXPERIMENT = "surefoot"
IDENTITY = "surefoot.identity"
SECONDS_BETWEEN_WRITES = 1.0
BATCH = 1000  # metrics that MLflow takes in one call
# A tracking server must not hold training up; a user's own setting is left as it is.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file at the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.root() / 'mlflow.db'}"


def configure() -> str:
    """Set MLflow up for this process, before it is imported: the store, no telemetry, short time-outs. Returns the store's URI."""
    os.environ["MLFLOW_TRACKING_URI"] = store_uri()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # "Creating initial MLflow database tables..." and such are no news to the person at the terminal.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    return store_uri()


def identity(params: Params, data_digest: str, fingerprint: str) -> str:
    """What a training is the training of: two runs with one identity made the same model."""
    made_of = params.model_dump(include={"seed", "numerics", "threads", "train"})
    made_of["train"].pop("save_every")
    return files.sha256(files.canonical_json([made_of, data_digest, fingerprint]))


class Tracker:
    """One MLflow run. Every method returns at once after the first failure."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._metrics: list[Metric] = []
        self._written = 0.0

    @property
    def run_id(self) -> str | None:
        """The run's id, or None if MLflow is out of reach."""
        return self._run_id if self._client else None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step. They are written about once a second, and at the end."""

        def log(client: "MlflowClient") -> None:
            from mlflow.entities import Metric

            now = time.time_ns() // 1_000_000
            self._metrics += [Metric(name, value, now, step) for name, value in values.items()]
            if time.monotonic() > self._written + SECONDS_BETWEEN_WRITES:
                self._flush(client)

        self._try(log)

    def artifact(self, path: str, data: bytes) -> None:
        """Log `data` as the artifact `path`."""

        def log(client: "MlflowClient") -> None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / Path(path).name
                file.write_bytes(data)
                client.log_artifact(self._run_id, str(file), str(Path(path).parent) if "/" in path else None)

        self._try(log)

    def model(self, log_model: Callable[[str], None]) -> None:
        """Log an MLflow model by a function that takes the run's id."""
        self._try(lambda client: log_model(self._run_id))

    def flush(self) -> None:
        """Write what is held back."""
        self._try(self._flush)

    def end(self, status: str) -> None:
        """Write what is left and end the run: FINISHED, FAILED or KILLED."""

        def end(client: "MlflowClient") -> None:
            self._flush(client)
            client.set_terminated(self._run_id, status)

        self._try(end)

    def _flush(self, client: "MlflowClient") -> None:
        for start in range(0, len(self._metrics), BATCH):
            client.log_batch(self._run_id, metrics=self._metrics[start : start + BATCH])
        self._metrics = []
        self._written = time.monotonic()

    def _connect(self, find_run: Callable[["MlflowClient"], "Run | None"]) -> None:
        uri = configure()
        try:
            from mlflow import MlflowClient

            client = MlflowClient(uri)
            found = find_run(client)
        except Exception as error:
            self._give_up(error)
            return
        if found:
            self._client, self._run_id = client, found.info.run_id

    def _try(self, call: Callable[["MlflowClient"], None]) -> None:
        if self._client is None:
            return
        try:
            call(self._client)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        reason = _without_password(str(error).strip()).splitlines()[0][:200] if str(error).strip() else type(error).__name__
        print(f"warning: MLflow at {_without_password(store_uri())} can't be written, going on without it: {reason}", file=sys.stderr)


@contextmanager
def started(name: str, params: Mapping[str, Any], tags: Mapping[str, str], dataset: Mapping[str, Any], source: Source) -> Iterator[Tracker]:
    """A new run around a block: FINISHED when it ends well, KILLED when a signal stops it, FAILED otherwise."""

    def start(client: "MlflowClient") -> "Run":
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        run = client.create_run(_experiment(client), run_name=name, tags={**tags, **_source_tags(source)})
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
        # MLflow cuts a data set's digest at 36 characters: the whole one is in its profile and in a tag.
        entity = Dataset(
            name=dataset["path"],
            digest=dataset["digest"][:36],
            source_type="local",
            source=files.canonical_json({"uri": dataset["path"]}).decode(),
            profile=files.canonical_json(dict(dataset)).decode(),
        )
        client.log_inputs(run.info.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
        return run

    tracker = Tracker()
    tracker._connect(start)
    tracker.artifact("environment/requirements.txt", packages().encode())
    if source.patch:
        tracker.artifact("source/uncommitted.patch", source.patch)
    try:
        yield tracker
    except Stopped:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def find(identity: str) -> Tracker:
    """The latest run that carries this identity as its tag."""

    def look_up(client: "MlflowClient") -> "Run | None":
        runs = client.search_runs([_experiment(client)], f"tags.`{IDENTITY}` = '{identity}'", max_results=1, order_by=["attributes.start_time DESC"])
        return runs[0] if runs else None

    tracker = Tracker()
    tracker._connect(look_up)
    return tracker


def _experiment(client: "MlflowClient") -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # A server has its own place for artifacts; the default store's are beside it.
    beside = None if "://" in store_uri() and not store_uri().startswith("sqlite:") else (files.root() / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=beside))


def _source_tags(source: Source) -> dict[str, str]:
    if source.commit is None:
        return {}
    left_out = {"surefoot.git.left_out": ", ".join(source.left_out)[:5000]} if source.left_out else {}
    return {"mlflow.source.git.commit": source.commit, "surefoot.git.dirty": str(bool(source.patch or source.left_out)).lower(), **left_out}


def _without_password(text: str) -> str:
    """The same text without user and password in the addresses in it."""
    return re.sub(r"://[^/\s]*@", "://", text)
