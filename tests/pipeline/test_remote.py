"""Data from elsewhere, through DVC: `dvc import-url` from a web server, and a remote on S3, both real
and on loopback.
"""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers import PROJECT, Workspace

KEYS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A directory, and the address under which a web server gives it."""
    directory = tmp_path / "web"
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield directory, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def bucket():
    """The address of an S3 server with a bucket `data`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="data")
        yield f"http://{host}:{port}"
        server.stop()


def ran(out: str) -> list[str]:
    return [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage '")]


def import_digits(workspace, web) -> None:
    directory, address = web
    shutil.copy(PROJECT / "data/raw/digits.csv", directory / "digits.csv")
    workspace.dvc("import-url", f"{address}/digits.csv", "data/raw/far.csv")
    workspace.edit("prepare.source", "data/raw/far.csv")


def test_what_a_web_server_has_feeds_the_pipeline(workspace, web):
    import_digits(workspace, web)
    done = workspace.dvc("repro", "batch")
    assert ran(done.out) == ["start_from", "prepare", "batch"]
    assert "prepared data/raw/far.csv" in done.out
    assert ran(workspace.dvc("repro", "batch").out) == []
    # A new version is fetched when it is asked for.
    lines = (web[0] / "digits.csv").read_text().splitlines(keepends=True)
    (web[0] / "digits.csv").write_text("".join(lines[:1000]))
    workspace.dvc("update", "data/raw/far.csv.dvc")
    assert ran(workspace.dvc("repro", "batch").out) == ["start_from", "prepare", "batch"]


@pytest.mark.slow
def test_a_clone_pulls_from_s3_and_has_nothing_to_run(workspace, web, bucket, tmp_path):
    import_digits(workspace, web)
    workspace.edit("train.epochs", "1")
    workspace.dvc("remote", "add", "--default", "far", "s3://data/surefoot")
    workspace.dvc("remote", "modify", "far", "endpointurl", bucket)
    workspace.dvc("repro")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=run")
    workspace.dvc("push", **KEYS)
    workspace.git("clone", "--quiet", str(workspace.path), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    (clone / ".venv").symlink_to(Path(workspace / ".venv").readlink())
    assert not (clone / "data/raw/far.csv").exists()
    (web[0] / "digits.csv").unlink()  # so that it comes from the remote
    clone.dvc("pull", **KEYS)
    assert ran(clone.dvc("repro").out) == []
    assert "up to date" in clone.dvc("status").out
    for file in ("data/raw/far.csv", "models/model.safetensors", "data/prepared/train.parquet"):
        assert (clone / file).read_bytes() == (workspace / file).read_bytes()
    assert clone.git("status", "--porcelain") == ""
