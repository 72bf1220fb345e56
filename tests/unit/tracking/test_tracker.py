"""MLflow as it is seen from outside: what a training leaves in the store, and what a server that fails does to it."""

import csv
import json
import os
import re
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from surefoot.base import locks
from surefoot.params.params_yaml import load_params
from surefoot.run import naming
from surefoot.tracking import mlflow_store, run_links, run_model, tracker
from surefoot.tracking.description import param_name
from surefoot.tracking.metric_points import Point
from tests.helpers import PARAMS, description

NETWORKS = "tests.unit.training.networks_for_tests"


@pytest.fixture
def batched(tracked):
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    return tracked


def train(here, **environment):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return here.stage("train")


def history(here):
    with (here / "reports/history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "column",
    ["price ($)", "a#b", "größe", "", "/", "a//b", "a/../b", "../a", ".", "a/", "x" * 300, "a\nb", "名前", "a:b"],
)
def test_the_param_of_any_column_has_a_name_that_mlflow_takes(column):
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_param_name

    name = param_name(f"prepare.kinds.{column}")
    _validate_param_name(name)
    assert len(name) <= MAX_ENTITY_KEY_LENGTH
    assert param_name("train.model.arguments.hidden") == "train.model.arguments.hidden"


@pytest.mark.parametrize(
    ("edits", "label", "name"),
    [
        ({}, None, "raw mlp lr=0.1 momentum=0 batch=4 epochs=2"),
        ({"train.lr": "0.05"}, None, "raw lr=0.05 mlp momentum=0 batch=4 epochs=2"),
        ({"batch.size": "8", "train.epochs": "3"}, None, "raw batch=8 epochs=3 mlp lr=0.1 momentum=0"),
        (
            {"train.model.arguments": "{hidden: [7, 7]}"},
            None,
            "raw model.arguments.hidden=[7,7] mlp lr=0.1 momentum=0 batch=4 epochs=2",
        ),
        ({"train.epochs": "3"}, "puffy-oats", "raw lr=0.1 batch=4 epochs=3 puffy-oats"),
        ({"prepare.source": "data/raw/flowers.csv.gz"}, None, "flowers mlp lr=0.1 momentum=0 batch=4 epochs=2"),
        ({"prepare.source": "'sklearn:wine'"}, None, "wine mlp lr=0.1 momentum=0 batch=4 epochs=2"),
        ({"prepare.source": "sources.mine:rows"}, None, "sources.mine:rows mlp lr=0.1 momentum=0 batch=4 epochs=2"),
    ],
)
def test_a_runs_name_begins_with_the_data_and_what_differs(here, monkeypatch, edits, label, name):
    monkeypatch.setattr(naming.git, "committed_file", lambda path: PARAMS.encode())
    for key, value in edits.items():
        here.edit(key, value)
    assert naming.run_name(load_params(here / "params.yaml"), label) == name


# --- the default store


def test_a_training_leaves_one_run(batched):
    assert train(batched).code == 0
    (run,) = batched.runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.1"
    assert run.data.params["batch.size"] == "4"
    assert run.data.params["seed"] == "0"
    assert run.data.params["train.model.factory"] == "networks.mlp:mlp"
    assert run.data.params["train.model.arguments.hidden"] == "[5]"
    index = json.loads((batched / "data/batches/index.json").read_text())
    digest = run.data.tags["surefoot.data.digest"]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == digest[:36]
    profile = json.loads(dataset.dataset.profile)
    assert (profile["digest"], profile["batches"]) == (digest, index["digest"])
    assert re.fullmatch("[0-9a-f]{64}", run.data.tags["surefoot.fingerprint"])
    assert "DVC_EXP_NAME" not in run.data.tags


def test_a_process_with_more_open_files_than_select_knows(batched):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as opened:
            for _ in range(1100):
                opened.enter_context(Path(os.devnull).open())
            assert train(batched).code == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [run.info.status for run in batched.runs()] == ["FINISHED"]


