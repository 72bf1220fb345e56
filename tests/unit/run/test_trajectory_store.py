import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot.base import digests
from surefoot.base.errors import UserError
from surefoot.run.record import Record
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import some_run

KEY, OTHER = "a" * 64, "b" * 64
STATE = bytes(range(256)) * 40


def record(key=KEY, state=STATE, **more):
    told = {"key": key, "state": digests.sha256(state), "epoch": 1, "step": 1, "metrics": {"train/loss": 0.1}}
    return Record.model_validate(told | more)


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / "store")


def names(store):
    return sorted(path.relative_to(store.path).as_posix() for path in store.path.rglob("*") if path.is_file())


def test_what_is_written_is_read(store):
    assert store.record(KEY) is None
    store.write(record(), STATE)
    assert names(store) == [f"chain/{KEY}.json", f"chain/{KEY}.safetensors"]
    assert store.record(KEY) == record()
    assert store.state(record()) == STATE
    assert store.state_sizes() == {KEY: len(STATE)}


def test_an_empty_store_needs_no_directory(store):
    assert (store.runs(), store.state_sizes(), store.record(KEY), store.state(record())) == ({}, {}, None, None)
    assert not store.path.exists()


def test_a_record_is_sealed_and_has_one_spelling(store):
    one = record(a=1, b=2)
    other = Record.model_validate(dict(reversed(one.plain().items())))
    store.write(one, STATE)
    data = store.record_path(KEY).read_bytes()
    digest, _, body = data.partition(b"\n")
    assert digest.decode() == digests.sha256(body)
    assert body == json.dumps(one.plain(), sort_keys=True, separators=(",", ":")).encode()
    store.write(other, STATE)
    assert store.record_path(KEY).read_bytes() == data


@pytest.mark.parametrize("links", [True, False])
def test_a_checkpoint_outlives_its_state(store, monkeypatch, links):
    if not links:  # as on some disks

        def refuse(*_):
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
    store.keep_checkpoint("run", KEY)  # without a state: nothing
    store.write(record(), STATE)
    for _ in range(2):
        store.keep_checkpoint("run", KEY)
    store.drop_state(KEY)
    assert store.state_of(KEY) is None
    assert store.checkpoint_state("run", KEY) == STATE
    assert store.checkpoints_size("run") == len(STATE)
    assert names(store) == [f"chain/{KEY}.json", f"checkpoints/run/{KEY}.safetensors"]
    store.kept_checkpoint("run", KEY).write_bytes(STATE[1:])
    assert store.checkpoint_state("run", KEY) is None


def test_a_state_that_is_dropped_leaves_its_record(store):
    store.write(record(), STATE)
    store.drop_state(KEY)
    store.drop_state(KEY)
    assert (store.record(KEY), store.state(record()), store.state_sizes()) == (record(), None, {})


# --- Damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["record", "state", "mark"])
def test_each_flipped_byte_and_each_truncation_is_found(store, what, capsys):
    state = STATE[:300]
    store.write(record(state=state), state)
    store.mark_run(some_run("c" * 64, last=KEY))
    path = {
        "record": store.record_path(KEY),
        "state": store.state_path(KEY),
        "mark": store.path / "runs" / f"{'c' * 64}.json",
    }[what]
    read = {
        "record": lambda store: store.record(KEY),
        "state": lambda store: store.state(record(state=state)),
        "mark": lambda store: store.runs().get("c" * 64),
    }[what]
    whole = path.read_bytes()
    damaged = [
        whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in (1, 128)
    ]
    for data in [*damaged, *(whole[:place] for place in range(len(whole))), whole + b"\n", whole + whole]:
        path.write_bytes(data)
        assert read(TrajectoryStore(store.path)) is None
        assert capsys.readouterr().err == f"warning: {path} is damaged; it isn't used\n"
    path.write_bytes(whole)
    assert read(TrajectoryStore(store.path)) is not None


def test_damage_is_told_once(store, capsys):
    store.write(record(), STATE)
    store.state_path(KEY).write_bytes(b"")
    store.record_path(KEY).write_bytes(b"{}")
    for _ in range(3):
        assert store.record(KEY) is None
        assert store.state(record()) is None
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"warning: {store.record_path(KEY)} is damaged; it isn't used",
        f"warning: {store.state_path(KEY)} is damaged; it isn't used",
    ]


def test_a_record_under_another_key_is_not_used(store, capsys):
    store.write(record(), STATE)
    store.record_path(OTHER).write_bytes(store.record_path(KEY).read_bytes())
    assert store.record(OTHER) is None
    assert str(store.record_path(OTHER)) in capsys.readouterr().err


def test_a_state_under_another_key_is_not_used(store):
    store.write(record(), STATE)
    store.write(record(OTHER, b"other"), b"other")
    store.state_path(OTHER).write_bytes(STATE)
    assert store.state(record(OTHER, b"other")) is None


def test_what_cannot_be_read_counts_as_missing(store, capsys):
    store.record_path(KEY).mkdir(parents=True)
    assert store.record(KEY) is None
    assert (
        capsys.readouterr().err
        == f"warning: {store.record_path(KEY)} can't be read (it is a directory, not a file); it isn't used\n"
    )


# --- Writing -------------------------------------------------------------------------------------


class Calls:
    """What is asked of the system while files are written, in order."""

    def __init__(self, monkeypatch):
        self.seen = []
        fsync, replace = os.fsync, os.replace

        def seen_fsync(descriptor):
            self.seen.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
            fsync(descriptor)

        def seen_replace(source, to):
            self.seen.append(("replace", str(source), str(to)))
            replace(source, to)

        monkeypatch.setattr(os, "fsync", seen_fsync)
        monkeypatch.setattr(os, "replace", seen_replace)


