"""What is known of a run: marks of before are read, malformed ones refused in a line, an account stays as it was."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surefoot.base import digests
from surefoot.base.documents import Malformed
from surefoot.run.page import page_markdown
from surefoot.run.record import VERSION, Record, RunRecord, make_account, read_mark
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import write_mark
from tests.unit.mutated import BROKEN, WRONG, mutated, places_of

IDENTITY, ONE, TWO = "1" * 64, "a" * 64, "b" * 64
# As the Surefoot wrote it that had no version in its marks.
MARK = {
    "best": ONE,
    "chosen": ONE,
    "continues": [["2" * 64, 1]],
    "data": {
        "digest": "3" * 64,
        "source": {"md5": "4" * 32 + ".dir", "path": "data/raw/digits.csv"},
        "test": {"inputs": "5" * 64, "targets": "6" * 64},
        "train": {"inputs": "7" * 64, "targets": "8" * 64},
        "validation": {"inputs": "9" * 64, "targets": "0" * 64},
    },
    "description": {
        "dataset": {
            "batches": "3" * 64,
            "digest": "c" * 64,
            "dropped": {"rows with missing values": 2},
            "dvc_path": "data/batches",
            "path": "data/raw/digits.csv",
            "rows": {"test": 269, "train": 1259, "validation": 269},
        },
        "name": "digits mlp lr=0.01 epochs=3",
        "params": {"batch.shape": [1, 8, 8], "prepare.source": "data/raw/digits.csv", "seed": 0, "train.lr": 0.01},
        "tags": {"mlflow.source.git.commit": "d" * 40, "surefoot.git.dirty": "false", "surefoot.git.missing": ""},
        "texts": {"environment/requirements.txt": "torch==2.13.0+cpu\n"},
    },
    "epoch_keys": [ONE, TWO],
    "epochs": 3,
    "examples": [[0.0, 5, 13.5], [1, 0, 2]],
    "incomplete": "after 2 of 3 epochs train.max_minutes (1) was over",
    "last": TWO,
    "model": {
        "arguments": {"hidden": [256]},
        "classes": ["0", "1"],
        "factory": "networks.mlp:mlp",
        "features": None,
        "input_shape": [1, 8, 8],
        "scale": {"divide": [16.0], "subtract": [0]},
        "task": "classification",
    },
    "onnx": False,
    "origin": {
        "average": {},
        "data": {"batch_size": 64, "scale": None},
        "format": 2,
        "model": {"arguments": {}, "factory": "networks.mlp:mlp", "source": {"networks.mlp": "e" * 64}},
        "numerics": {
            "deterministic": True,
            "device": "cpu",
            "fingerprint": "f" * 64,
            "profile": "portable",
            "threads": 1,
        },
        "optimizer": {"dampening": 0, "momentum": 0.9, "weight_decay": 0.0},
        "schedule": {"columns": [["all", "lr"]], "follows": None},
        "seed": 0,
        "start": {"weights": "a1" * 32},
        "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
    },
    "register": None,
    "results": {"test/accuracy": 0.9665, "test_interval/accuracy_high": 0.98, "test_interval/accuracy_low": 0.93},
    "save_every": 10,
    "seen": {"others": [], "parts": [["data/raw/digits.csv", "b1" * 32]], "split": {"seed": 0}},
    "select": "best",
    "start": {
        "from": "previous",
        "keeps": True,
        "key": "c1" * 32,
        "name": "the run digits",
        "run": "2" * 64,
        "run_id": None,
        "seen": None,
        "weights": "a1" * 32,
    },
    "weights": "d1" * 32,
}
RECORDS = [
    {
        "ended": 1.5,
        "epoch": epoch,
        "key": key,
        "metrics": {"lr": 0.01, "train/loss": 1 / 3, "validation/loss": loss},
        "parent": "",
        "state": key[:2] * 32,
        "step": 20 * epoch,
    }
    for epoch, key, loss in ((1, ONE, 0.25), (2, TWO, 0.5))
]
# What that Surefoot wrote of it to MLflow.
ACCOUNT = (Path(__file__).parent / "account_of_version_1.json").read_bytes()
PARTS = ("origin", "data", "epochs", "incomplete", "select", "save_every", "model", "examples", "continues")


def read(mark):
    return read_mark(IDENTITY, digests.canonical_json(mark))


@pytest.fixture
def store(tmp_path):
    store = TrajectoryStore(tmp_path)
    for record in RECORDS:
        store.write_record(Record.model_validate(record))
    write_mark(store, IDENTITY, MARK)
    return store


def test_a_mark_of_before_is_read_and_lacks_nothing():
    run = read(MARK)
    assert (run.version, run.identity, run.lacks(), run.finished) == (VERSION, IDENTITY, None, True)
    assert run.needed == {ONE, TWO}
    assert (run.start.wanted, run.start.keeps, run.continues) == ("previous", True, [("2" * 64, 1)])
    again = json.loads(run.mark())
    assert (again.pop("version"), again.pop("identity")) == (VERSION, IDENTITY)
    assert digests.canonical_json(again) == digests.canonical_json(MARK), "0 stays 0, and 0.0 stays 0.0"
    assert read_mark(IDENTITY, run.mark()) == run


def test_the_account_of_a_run_stays_the_same(store):
    assert digests.canonical_json(make_account(store.run(IDENTITY), store).plain()) == ACCOUNT
    store.mark_run(store.run(IDENTITY))
    assert digests.canonical_json(make_account(store.run(IDENTITY), store).plain()) == ACCOUNT


def test_there_is_no_account_where_records_are_gone(store):
    store.record_path(TWO).unlink()
    assert make_account(store.run(IDENTITY), store) is None
    unfinished = read(MARK | {"last": None, "best": None, "chosen": None, "weights": None})
    assert make_account(unfinished, store) is None


def test_the_page_of_a_mark_of_before():
    text = page_markdown(read(MARK), "abc")
    assert "rows: 1,259 train, 269 validation, 269 test); 2 of 3 epochs, not complete: after 2 of 3 epochs" in text
    assert "accuracy **0.9665 [0.93, 0.98]**" in text


@pytest.mark.parametrize("name", [*PARTS, "best", "chosen", "weights"])
def test_a_mark_that_lacks_a_part_is_read_and_says_so(store, name):
    """As one that an older Surefoot left: what its states are is known, so that they are kept."""
    write_mark(store, IDENTITY, {key: value for key, value in MARK.items() if key != name})
    run = store.run(IDENTITY)
    assert (run.version, run.lacks()) == (1, f"{name} is missing")
    assert TWO in run.needed
    assert run.finished is (name != "chosen")
    assert run == read_mark(IDENTITY, run.mark())


def test_the_oldest_mark_says_its_name_and_its_states():
    oldest = {"name": "a run", "params": {}, "dataset": {}}
    run = read({"description": oldest, "epoch_keys": [ONE], "last": ONE, "best": ONE, "model_source": {}})
    assert (run.description.name, run.needed, run.finished) == ("a run", {ONE}, False)


def test_a_new_mark_has_every_part():
    whole = json.loads(read(MARK).mark())
    for name in (*PARTS, "last"):
        with pytest.raises(Malformed, match=rf"{name} is missing$"):
            read({key: value for key, value in whole.items() if key != name})
    with pytest.raises(Malformed, match="its best state isn't one of its epochs'"):
        read(whole | {"best": "c" * 64})


def test_a_mark_of_another_run_or_of_a_later_version_is_refused():
    with pytest.raises(Malformed, match=r"^it is the mark of another run$"):
        read_mark("2" * 64, read(MARK).mark())
    with pytest.raises(Malformed, match=r"^version: "):
        read(MARK | {"version": VERSION + 1})


@pytest.mark.parametrize("how", BROKEN)
def test_broken_marks(how):
    with pytest.raises(Malformed, match=r"^[^\n]+$"):
        read_mark(IDENTITY, BROKEN[how](digests.canonical_json(MARK)))


@pytest.mark.parametrize("version", [{}, {"version": VERSION, "identity": IDENTITY}])
def test_a_mutated_mark_is_refused_or_has_all_that_is_made_of_it(version, tmp_path):
    mark = MARK | version
    store = TrajectoryStore(tmp_path)
    for record in RECORDS:
        store.write_record(Record.model_validate(record))

    @settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.sampled_from(list(places_of(mark))),
        st.sampled_from(["replace", "drop", "wrap", "twice"]),
        st.sampled_from(WRONG),
    )
    def check(place, how, new):
        try:
            run = read_mark(IDENTITY, json.dumps(mutated(mark, place, how, new)).encode())
        except Malformed as error:
            assert "\n" not in str(error)
            return
        assert run.finished in (True, False)
        if run.finished and run.lacks() is None:
            page_markdown(run, "abc")
            made = make_account(run, store)
            assert made is None or made.identity == IDENTITY
            assert isinstance(run, RunRecord)

    check()