def test_metrics_have_the_epoch_as_step(batched):
    batched.edit("train.epochs", "5")
    assert train(batched).code == 0
    (run,) = batched.runs()
    rows = history(batched)
    assert len(rows) == 5
    for name in ("train/loss", "validation/loss", "validation/accuracy", "lr"):
        logged = batched.client().get_metric_history(run.info.run_id, name)
        assert [(metric.step, metric.value) for metric in logged] == [(row["epoch"], row[name]) for row in rows]
    for name in ("epoch_seconds", "rows_per_second"):
        logged = batched.client().get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in logged] == [1, 2, 3, 4, 5]
        assert all(metric.value > 0 for metric in logged)


def test_the_store_lies_at_the_root_that_dvc_names(batched, tmp_path_factory):
    """As it is for `dvc exp run --temp`, which runs in a copy."""
    root = tmp_path_factory.mktemp("parent")
    (batched / "mlflow.db").rename(root / "mlflow.db")
    assert train(batched, DVC_ROOT=str(root), DVC_EXP_NAME="puffy-oats").code == 0
    assert not (batched / "mlflow.db").exists()
    batched.path = root
    (run,) = batched.runs()
    assert run.data.tags["DVC_EXP_NAME"] == "puffy-oats"
    assert run.info.run_name == "raw lr=0.1 batch=4 puffy-oats"
    assert "surefoot.sweep" not in run.data.tags
    assert run.info.artifact_uri.startswith((root / "mlartifacts").as_uri())


@pytest.mark.parametrize(
    ("experiment", "sweep"),
    [
        ("lr-12", "lr"),
        ("lr-and-batch-2", "lr-and-batch"),
        ("puffy-oats", "0123456"),
        ("search-ab12cd-3", "search-ab12cd"),
        ("-1", ""),
    ],
)
def test_what_the_runs_of_a_sweep_share(experiment, sweep):
    assert naming.sweep_name(experiment, "0123456789") == sweep


def test_a_run_that_a_signal_stops_is_killed(batched):
    (batched / "params.yaml").write_text(
        PARAMS.replace("networks.mlp:mlp", f"{NETWORKS}:asks_to_be_stopped").replace("{hidden: [5]}", "{}")
    )
    done = train(batched)
    assert (done.code, done.err) == (143, "stopped by SIGTERM\n")
    (run,) = batched.runs()
    assert run.info.status == "KILLED"
    assert not (batched / "models").exists()


def test_a_run_that_fails_is_failed(batched):
    batched.edit("train.model.factory", f"{NETWORKS}:returns_a_list")
    batched.edit("train.model.arguments", "{}")
    train(batched).refused()
    assert [run.info.status for run in batched.runs()] in ([], ["FAILED"])


def test_evaluate_adds_to_the_run_of_the_same_training(batched):
    for lr in ("0.1", "0.2"):
        batched.edit("train.lr", lr)
        assert train(batched).code == 0
    batched.edit("train.lr", "0.1")
    assert train(batched).code == 0
    assert batched.stage("evaluate").code == 0
    runs = {run.data.params["train.lr"]: run for run in batched.runs()}
    assert ["test/accuracy" in runs[lr].data.metrics for lr in ("0.1", "0.2")] == [True, False]
    metrics = json.loads((batched / "reports/metrics.json").read_text())["test"]
    assert {name: runs["0.1"].data.metrics[f"test/{name}"] for name in metrics} == metrics


def test_the_same_training_is_the_same_run(batched):
    for _ in range(2):
        assert train(batched).code == 0
    (run,) = batched.runs()
    assert [metric.step for metric in batched.client().get_metric_history(run.info.run_id, "train/loss")] == [
        1,
        2,
    ], "nothing is there twice"


def test_evaluate_without_a_run_goes_on(batched):
    assert train(batched).code == 0
    (run,) = batched.runs()
    batched.client().delete_run(run.info.run_id)
    done = batched.stage("evaluate")
    assert done.code == 0
    assert "Traceback" not in done.err
    assert (batched / "reports/metrics.json").is_file()


