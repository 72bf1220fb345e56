"""The side of the trajectory store that machines share, by a directory that several local stores have in common."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from surefoot.base import object_store
from surefoot.base.errors import UserError
from surefoot.base.object_store import ObjectStore, Unavailable, open_object_store
from surefoot.commands.store import prune_states
from surefoot.run import trajectory_store
from surefoot.run.record import Origin, read_mark
from surefoot.run.sharing import shared_store, start_sharing
from surefoot.run.sharing.bring import bring_left, bring_noted
from surefoot.run.sharing.shared_store import SharedStore, noted, notes_of, notes_of_others, unshared
from surefoot.run.trajectory_store import TrajectoryStore, open_trajectory_store
from tests.helpers import some_run
from tests.unit.run.test_trajectory_store import KEY, OTHER, STATE, record

ORIGIN = "0" * 64
KEYS = [f"{number:064x}" for number in range(10)]


@pytest.fixture
def url(tmp_path):
    (tmp_path / "there").mkdir()
    return f"file://{tmp_path}/there"


@pytest.fixture
def machine(tmp_path, url):
    """Makes the store of a machine, by name; anew as another process sees it."""
    return lambda name: TrajectoryStore(tmp_path / name, SharedStore(url, tmp_path / name, ORIGIN))


def bring(store):
    bring_noted(open_object_store(store.shared.url), store, store.shared.notes)


def there(tmp_path):
    root = tmp_path / "there"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def chain(store):
    return sorted(path.name for path in (store.path / "chain").iterdir())


def test_what_one_has_the_other_one_reads_and_keeps(machine, tmp_path, url):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    assert there(tmp_path) == [f"{ORIGIN}/{KEY}.json", f"{ORIGIN}/{KEY}.safetensors"]
    other = machine("other")
    assert other.keys_of_states() == {KEY}
    assert (other.record(KEY), other.state_of(KEY), other.record(OTHER)) == (record(), STATE, None)
    assert other.state_sizes() == {KEY: len(STATE)}
    alone = TrajectoryStore(other.path)
    assert (alone.record(KEY), alone.state_of(KEY)) == (record(), STATE)
    assert unshared(other.path, url) == ""
    assert chain(other) == [f"{KEY}.json", f"{KEY}.safetensors"]


def test_a_state_that_was_dropped_here_comes_back(machine):
    one = machine("one")
    one.write(record(), STATE)
    one.keep_checkpoint("run", KEY)
    bring(one)
    one.drop_state(KEY)
    again = machine("one")
    assert again.state_of(KEY) == STATE
    again.drop_state(KEY)
    again.kept_checkpoint("run", KEY).unlink()
    assert machine("one").checkpoint_state("run", KEY) == STATE


def test_another_origin_is_another_place(machine, tmp_path, url):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    other = TrajectoryStore(tmp_path / "other", SharedStore(url, tmp_path / "other", "1" * 64))
    assert other.record(KEY) is None


def test_many_records_come_at_once(machine):
    one = machine("one")
    for key in KEYS:
        one.write(record(key), STATE)
    bring(one)
    other = machine("other")
    other.bring_records([*KEYS, KEY])
    assert chain(other) == [f"{key}.json" for key in KEYS]
    assert other.state_sizes() == {}


# --- Notes ---------------------------------------------------------------------------------------


def test_many_records_are_told_of(machine, monkeypatch, capsys):
    one = machine("one")
    for key in KEYS:
        one.write(record(key), STATE)
    bring(one)
    monkeypatch.setattr(trajectory_store, "MANY", 8)
    other = machine("other")
    other.bring_records([*KEYS, OTHER])
    assert capsys.readouterr().out == f"fetching 10 records from {other.shared.url}\n"
    again = machine("other")
    again.bring_records(KEYS)
    assert capsys.readouterr().out == ""


def test_records_come_first_and_of_states_the_newest(machine, tmp_path, url):
    one = machine("one")
    for key in KEYS[:4]:
        one.write(record(key), STATE)
    assert noted(one.shared.notes) == [
        *(f"{ORIGIN}/{key}.json" for key in KEYS[:4]),
        f"{ORIGIN}/{KEYS[3]}.safetensors",
    ]
    assert unshared(one.path, url) == "4 records and 1 state"
    one.mark_run(some_run("c" * 64, epoch_keys=KEYS[:4], last=KEYS[3], best=KEYS[1]))
    assert unshared(one.path, url) == "4 records and 2 states"
    bring(one)
    assert unshared(one.path, url) == ""
    assert [name for name in there(tmp_path) if "safetensors" in name] == [
        f"{ORIGIN}/{KEYS[1]}.safetensors",
        f"{ORIGIN}/{KEYS[3]}.safetensors",
    ]


def test_what_is_there_is_not_noted(machine, url):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    again = machine("one")
    again.write(record(), STATE)
    again.share_record(KEY)
    again.mark_run(some_run("c" * 64, epoch_keys=[KEY], last=KEY, best=KEY))
    assert unshared(one.path, url) == ""


def test_what_was_trained_before_it_was_shared_is_noted_when_it_is_walked(machine, tmp_path, url):
    TrajectoryStore(tmp_path / "one").write(record(), STATE)
    machine("one").share_record(KEY)
    assert unshared(tmp_path / "one", url) == "1 record"


def test_what_is_gone_or_damaged_here_is_not_brought(machine, tmp_path, url):
    one = machine("one")
    for key in KEYS[:3]:
        one.write(record(key), STATE)
        one.shared.offer(one.state_path(key))
    one.drop_state(KEYS[0])
    one.state_path(KEYS[1]).write_bytes(STATE[1:])
    one.record_path(KEYS[2]).write_bytes(b"{}")
    bring(one)
    assert there(tmp_path) == [f"{ORIGIN}/{key}.json" for key in KEYS[:2]]
    assert unshared(one.path, url) == ""


def test_notes_are_for_one_store_alone(tmp_path, url):
    assert notes_of(tmp_path, url) == notes_of(tmp_path, f"{url}/")
    assert notes_of(tmp_path, url) != notes_of(tmp_path, f"{url}/else")


def test_what_could_not_be_brought_stays_noted(machine, tmp_path, url, monkeypatch, capsys):
    one = machine("one")
    one.write(record(), STATE)
    (tmp_path / "there").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        bring(one)
    monkeypatch.setenv("SUREFOOT_STORE", url)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    one.path.rename(tmp_path / ".surefoot")
    assert not bring_left()
    assert capsys.readouterr().err == (
        f"warning: {url} lacks 1 record and 1 state: there is no such bucket or directory\n"
    )
    (tmp_path / "away").rename(tmp_path / "there")
    assert bring_left()
    assert capsys.readouterr().out == f"bringing 1 record and 1 state to {url}\nbrought\n"
    assert bring_left()
    assert capsys.readouterr().out == ""


class Slow:
    """A process that takes so many seconds to end, in a time of its own."""

    def __init__(self, seconds):
        self.seconds, self.killed, self.stdin = seconds, False, io.BytesIO()

    def wait(self, timeout=None):
        assert self.stdin.closed
        if not self.killed:
            self.seconds -= timeout
            if self.seconds > 0:
                raise subprocess.TimeoutExpired("slow", timeout)
        return 0

    def kill(self):
        self.killed = True


@pytest.mark.parametrize(
    ("takes", "stopped", "said", "killed", "left"),
    [
        (2.9, False, "", False, 0.0),
        (29.0, False, "waiting until {} has 1 record and 1 state, 30 s at most\n", False, 0.0),
        (100.0, False, "waiting until {} has 1 record and 1 state, 30 s at most\n", True, 70.0),
        (100.0, True, "waiting until {} has 1 record and 1 state, 10 s at most\n", False, 90.0),
    ],
)
def test_a_wait_at_the_end_is_bounded_and_said(machine, url, capsys, takes, stopped, said, killed, left):
    one, process = machine("one"), Slow(takes)
    one.write(record(), STATE)
    start_sharing._finish(process, one.shared, one, start_sharing.SECONDS_IF_STOPPED if stopped else None)
    assert (capsys.readouterr().out, process.killed) == (said.format(url), killed)
    assert max(process.seconds, 0.0) == pytest.approx(left, abs=0.1)


# --- Damage, and what others did -----------------------------------------------------------------


def test_each_flipped_byte_and_each_truncation_is_found(machine, tmp_path, url, capsys):
    state = STATE[:40]
    one = machine("one")
    one.write(record(state=state), state)
    bring(one)
    for kind, read in (("json", "record"), ("safetensors", "state_of")):
        path = tmp_path / "there" / ORIGIN / f"{KEY}.{kind}"
        whole = path.read_bytes()
        flipped = [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole))]
        for number, data in enumerate([*flipped, *(whole[:n] for n in range(len(whole))), whole + b"\n"]):
            path.write_bytes(data)
            other = machine(f"{kind}{number}")
            assert getattr(other, read)(KEY) is None
            assert getattr(other, read)(KEY) is None, "it isn't fetched again"
            assert capsys.readouterr().err == f"warning: {url}/{ORIGIN}/{KEY}.{kind} is damaged; it isn't used\n"
            assert f"{KEY}.{kind}" not in chain(other)
        path.write_bytes(whole)
        assert getattr(machine(f"{kind} whole"), read)(KEY) is not None


def test_a_record_of_another_key_is_not_taken(machine, tmp_path, url, capsys):
    one = machine("one")
    one.write(record(OTHER), STATE)
    bring(one)
    (tmp_path / "there" / ORIGIN / f"{OTHER}.json").rename(tmp_path / "there" / ORIGIN / f"{KEY}.json")
    assert machine("other").record(KEY) is None
    assert "is damaged; it isn't used" in capsys.readouterr().err


def test_a_state_that_cannot_be_of_the_run_is_not_taken(machine, url, capsys):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    other = machine("other")
    other.fits = lambda state: state != STATE
    assert (other.record(KEY), other.state_of(KEY)) == (record(), None)
    assert capsys.readouterr().err == f"warning: {url}/{ORIGIN}/{KEY}.safetensors is damaged; it isn't used\n"
    assert chain(other) == [f"{KEY}.json"]


@pytest.mark.parametrize("name", ["", "a\nb", "../x", "/loss", "loss/", "a//b", "x" * 300, "a:b"])
def test_a_record_with_a_metric_that_none_of_ours_is_called_is_not_taken(machine, tmp_path, capsys, name):
    one = machine("one")
    one.write(record().model_copy(update={"metrics": {name: 1.0}}), STATE)
    (tmp_path / "there" / ORIGIN).mkdir()
    shutil.copy(one.record_path(KEY), tmp_path / "there" / ORIGIN)
    assert machine("other").record(KEY) is None
    assert "is damaged; it isn't used" in capsys.readouterr().err


def test_what_is_larger_than_it_was_listed_is_not_taken(machine, tmp_path, url, capsys):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    other, place = machine("other"), tmp_path / "there" / ORIGIN
    other.bring_records([])
    (place / f"{KEY}.json").write_bytes((place / f"{KEY}.json").read_bytes() * 3)
    assert other.record(KEY) is None
    assert chain(other) == []
    one.shared._note(one.record_path(KEY))
    bring(one)
    damaged = f"warning: {url}/{ORIGIN}/{KEY}.json is damaged; "
    assert capsys.readouterr().err == (f"{damaged}it isn't used\n{damaged}delete it, so that it can be brought again\n")


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a directory"])
def test_what_is_no_file_is_not_read(machine, tmp_path, kind):
    path = tmp_path / "there" / ORIGIN / f"{KEY}.json"
    path.parent.mkdir()
    if kind == "a link":
        path.symlink_to("/proc/self/environ")
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert machine("one").record(KEY) is None


def test_what_does_not_fit_is_not_fetched(machine, tmp_path, url, monkeypatch, capsys):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 500})())
    other = machine("other")
    assert other.record(KEY) == record()
    assert other.state_of(KEY) is None
    assert capsys.readouterr().err == (
        f"warning: {url}/{ORIGIN}/{KEY}.safetensors has 10,240 bytes, more than are free here; it isn't used\n"
    )
    assert chain(other) == [f"{KEY}.json"]


def test_a_disk_that_is_full_ends_in_a_line_and_leaves_nothing(machine, monkeypatch):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)

    def full(self, name, path, largest):
        path.write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(object_store._Directory, "get", full)
    other = machine("other")
    with pytest.raises(UserError, match=r"can't be written: No space left on device"):
        other.record(KEY)
    assert chain(other) == []


def test_what_a_killed_process_was_fetching_goes_with_the_next_pruning(machine, monkeypatch):
    one = machine("one")
    one.write(record(), STATE)
    bring(one)
    monkeypatch.setattr(object_store._Directory, "get", lambda self, name, path, largest: path.write_bytes(b"half"))
    monkeypatch.setattr(shared_store.os, "getpid", lambda: 2**22 + 1)  # nobody's
    other = machine("other")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        assert other.record(KEY) is None
    (left,) = (other.path / "chain").iterdir()
    prune_states(other)
    assert left.exists(), "another machine's process may be writing it"
    os.utime(left, (0, 0))
    prune_states(other)
    assert chain(other) == []


def test_whoever_comes_second_is_told_only_if_it_came_out_otherwise(machine, tmp_path, url, capsys):
    stores = [machine(name) for name in ("one", "two", "three")]
    for store, seconds in zip(stores[:2], (1.0, 2.0), strict=True):
        store.write(record(seconds=seconds), STATE)
    stores[2].write(record(state=STATE[::-1]), STATE[::-1])
    for store in stores:
        bring(store)
    assert capsys.readouterr().err == (
        f"warning: epoch 1 came out otherwise here than recorded in {url}/{ORIGIN}/{KEY}.json: the network draws on"
        " something that its key doesn't know, such as time or its own random numbers\n"
    )
    other = machine("other")
    assert (other.record(KEY).seconds, other.state_of(KEY)) == (1.0, STATE)
    (tmp_path / "there" / ORIGIN / f"{KEY}.json").write_bytes(b"garbage")
    stores[1].shared.offer(stores[1].record_path(KEY))
    stores[1].shared._note(stores[1].record_path(KEY))
    bring(stores[1])
    assert capsys.readouterr().err == (
        f"warning: {url}/{ORIGIN}/{KEY}.json is damaged; delete it, so that it can be brought again\n"
    )


def test_where_a_wrong_record_is_to_be_deleted(machine, url):
    """Deleted here alone, it would come back from there."""
    one = machine("one")
    one.write(record(), STATE)
    assert one.where_recorded(KEY) == str(one.record_path(KEY))
    bring(one)
    other = machine("other")
    assert other.where_recorded(KEY) == f"{other.record_path(KEY)} and {url}/{ORIGIN}/{KEY}.json"


def test_a_store_that_goes_away_is_told_of_once(machine, tmp_path, monkeypatch, capsys):
    one = machine("one")
    for key in KEYS:
        one.write(record(key), STATE)
    bring(one)

    def gone(self, name, path, largest):
        raise Unavailable("it is gone")

    monkeypatch.setattr(ObjectStore, "get", gone)
    other = machine("other")
    other.bring_records(KEYS)
    assert [other.record(key) for key in KEYS] == [None] * len(KEYS)
    assert capsys.readouterr().err.count("it is gone") == 1


@pytest.mark.parametrize("refused", [{KEYS[3]}, set(KEYS)])
def test_an_object_that_is_refused_costs_that_one_and_several_all(machine, monkeypatch, capsys, refused):
    one = machine("one")
    for key in KEYS:
        one.write(record(key), STATE)
    bring(one)
    get = ObjectStore.get

    def refuse(self, name, path, largest):
        if Path(name).stem in refused:
            raise Unavailable("AccessDenied", refused=True)
        return get(self, name, path, largest)

    monkeypatch.setattr(ObjectStore, "get", refuse)
    other = machine("other")
    assert {key for key in KEYS if other.record(key) is None} == refused
    said = capsys.readouterr().err.splitlines()
    assert sum(line.endswith(".json can't be read: AccessDenied; it isn't used") for line in said) == min(
        3, len(refused)
    )
    assert len(said) == min(4, len(refused))


def test_notes_for_a_store_that_is_not_used_any_more_are_found(machine, tmp_path, url):
    one = machine("one")
    one.write(record(), STATE)
    assert notes_of_others(one.path, url) == {}
    assert notes_of_others(one.path, None) == notes_of_others(one.path, "s3://b/c") == {one.shared.notes: 2}


# --- This repository's store ---------------------------------------------------------------------


def test_the_origin_of_a_run_is_told_alike_from_its_plan_and_its_mark(monkeypatch, tmp_path, url):
    """However it was written down between: as an object, in a mark, in an account."""
    plain = {"seed": 1, "numerics": {"profile": "portable", "threads": 1, "fingerprint": "f" * 64}, "versions": {}}
    plain |= {"rate": 1.0, "tiny": 1e-300, "list": [1, 2.5, None, {"b": True, "a": "ü"}], "schedule": {"columns": 3}}
    monkeypatch.setenv("SUREFOOT_STORE", url)
    origin = Origin.model_validate(plain)
    marked = read_mark("c" * 64, some_run("c" * 64, origin=origin).mark()).origin
    one, *others = (open_trajectory_store(given).shared._origin for given in (plain, origin, marked))
    assert others == [one, one]


def test_without_a_url_or_an_origin_nothing_is_shared(monkeypatch, tmp_path, url):
    monkeypatch.setenv("SUREFOOT_STORE", url)
    assert open_trajectory_store(None).shared is None
    monkeypatch.setenv("SUREFOOT_STORE", str(tmp_path / "there"))
    assert open_trajectory_store({"seed": 1}).shared is None
