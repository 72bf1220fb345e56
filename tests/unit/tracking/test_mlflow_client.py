"""Calls to MLflow end, whatever a server answers, and say in a line why they failed."""

import gc
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import pytest

from surefoot.base.errors import UserError
from surefoot.commands import ui_page_state
from surefoot.tracking import find_runs, mlflow_client
from surefoot.tracking.mlflow_client import OutOfReach, Refused

RUN = "0123456789abcdef" * 2


@contextmanager
def server(answer):
    """An HTTP server on 127.0.0.1; `answer(handler, gone)` answers a request, `gone` is set when the test is over."""
    gone = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                answer(self, gone)
            except OSError:  # the client hung up
                self.close_connection = True

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *arguments):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request, address):
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            gone.set()
            http.shutdown()
            thread.join()


def send(handler, body, status=200, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def says(status):
    return lambda handler, gone: send(handler, {"error_code": "", "message": "no"}, status, Retry_After="3600")


def never(handler, gone):
    gone.wait()


def drips(handler, gone):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not gone.wait(0.1):
        handler.wfile.write(b" ")


def drips_headers(handler, gone):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not gone.wait(0.1):
        handler.wfile.write(b"x")


def never_ends(handler, gone):
    handler.send_response(200)
    handler.end_headers()
    while not gone.is_set():
        handler.wfile.write(b" " * 100_000)


def turns_in_a_circle(handler, gone):
    send(handler, b"", 302, Location=handler.path)


def hangs_up(handler, gone):
    handler.close_connection = True


@pytest.fixture
def reached(monkeypatch):
    """Reads from a server, in a hurry; what came of it."""
    import_module("mlflow")  # takes longer than a call may
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(mlflow_client, "WAITS", 1)

    def reach(answer, what=lambda client: find_runs.find_run(client, RUN)):
        with server(answer) as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//somebody:secret@"))
            with pytest.raises(UserError) as error, find_runs.reading_mlflow() as client:
                what(client)
            assert "secret" not in str(error.value)
            assert "\n" not in str(error.value)
            return str(error.value)

    return reach


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 418, 429, 500, 501, 502, 503, 504, 599])
def test_each_status_is_told(reached, status):
    assert "can't be read: " in reached(says(status), lambda client: find_runs.search_runs(client))


@pytest.mark.parametrize("answer", [never, drips, drips_headers, turns_in_a_circle, hangs_up])
def test_a_server_that_gives_no_answer(reached, answer):
    assert "can't be read: " in reached(answer, lambda client: find_runs.search_runs(client))


def test_a_call_that_is_left_behind_ends_and_holds_no_object_of_others(reached, monkeypatch):
    """Who lists all objects holds a tuple that is being made, and then Python can't make it longer: a training beside
    would fail.
    """
    listed = []
    monkeypatch.setattr(gc, "get_objects", lambda *_: listed.append(1) or [])
    made = []

    def drips_until_hung_up(handler, gone):
        made.extend(thread for thread in threading.enumerate() if thread.name.endswith("(work)"))
        never_set = threading.Event()
        drips_headers(handler, never_set)

    assert "no whole answer came" in reached(drips_until_hung_up)
    for thread in made:
        thread.join(60)
    assert made
    assert not any(thread.is_alive() for thread in made)
    assert not listed


def test_an_answer_without_an_end_is_not_kept_in_memory(reached, monkeypatch):
    monkeypatch.setattr(mlflow_client, "LARGEST_ANSWER", 1_000_000)
    assert "an answer has more than 1,000,000 bytes" in reached(
        never_ends, lambda client: find_runs.search_runs(client)
    )


@pytest.mark.parametrize("answer", [says(503), drips])
def test_artifacts_have_no_other_patience(reached, tmp_path, answer):
    def only_artifacts_fail(handler, gone):
        if "artifacts" in handler.path:
            answer(handler, gone)
        else:
            send(
                handler,
                {
                    "run": {
                        "info": {
                            "run_id": RUN,
                            "status": "FINISHED",
                            "artifact_uri": f"mlflow-artifacts:/1/{RUN}/artifacts",
                        }
                    }
                },
            )

    file = tmp_path / "file"
    file.write_bytes(b"x")
    for act in (
        lambda client: client.download_artifacts(RUN, "file", str(tmp_path)),
        lambda client: client.log_artifact(RUN, str(file)),
        lambda client: find_runs.read_artifact(client, client.get_run(RUN), "a/file"),
    ):
        assert "can't be read: " in reached(only_artifacts_fail, act)


# Of other JSON types than MLflow's, and other texts than JSON.
ANSWERS = [
    *(b"", b"null", b"[]", b'"x"', b"5", b"[[[[", b"\xff\xfe", b"<html>", b"[" * 100_000),
    *(
        {"experiment": wrong, "run": wrong, "runs": wrong}
        for wrong in (5, "x", [], [[]], {"info": 3}, {"info": {"run_id": [], "status": {}}}, {"data": "x"})
    ),
    {"experiment": {"experiment_id": "1", "name": "surefoot"}, "runs": [{}], "run": {}},
    {"experiment": {"experiment_id": {}, "name": []}, "runs": [{"info": {"run_id": "../..", "status": "FINISHED"}}]},
    {
        "experiment": {"experiment_id": "1"},
        "runs": [{"info": {"run_id": RUN, "status": "FINISHED"}, "data": {"metrics": [{"key": 1, "value": "x"}]}}],
    },
]


@pytest.mark.parametrize("body", ANSWERS, ids=range(len(ANSWERS)))
def test_answers_of_other_types_are_told(reached, body):
    assert reached(lambda handler, gone: send(handler, body), lambda client: find_runs.find_run(client, "a name"))


def test_a_refusal_is_no_outage(monkeypatch):
    def refuses_one(handler, gone):
        known = {"experiments": []} if "search" in handler.path else None
        send(handler, known or {"error_code": "INTERNAL_ERROR", "message": "this one never"}, 200 if known else 500)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    for answer, failure in ((refuses_one, Refused), (says(500), OutOfReach)):
        with server(answer) as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            with pytest.raises(failure):
                mlflow_client.connect().get_run(RUN)


@pytest.mark.parametrize(("status", "seen"), [(200, "3.18.0"), (404, None), (503, None)])
def test_the_version_that_serves_a_page_is_the_servers(monkeypatch, status, seen):
    def answer(handler, gone):
        send(handler, b"3.18.0", status if handler.path == "/version" else 200)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with server(answer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert ui_page_state._serving_version() == seen
