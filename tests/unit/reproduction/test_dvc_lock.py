"""What dvc.lock names, and DVC's cache has of it."""

import hashlib
import json
from pathlib import Path

import pytest

from surefoot.reproduction import dvc_lock


def md5(data):
    return hashlib.md5(data).hexdigest()


def cache(data, ending=""):
    """Put bytes into DVC's cache; their MD5."""
    digest = md5(data) + ending
    path = Path(".dvc/cache/files/md5") / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


@pytest.fixture
def lock(here):
    """Writes dvc.lock with an output of a stage."""

    def write(stage, path, digest):
        Path("dvc.lock").write_text(
            f"schema: '2.0'\nstages:\n  {stage}:\n    cmd: x\n    outs:\n    - path: {path}\n      md5: {digest}\n"
        )

    return write


def test_a_file_and_the_files_of_a_directory(lock):
    one, two = cache(b"one"), cache(b"two")
    listing = cache(
        json.dumps(
            [{"md5": one, "relpath": "a"}, {"md5": two, "relpath": "b/c"}, {"md5": "0" * 32, "relpath": "gone"}]
        ).encode(),
        ".dir",
    )
    lock("batch", "data/batches", listing)
    digest = dvc_lock.recorded_md5("batch", "outs", Path("data/batches"))
    assert digest == listing
    assert {name: path.read_bytes() for name, path in dvc_lock.cached_directory(digest).items()} == {
        "a": b"one",
        "b/c": b"two",
    }
    assert dvc_lock.cached_file(one).read_bytes() == b"one"
    assert dvc_lock.cached_file(None) is None
    assert dvc_lock.cached_file("0" * 32) is None
    assert dvc_lock.recorded_md5("batch", "deps", Path("data/batches")) is None
    assert dvc_lock.recorded_md5("train", "outs", Path("data/batches")) is None


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "0", "[1]", "null"])
def test_what_is_no_md5(lock, digest):
    lock("batch", "data/batches", digest)
    assert dvc_lock.recorded_md5("batch", "outs", Path("data/batches")) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "stages: 1", "stages: {batch: {outs: [1]}}", "stages: {batch: {outs: [{path: data/batches}]}}", "{"],
)
def test_a_damaged_lock(here, text):
    Path("dvc.lock").write_text(text)
    assert dvc_lock.recorded_md5("batch", "outs", Path("data/batches")) is None


@pytest.mark.parametrize("listing", [b"1", b"{", b'{"a": 1}', b'[{"md5": 1, "relpath": "a"}]', b"\xff"])
def test_a_damaged_listing(here, listing):
    assert dvc_lock.cached_directory(cache(listing, ".dir")) == {}


@pytest.mark.parametrize("settings", [b"no section", b"[cache\n", b"\xff\xfe"])
def test_damaged_settings_of_dvc_name_no_other_cache(here, settings):
    one = cache(b"one")
    Path(".dvc/config").write_bytes(settings)
    assert dvc_lock.cached_file(one).read_bytes() == b"one"