def test_writing_is_durable_and_the_record_comes_last(store, monkeypatch):
    calls = Calls(monkeypatch)
    store.write(record(), STATE)
    state, about = str(store.state_path(KEY)), str(store.record_path(KEY))
    kinds = [call[0] for call in calls.seen]
    assert kinds == ["fsync", "fsync", "replace", "replace", "fsync"]
    assert [call[1] for call in calls.seen[:2]] == [
        call[1] for call in calls.seen[2:4]
    ]  # each file whole before it is renamed
    assert [call[2] for call in calls.seen[2:4]] == [state, about]
    assert calls.seen[4] == ("fsync", str(store.path / "chain"))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_failure_names_the_file_and_leaves_nothing_half_written(store, monkeypatch, call, nth):
    store.write(record(n=0), STATE)
    before = {name: (store.path / name).read_bytes() for name in names(store)}
    count = 0

    def fails(real):
        def wrapper(*arguments):
            nonlocal count
            count += 1
            if count == nth:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return wrapper

    if call == "write":
        monkeypatch.setattr(Path, "open", fails(Path.open))
    else:
        monkeypatch.setattr(os, call, fails(getattr(os, call)))
    path = (store.state_path(OTHER), store.record_path(OTHER))[nth - 1]
    with pytest.raises(
        UserError,
        match=rf"^{re.escape(str(path))} can't be written: No space left on device\nwhat was stored before is whole",
    ):
        store.write(record(OTHER), STATE)
    monkeypatch.undo()
    after = {name: (store.path / name).read_bytes() for name in names(store)}
    if (call, nth) == ("replace", 2):  # a state without its record: harmless
        assert after.pop(f"chain/{OTHER}.safetensors") == STATE
    assert after == before
    assert store.record(OTHER) is None


def test_a_mark_that_cannot_be_written(store):
    store.path.mkdir()
    (store.path / "runs").touch()
    with pytest.raises(UserError, match="runs can't be written: "):
        store.mark_run(some_run(KEY))


FILLS = """
import resource, sys
from pathlib import Path
from surefoot.base.errors import run_process
from surefoot.run.record import Record
from surefoot.run.trajectory_store import TrajectoryStore
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
state = bytes(20000)
record = Record(key="b" * 64, state="c" * 64, epoch=1, step=1)
run_process(lambda: TrajectoryStore(Path(sys.argv[1])).write(record, state))
"""


def test_a_limit_of_the_system_is_told_and_leaves_nothing(store):
    store.write(record(), STATE)
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(store.path)],
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done
    why = "the limit on the size of a file is reached: `ulimit -f` is 4; raise it"
    assert done.stderr.startswith(f"error: {store.state_path(OTHER)} can't be written: {why}\n")
    assert names(store) == [f"chain/{KEY}.json", f"chain/{KEY}.safetensors"]


def test_what_a_killed_writer_left_is_no_state(store):
    store.write(record(), STATE)
    (store.path / "chain" / f".{OTHER}.safetensors.123.partial").write_bytes(b"half")
    (store.path / "chain" / f".{OTHER}.json.123.partial").write_bytes(b"half")
    assert list(store.state_sizes()) == [KEY]
    assert store.record(OTHER) is None


# --- Several processes ---------------------------------------------------------------------------


def test_a_state_that_another_process_deletes_meanwhile_is_left_out(store, monkeypatch):
    store.write(record(), STATE)
    store.write(record(OTHER), STATE)
    store.mark_run(some_run(KEY))
    store.mark_run(some_run(OTHER))
    real = Path.glob

    def glob(self, pattern):
        found = list(real(self, pattern))
        for path in found:
            if path.name.startswith("b"):
                path.unlink()
        return iter(found)

    monkeypatch.setattr(Path, "glob", glob)
    assert list(store.state_sizes()) == [KEY]
    assert list(store.runs()) == [KEY]


def test_runs_are_read_again_when_they_change(store):
    one, other = TrajectoryStore(store.path), TrajectoryStore(store.path)
    one.mark_run(some_run(KEY, last=None))
    assert other.runs() == {KEY: some_run(KEY, version=1, last=None)}
    one.mark_run(some_run(KEY, last=OTHER))
    one.mark_run(some_run(OTHER, last=None))
    assert {identity: run_process.last for identity, run_process in other.runs().items()} == {KEY: OTHER, OTHER: None}
    (store.path / "runs" / f"{KEY}.json").unlink()
    assert list(other.runs()) == [OTHER]


def test_a_chain_of_ten_thousand_records_is_walked(store, monkeypatch):
    import numpy as np
    import torch

    from surefoot.run.segments import all_segments
    from tests.unit.run import chains

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    parts = all_segments({}, [np.full(2, 0.1)] * 10_000, 0)
    for part in parts:
        metrics = {"train/loss": 1.0, "validation/loss": 1.0, "validation/accuracy": 0.5, "lr": 0.1}
        store.write(record(part.key, b"", epoch=part.epoch, rows=1, loss_sum=1.0, metrics=metrics), b"")
    store.drop_state(parts[0].key)
    with chains.chain(
        parts, store, lambda: pytest.fail("no trainer is needed"), lambda epoch: torch.arange(1)
    ) as chain:
        assert [reached.record.epoch for reached in chain.follow()] == list(range(1, 10_001))
        assert chain.steps_trained == 0