def test_a_store_that_is_no_store_is_warned_of_once(batched):
    (batched / "mlflow.db").write_bytes(b"not a database" * 100)
    warned_once(done := train(batched))
    assert (
        "mlflow.db is damaged: delete it (or move it away), then `surefoot sync` brings the runs of the trajectory"
        " store back" in done.err
    )
    trained(batched)


# --- a tracking server that fails


def warned_once(done, *hidden):
    assert done.code == 0, done
    assert done.err.count("\n") == 1, done
    assert done.err.startswith("warning: MLflow at "), done
    for secret in hidden:
        assert secret not in done.out + done.err


def trained(here):
    assert len(history(here)) == 2
    assert (here / "models/model.safetensors").is_file()


@contextmanager
def listening():
    """A socket that lets anyone connect, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def serving(answer):
    """An HTTP server; `answer(path)` gives status and JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}


def test_a_server_that_refuses_connections(batched):
    with listening() as port:
        pass  # nobody listens there any more
    warned_once(train(batched, MLFLOW_TRACKING_URI=f"http://somebody:secret@127.0.0.1:{port}", **IMPATIENT), "secret")
    trained(batched)
    assert batched.runs() == []


def test_a_server_that_never_answers(batched):
    with listening() as port:
        warned_once(train(batched, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", **IMPATIENT))
    trained(batched)


def test_a_server_that_answers_with_an_error(batched):
    with serving(lambda path: (500, {"error_code": "INTERNAL_ERROR", "message": "out of order"})) as port:
        warned_once(
            train(batched, MLFLOW_TRACKING_URI=f"http://somebody:secret@127.0.0.1:{port}", **IMPATIENT), "secret"
        )
    trained(batched)


def test_a_server_that_answers_with_something_else(batched):
    with serving(lambda path: (200, ["hello"])) as port:
        warned_once(train(batched, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", **IMPATIENT))
    trained(batched)


def test_a_server_that_breaks_down_in_the_middle(batched):
    asked = []
    info = {
        "run_id": "r1",
        "experiment_id": "1",
        "status": "RUNNING",
        "lifecycle_stage": "active",
        "artifact_uri": (batched / "artifacts").as_uri(),
    }

    def answer(path):
        method = path.partition("mlflow/")[2].partition("?")[0]
        asked.append(method)
        known = {"experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "surefoot"}}}
        known |= {"runs/create": {"run": {"info": info, "data": {}}}, "runs/get": {"run": {"info": info, "data": {}}}}
        # The first log-batch has the params, the next the metrics of an epoch.
        broken = asked.count("runs/log-batch") > 1
        return (
            (500, {"error_code": "INTERNAL_ERROR", "message": "out of order"})
            if broken
            else (200, known.get(method, {}))
        )

    with serving(answer) as port:
        warned_once(train(batched, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", **IMPATIENT))
    assert "runs/create" in asked
    trained(batched)


def test_a_server_gets_little_time_unless_the_user_says_otherwise(keep_process, monkeypatch):
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.setenv(names[1], "9")
    mlflow_store.configure()
    assert 0 < float(os.environ[names[0]]) <= 10
    assert os.environ[names[1]] == "9"
    monkeypatch.delenv(names[1])
    mlflow_store.configure()
    assert int(os.environ[names[1]]) <= 2


def test_telemetry_is_off(keep_process, monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "false")
    mlflow_store.configure()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


@pytest.mark.parametrize("switch", [None, "false"])
def test_the_load_of_the_machine_by_mlflows_own_sampler(tracked, monkeypatch, switch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    if switch:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", switch)
    one = tracker.Tracker(
        "identity",
        description(),
        locks.Locks(tracked / "lock"),
    )
    one.open("RUNNING")
    one.sample_system()
    until = time.monotonic() + 60
    while not switch and one._sampler._logging_step < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    one.end("FINISHED")
    (run,) = tracked.runs()
    found = {name for name in run.data.metrics if name.startswith("system/")}
    assert ("system/cpu_utilization_percentage" in found) is not bool(switch), found
    assert run.info.status == "FINISHED"


def test_tags_are_short_and_none_is_empty(tracked):
    said = description(tags={"surefoot.git.left_out": "", "long": "x" * 4000})
    one = tracker.Tracker("identity", said, locks.Locks(tracked / "lock"))
    one.open("RUNNING")
    one.set_tags({"surefoot.incomplete": "after 1 of 2 epochs", "more": "y" * 4000})
    (run,) = tracked.runs()
    assert run.data.tags["surefoot.incomplete"] == "after 1 of 2 epochs"
    one.set_tags({"surefoot.incomplete": "", "never.there": ""})
    run_links.describe_run(one, "z" * 4000)
    (run,) = tracked.runs()
    assert not {"surefoot.git.left_out", "surefoot.incomplete", "never.there"} & run.data.tags.keys()
    assert [name for name, value in run.data.tags.items() if len(value) > 250] == ["mlflow.note.content"]
    assert not one.lacks


def some_tracker(here):
    return tracker.Tracker("identity", description(), locks.Locks(here / "lock"))


def test_a_description_that_a_person_wrote_stays(tracked):
    first = some_tracker(tracked)
    first.open()
    for text in ("one\n", "two\n"):
        run_links.describe_run(first, text)
        note = tracked.runs()[0].data.tags["mlflow.note.content"]
        assert note.startswith(f"{text}\n<!-- written by surefoot")
    tracked.client().set_tag(first.run_id, "mlflow.note.content", note.replace("two", "mine"))
    run_links.describe_run(first, "three\n")
    assert "mine" in tracked.runs()[0].data.tags["mlflow.note.content"]
    tracked.client().set_tag(first.run_id, "mlflow.note.content", "")
    run_links.describe_run(first, "three\n")
    assert "three" in tracked.runs()[0].data.tags["mlflow.note.content"]


def test_metrics_are_shown_with_the_model_once(tracked):
    first = some_tracker(tracked)
    first.open()
    client = tracked.client()
    epochs = [Point("validation/loss", 0.5, epoch, 1_700_000_000.1237) for epoch in (1, 2)]
    first.add_points(epochs)
    run_model.log_results(first, {"test/loss": 0.25})
    run_model.log_model_metrics(first, epochs)  # without a model: nothing
    model = client.create_logged_model(tracked.runs()[0].info.experiment_id, source_run_id=first.run_id).model_id
    client.set_tag(first.run_id, "surefoot.model_id", model)
    for _ in range(2):
        run_model.log_model_metrics(first, epochs[1:])
        run_model.log_results(first, {"test/loss": 0.25, "test/accuracy": 0.9})
    linked = client.get_logged_model(model).metrics
    assert sorted((metric.key, metric.step, metric.value, metric.dataset_name) for metric in linked) == [
        ("test/accuracy", 0, 0.9, "raw.csv"),
        ("test/loss", 0, 0.25, "raw.csv"),
        ("validation/loss", 2, 0.5, "raw.csv"),
    ]
    assert len(client.get_metric_history(first.run_id, "test/loss")) == 1, "the run has it once"
    assert len(client.get_metric_history(first.run_id, "validation/loss")) == 2


def test_a_model_that_somebody_deleted_holds_nothing_up(tracked, capfd):
    first = some_tracker(tracked)
    first.open()
    tracked.client().set_tag(first.run_id, "surefoot.model_id", "m-gone")
    run_model.log_results(first, {"test/loss": 0.25})
    run_model.log_model_metrics(first, [Point("validation/loss", 0.5, 1, 1_700_000_000.0)])
    assert first.run_id, capfd.readouterr()
    assert tracked.runs()[0].data.metrics == {"test/loss": 0.25}
