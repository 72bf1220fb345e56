import os
from pathlib import Path

import pytest

from surefoot.base import digests
from surefoot.base.errors import UserError
from surefoot.commands.store import forget_run, prune_states, runs_table, total_size
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import description, some_run
from tests.unit.run.chains import STEPS, cut, walk


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / "store")


def mark(store, parts, name, *, finished=True):
    keys = [part.key for part in parts if part.ends_epoch]
    losses = {key: store.record(key).metrics["validation/loss"] for key in keys if store.record(key)}
    done = {"last": keys[-1], "best": min(losses, key=losses.get)} if finished else {"last": None, "best": None}
    identity = digests.sha256(name.encode())
    store.mark_run(some_run(identity, epoch_keys=keys, description=description(name), **done))
    return identity


def states(store, parts):
    sizes = store.state_sizes()
    return [number for number, part in enumerate(parts, 1) if part.key in sizes]


def test_the_table_says_what_there_is_and_what_is_shared(store):
    walk(store, cut(3))
    walk(store, cut(5))
    one, other = mark(store, cut(3), "three"), mark(store, cut(5), "v five")
    walk(store, cut(4, lr=0.01), stop=2)
    third = mark(store, cut(4, lr=0.01), "w stopped", finished=False)
    size = f"{next(iter(store.state_sizes().values())) * 3 / 1e6:.1f} MB"
    rows = runs_table(store)
    assert rows[0] == ["RUN", "EPOCHS", "STATES", "SIZE", "NAME", "SHARES"]
    assert rows[1] == [one[:8], "3/3", "3", size, "three", ""]
    assert rows[2][:3] + rows[2][4:] == [other[:8], "5/5", "5", "v five", f"epochs 1-3 with {one[:8]}"]
    assert rows[3][:3] + rows[3][4:] == [third[:8], "2/4", "2", "w stopped", ""]
    assert total_size(store).startswith(f"7 states, 0.0 MB in {store.path}; free on that disk: ")


def test_an_empty_store_has_a_table(store):
    assert len(runs_table(store)) == 1
    assert total_size(store).startswith("0 states, 0.0 MB in ")


def test_pruning_leaves_best_and_last_of_finished_runs_and_all_records(store):
    parts = cut(6)
    outcome = walk(store, parts)
    mark(store, parts, "run")
    losses = [record.metrics["validation/loss"] for record in outcome.records]
    sizes = store.state_sizes()
    wanted = sorted({6, losses.index(min(losses)) + 1})
    freed = sum(size for key, size in sizes.items() if key not in {parts[number - 1].key for number in wanted})
    assert prune_states(store) == (6 - len(wanted), freed)
    assert states(store, parts) == wanted
    assert all(store.record(part.key) for part in parts)
    assert prune_states(store) == (0, 0)


def test_after_pruning_nothing_is_trained_again_and_lengthening_trains_the_new_epochs(store):
    parts = cut(4, 2)
    whole = walk(store, parts)
    mark(store, parts, "run")
    prune_states(store)
    again = walk(store, parts)
    assert (again.steps, again.weights) == (0, whole.weights)
    longer = walk(store, cut(6, 2))
    assert longer.steps == 2 * STEPS
    assert longer.weights == walk(store.path.parent / "scratch", cut(6, 2)).weights


@pytest.mark.parametrize(("stop", "lacking"), [(4, 4 * STEPS - 4 * 2), (3, 3 * STEPS), (1, 4 * STEPS - 2)])
def test_an_unfinished_run_goes_on_after_pruning_where_it_was(store, stop, lacking):
    parts = cut(4, 2)
    walk(store, parts, stop=stop)
    mark(store, parts, "stopped", finished=False)
    prune_states(store)
    assert walk(store, parts).steps == lacking


def test_what_killed_writers_left_goes_and_what_a_living_one_writes_stays(store):
    walk(store, cut(1))
    mark(store, cut(1), "run")
    gone = next(pid for pid in range(2**22 - 1, 0, -1) if not Path(f"/proc/{pid}").exists())
    leftovers = [
        store.path / "chain" / f".{'a' * 64}.safetensors.{gone}.partial",
        store.path / "runs" / f".{'a' * 64}.json.{gone}.partial",
    ]
    living = store.path / "chain" / f".{'a' * 64}.safetensors.{os.getppid()}.partial"
    elsewhere = store.path / "chain" / f".{'b' * 64}.safetensors.{gone}.partial"  # it may be
    for path in [*leftovers, living, elsewhere]:
        path.write_bytes(b"half")
    for path in [*leftovers, living]:
        os.utime(path, (0, 0))
    prune_states(store)
    assert [path.exists() for path in [*leftovers, living, elsewhere]] == [False, False, True, True]


def test_a_run_that_is_forgotten_gives_its_states_to_the_next_pruning_but_for_those_that_others_need(store):
    short, long = cut(2), cut(4)
    walk(store, short)
    walk(store, long)
    one, other = mark(store, short, "short"), mark(store, long, "long")
    assert forget_run(store, other[:6]) == "long"
    assert list(store.runs()) == [one]
    prune_states(store)
    assert 2 in states(store, long)
    assert not {3, 4} & set(states(store, long))


@pytest.mark.parametrize("start", ["", "zz", "0" * 64])
def test_an_id_that_names_no_single_run(store, start):
    for name in ("one", "two"):
        walk(store, cut(1))
        mark(store, cut(1), name)
    with pytest.raises(
        UserError, match=f"^--forget {start}: (no|2) runs of the store start so; `surefoot store` lists them$"
    ):
        forget_run(store, start)
    assert len(store.runs()) == 2
