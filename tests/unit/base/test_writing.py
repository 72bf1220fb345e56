import errno
import json
import math
import os
import re
import socket
from pathlib import Path

import pytest

from surefoot.base import digests, paths, reading, writing
from surefoot.base.errors import UserError


def test_the_root_is_where_dvc_says_or_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.repository_root() == tmp_path
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    assert paths.repository_root() == tmp_path / "parent"
    monkeypatch.setenv("DVC_ROOT", "")
    assert paths.repository_root() == tmp_path


@pytest.mark.parametrize("below", [".", "ml/für ziffern"])
def test_a_subfolder_of_what_dvc_works_in_is_a_root_of_its_own(tmp_path, monkeypatch, below):
    """By the commands, which DVC tells nothing, in the stages, and in DVC's temporary copies of the repository."""
    top = tmp_path / "top"
    copy = top / ".dvc/tmp/exps/tmpabc"
    for place in (top, copy):
        (place / below).mkdir(parents=True, exist_ok=True)
        (place / ".dvc").mkdir(exist_ok=True)
    root = (top / below).resolve()
    monkeypatch.chdir(root)
    assert (paths.repository_root(), paths.dvc_root()) == (root, top)
    monkeypatch.setenv("DVC_ROOT", str(top))
    assert (paths.repository_root(), paths.dvc_root()) == (root, top)
    monkeypatch.chdir(copy / below)
    assert (paths.repository_root(), paths.dvc_root()) == (root, top)
    assert paths.trajectory_store() == root / ".surefoot"


def test_canonical_json_has_one_spelling():
    assert digests.canonical_json({"b": [1, 0.1, None, True], "a": "é"}) == b'{"a":"\\u00e9","b":[1,0.1,null,true]}'
    assert digests.canonical_json({"a": 1, "b": 2}) == digests.canonical_json({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_takes_no_nan(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digests.canonical_json([value])
    with pytest.raises(ValueError, match="not JSON compliant"):
        writing.write_json(tmp_path / "file", [value])
    assert not list(tmp_path.iterdir())


def test_digests(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digests.sha256(b"abc") == digests.sha256_file(tmp_path / "file") == digest


def test_a_file_is_written_with_its_directories(tmp_path):
    file = tmp_path / "some" / "where" / "file.json"
    writing.write_json(file, {"a": [1, 2]})
    assert json.loads(file.read_text()) == {"a": [1, 2]}
    assert file.read_text().endswith("]\n}\n")
    assert [path.name for path in file.parent.iterdir()] == ["file.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    file = tmp_path / "file"
    writing.write_bytes(file, b"old")

    def full(self, data):
        with self.open("wb") as half:
            half.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=f"^{file} can.t be written: No space left on device"):
        writing.write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("path", [".", "/"])
def test_a_directory_is_no_place_for_a_file(tmp_path, monkeypatch, path):
    """As `surefoot schedule --out .` names one, whose path has no last part."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^{re.escape(path)} can't be written: Is a directory"):
        writing.write_bytes(Path(path), b"")


def test_writing_does_not_change_a_file_that_is_linked(tmp_path):
    """DVC's cache may be linked to: what is there must stay as it was."""
    cached, file = tmp_path / "cached", tmp_path / "file"
    cached.write_bytes(b"old")
    file.hardlink_to(cached)
    writing.write_bytes(file, b"new")
    assert (cached.read_bytes(), file.read_bytes()) == (b"old", b"new")


def test_files_that_are_written_durably_are_renamed_in_their_order(tmp_path, monkeypatch):
    renamed, real = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (renamed.append(Path(to).name), real(self, to)))
    writing.write_durably(tmp_path / "new", {"state": b"1", "record": b"2"})
    assert renamed == ["state", "record"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"state": b"1", "record": b"2"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_cannot_be_written_durably_is_named_and_leaves_no_rest(tmp_path, monkeypatch, step):
    (tmp_path / "state").write_bytes(b"0")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space") as failed:
        writing.write_durably(tmp_path, {"state": b"1"})
    assert failed.value.filename == str(tmp_path / "state")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("state", b"0")]


def test_a_new_directory_takes_the_place_of_the_old(tmp_path):
    target = tmp_path / "data" / "out"
    for text in ("one", "two"):
        with writing.new_directory(target) as out:
            (out / text).write_text(text)
            assert out != target
    assert [path.name for path in target.iterdir()] == ["two"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_new_directory_vanishes_when_its_block_fails(tmp_path, error):
    target = tmp_path / "out"
    with writing.new_directory(target) as out:
        (out / "old").touch()
    with pytest.raises(error), writing.new_directory(target) as out:
        (out / "new").touch()
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").touch()
    with writing.new_directory(tmp_path / "out") as out:
        (out / "whole").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "whole"]


def test_a_new_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/new can't be written: Not a directory"),
        writing.new_directory(tmp_path / "file/new"),
    ):
        pass


def test_only_a_full_disk_is_told_to_be_freed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"x can't be written: (Not a directory|File exists)\nwhat was stored before is whole$"
    ):
        writing.write_bytes(tmp_path / "file" / "x", b"")
    assert str(writing.unwritable("x", OSError(errno.ENOSPC, "No space left on device"))).endswith(
        "is whole: free some space, then run again"
    )


# --- files from elsewhere


def test_a_file_from_elsewhere_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    assert reading.read_file(tmp_path / "file") == reading.read_file(tmp_path / "link", 3) == b"abc"
    assert reading.read_file(tmp_path / "empty") == b""
    with reading.open_file(tmp_path / "file") as file:
        assert (file.read(2), file.read()) == (b"ab", b"c")
    with pytest.raises(FileNotFoundError):
        reading.read_file(tmp_path / "none")


def odd(tmp_path, kind):
    """A path that is no regular file, or lies about its size."""
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(reading.LARGEST_WHOLE + 1)
    else:
        path.symlink_to(
            {"device": "/dev/zero", "directory": tmp_path, "proc": "/proc/self/status", "text": "/proc/cpuinfo"}[kind]
        )
    return path


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "it is a pipe, not a file"),
        ("socket", "it is a socket, not a file"),
        ("device", "it is a device, not a file"),
        ("directory", "it is a directory, not a file"),
        ("proc", "it doesn't hold as many bytes as the system says"),
        ("text", "it doesn't hold as many bytes as the system says"),
        ("large", "it has 67,108,865 bytes; 67,108,864 are the most that are taken"),
    ],
)
def test_only_a_regular_file_of_bounded_size_is_opened(tmp_path, kind, why):
    path = odd(tmp_path, kind)
    with pytest.raises(OSError, match=why) as caught:
        reading.read_file(path)
    assert caught.value.filename == str(path)


def test_weights_are_read_where_their_header_accounts_for_all(tmp_path):
    path = tmp_path / "weights.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    whole = len(header).to_bytes(8, "little") + header + b"\0" * 8
    path.write_bytes(whole)
    assert reading.read_weights(path) == whole
    deep = b'{"a":' * 100_000
    for wrong in (
        b"",
        b"\0" * 8,
        whole[:-1],
        whole + b"\0",
        b"\xff" * 40,
        b"\2" + b"\0" * 7 + b"[]",
        len(deep).to_bytes(8, "little") + deep,
    ):
        path.write_bytes(wrong)
        with pytest.raises(OSError, match="it isn't a safetensors file, or is cut short or damaged"):
            reading.read_weights(path)
    with path.open("wb") as file:  # all of it zeros, and none of them on the disk
        file.truncate(1 << 37)
    with pytest.raises(OSError, match="it isn't a safetensors file"):
        reading.read_weights(path)


def test_no_file_has_a_nul_in_its_name():
    with pytest.raises(OSError, match="NUL"):
        reading.open_file(Path("a\0.safetensors"))
