import hashlib
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surefoot.base import digests, writing
from surefoot.base.errors import UserError
from surefoot.run.chain import DISK_SHARE
from surefoot.run.segments import all_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.divergence import Diverged
from tests.unit.run import chains
from tests.unit.run.chains import (
    CLASSES,
    STEPS,
    TRAINING,
    VALIDATION,
    Scratch,
    chain,
    cut,
    make,
    make_model,
    order,
    schedule,
    trainer,
    walk,
)

EPOCHS = 4
by_hand = cache(chains.by_hand)
STATES, METRICS, WEIGHTS = by_hand(EPOCHS)


@pytest.fixture(scope="module", autouse=True)
def _no_fsync():
    """test_trajectory_store.py looks at fsync; here it only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


def check(outcome, epochs=EPOCHS):
    """The records are those of the loop written by hand, bit for bit."""
    states, metrics, weights = (STATES, METRICS, WEIGHTS) if epochs == EPOCHS else by_hand(epochs)
    assert [record.metrics for record in outcome.records] == metrics
    assert [record.state for record in outcome.records] == [states[STEPS * epoch] for epoch in range(1, epochs + 1)]
    assert [record.epoch for record in outcome.records] == list(range(1, epochs + 1))
    assert outcome.weights == weights


def check_store(path):
    """Every record in the store is that of the loop written by hand; the number of records."""
    store = TrajectoryStore(path)
    found = [record for file in (path / "chain").glob("*.json") if (record := store.record(file.stem))]
    for record in found:
        assert record.state == STATES[record.step]
        state = store.state(record)
        assert state is None or digests.sha256(state) == STATES[record.step]
    return len(found)


# --- Segments and their keys ---------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 12))
def test_segments_cover_each_step_once_in_order(lengths, checkpoint_every):
    lrs = np.arange(1.0, sum(lengths) + 1)
    parts = all_segments({}, np.split(lrs, np.cumsum(lengths)[:-1]), checkpoint_every)
    assert np.concatenate([part.values[:, 0] for part in parts]).tolist() == lrs.tolist()
    assert [part.steps_before for part in parts] == np.cumsum([0, *(len(part.values) for part in parts)])[:-1].tolist()
    assert [part.parent for part in parts[1:]] == [part.key for part in parts[:-1]]
    assert [part.epoch for part in parts if part.ends_epoch] == list(range(1, len(lengths) + 1))
    for part in parts:
        assert part.steps_before == sum(lengths[: part.epoch - 1]) + part.first
        assert part.ends_epoch == (part.first + len(part.values) == lengths[part.epoch - 1])
        assert len(part.values) <= (checkpoint_every or max(lengths))
        assert len(part.values) == checkpoint_every or part.ends_epoch


def test_a_key_is_the_digest_of_origin_and_learning_rates():
    parts = all_segments({"b": 1, "a": 2}, [np.array([0.5, 0.25]), np.array([2.0])], 0)
    origin = b'{"a":2,"b":1}'
    assert parts[0].parent == hashlib.sha256(origin).hexdigest()
    assert parts[0].key == hashlib.sha256(origin + np.array([0.5, 0.25], "<f8").tobytes()).hexdigest()
    assert parts[1].key == hashlib.sha256(origin + np.array([0.5, 0.25, 2.0], "<f8").tobytes()).hexdigest()


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
def test_keys_do_not_depend_on_where_checkpoints_lie(epochs, one, other):
    finest = {part.steps_before + 1: part.key for part in cut(epochs, 1)}
    for every in (one, other):
        assert all(part.key == finest[part.steps_before + len(part.values)] for part in cut(epochs, every))


# Among them values that differ in the last bit, and both zeros.
RATES = st.sampled_from([0.1, 0.1 + 2**-56, 0.2, 1e-300, 0.0, -0.0])


@given(
    st.lists(st.lists(RATES, min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.lists(RATES, min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_two_schedules_share_the_keys_up_to_the_first_step_that_differs(one, other):
    a, b = (all_segments({}, [np.array(epoch) for epoch in rates], 1) for rates in (one, other))
    pairs = list(zip(a, b, strict=False))
    alike = [
        math.copysign(1, x.values[0, 0]) == math.copysign(1, y.values[0, 0]) and x.values[0, 0] == y.values[0, 0]
        for x, y in pairs
    ]
    first = alike.index(False) if False in alike else len(pairs)
    assert [x.key == y.key for x, y in pairs] == [True] * first + [False] * (len(pairs) - first)
    keys = {part.key for part in a}
    assert not any(part.key in keys for part in b[first:])


def test_the_order_learning_rates_counts():
    assert all_segments({}, [np.array([0.1, 0.2])], 0)[-1].key != all_segments({}, [np.array([0.2, 0.1])], 0)[-1].key


def test_another_origin_shares_no_key():
    one, other = ({part.key for part in all_segments({"seed": seed}, schedule(3), 1)} for seed in (1, 2))
    assert not one & other


# --- Walking the chain ---------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_every", [0, 1, 4, STEPS, 100])
def test_an_uninterrupted_chain_is_the_loop_written_by_hand(tmp_path, checkpoint_every):
    outcome = walk(tmp_path, cut(EPOCHS, checkpoint_every))
    check(outcome)
    assert outcome.steps == EPOCHS * STEPS
    assert outcome.trained == [1, 2, 3, 4]
    assert outcome.said == []
    segments_an_epoch = math.ceil(STEPS / (checkpoint_every or STEPS))
    assert check_store(tmp_path) == EPOCHS * segments_an_epoch


@settings(max_examples=15)
@given(st.data())
def test_however_often_it_is_interrupted_the_bits_are_the_same_and_no_step_is_taken_twice(data):
    with Scratch() as path:
        total, checkpoint_every = 0, data.draw(st.sampled_from([0, 1, 2, 4]))
        for stop in data.draw(st.lists(st.integers(0, 7), max_size=4)):
            total += walk(path, cut(EPOCHS, checkpoint_every), stop=stop).steps
        last = walk(path, cut(EPOCHS, checkpoint_every))
        check(last)
        check_store(path)
    assert total + last.steps == EPOCHS * STEPS


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 7)), min_size=1, max_size=3),
    st.sampled_from([0, 1, 2, 3, 4]),
)
def test_another_checkpoint_every_goes_on_from_the_latest_state_on_its_grid(before, checkpoint_every):
    with Scratch() as path:
        for every, stop in before:
            walk(path, cut(EPOCHS, every), stop=stop)
        reached = (
            [TrajectoryStore(path).record(file.stem).step for file in (path / "chain").glob("*.json")]
            if (path / "chain").is_dir()
            else []
        )
        on_grid = [part.steps_before + len(part.values) for part in cut(EPOCHS, checkpoint_every)]
        outcome = walk(path, cut(EPOCHS, checkpoint_every))
        check(outcome)
        check_store(path)
    assert outcome.steps == EPOCHS * STEPS - max({0, *reached} & {0, *on_grid})


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 0), (2, 3), (4, 1)])
def test_a_finished_run_with_another_checkpoint_every_trains_nothing(tmp_path, one, other):
    walk(tmp_path, cut(EPOCHS, one))
    outcome = walk(tmp_path, cut(EPOCHS, other))
    check(outcome)
    assert (outcome.steps, outcome.trained) == (0, [])


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, EPOCHS), st.sampled_from([0, 2, 4])), min_size=1, max_size=4))
def test_lengthening_and_shortening_train_exactly_what_is_lacking(runs):
    with Scratch() as path:
        longest = 0
        for epochs, checkpoint_every in runs:
            outcome = walk(path, cut(epochs, checkpoint_every))
            check(outcome, epochs)
            assert outcome.steps == STEPS * max(0, epochs - longest)
            longest = max(longest, epochs)
        check_store(path)


def test_twice_as_many_epochs_train_the_new_half(tmp_path):
    assert walk(tmp_path, cut(5)).steps == 5 * STEPS
    longer = walk(tmp_path, cut(10))
    check(longer, 10)
    assert longer.steps == 5 * STEPS
    assert longer.trained == [6, 7, 8, 9, 10]
    assert longer.said == ["epochs 1-5 restored, training 6-10"]
    shorter = walk(tmp_path, cut(5))
    check(shorter, 5)
    assert (shorter.steps, shorter.said) == (0, ["epochs 1-5 restored, nothing to train"])


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (1, "2 steps of epoch 1 restored, training 1-4"),
        (3, "epochs 1-1 restored, training 2-4"),
        (5, "epochs 1-1 and 4 steps of epoch 2 restored, training 2-4"),
    ],
)
def test_what_is_restored_is_said(tmp_path, stop, said):
    walk(tmp_path, cut(EPOCHS, 2), stop=stop)
    assert walk(tmp_path, cut(EPOCHS, 2)).said == [said]


def test_schedules_that_part_late_share_what_comes_before(tmp_path):
    walk(tmp_path, all_segments({}, [np.full(STEPS, 0.1)] * 3, 0))
    other = [np.full(STEPS, 0.1), np.full(STEPS, 0.1), np.full(STEPS, 0.05)]
    assert walk(tmp_path, all_segments({}, other, 0)).steps == STEPS


def damage(file, how, place):
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[: place % len(data)])
    elif how == "appended":
        file.write_bytes(data + b"\n")
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        place %= len(data)
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])


HOW = ["missing", "truncated", "appended", "emptied", "flipped"]
DAMAGES = st.lists(
    st.tuples(
        st.integers(0, 11), st.sampled_from(["json", "safetensors"]), st.sampled_from(HOW), st.integers(0, 10**6)
    ),
    max_size=5,
)


@settings(max_examples=20)
@given(DAMAGES, st.integers(0, 12), st.sampled_from([1, 3, 100]))
def test_whatever_is_damaged_or_missing_the_result_is_right(damages, stop, keep_states):
    parts = cut(EPOCHS, 2)
    with Scratch() as path:
        walk(path, parts, stop=stop, keep_states=keep_states)
        for number, kind, how, place in damages:
            file = path / "chain" / f"{parts[number].key}.{kind}"
            if file.is_file():
                damage(file, how, place)
        check(walk(path, parts, keep_states=keep_states))
        again = walk(path, parts, keep_states=keep_states)
        check(again)
        check_store(path)


def test_a_damaged_state_is_named_and_the_next_older_one_used(tmp_path, capsys):
    parts = cut(EPOCHS)
    walk(tmp_path, parts, stop=3)
    damaged = TrajectoryStore(tmp_path).state_path(parts[2].key)
    damage(damaged, "flipped", 500)
    outcome = walk(tmp_path, parts)
    check(outcome)
    assert outcome.steps == 2 * STEPS  # epoch 3 once more, and 4
    assert capsys.readouterr().err == f"warning: {damaged} is damaged; it isn't used\n"


def test_a_damaged_record_is_trained_again_and_what_follows_is_kept(tmp_path, capsys):
    parts = cut(EPOCHS)
    walk(tmp_path, parts)
    damaged = TrajectoryStore(tmp_path).record_path(parts[1].key)
    damage(damaged, "flipped", 100)
    outcome = walk(tmp_path, parts)
    check(outcome)
    assert (outcome.steps, outcome.trained) == (STEPS, [2])
    assert capsys.readouterr().err == f"warning: {damaged} is damaged; it isn't used\n"


def test_a_record_of_an_epoch_without_its_metrics_is_made_anew(tmp_path):
    """As somebody may share one; what an epoch measures the plan knows."""
    parts = cut(EPOCHS)
    walk(tmp_path, parts)
    store = TrajectoryStore(tmp_path)
    for part, lacking in ((parts[1], METRICS[0].keys()), (parts[2], {"lr"})):
        record = store.record(part.key)
        kept = {name: value for name, value in record.metrics.items() if name not in lacking}
        store.write(record.model_copy(update={"metrics": kept}), store.state(record))
    outcome = walk(tmp_path, parts, measures=lambda epoch: METRICS[0].keys())
    check(outcome)
    assert outcome.trained == [2, 3]
    assert [store.record(part.key).metrics for part in parts] == METRICS


def test_states_that_are_gone_are_made_again_where_they_are_needed(tmp_path):
    parts = cut(EPOCHS)
    walk(tmp_path, parts, stop=3)
    store = TrajectoryStore(tmp_path)
    for key in store.state_sizes():
        store.drop_state(key)
    outcome = walk(tmp_path, parts)
    check(outcome)
    assert (outcome.steps, outcome.trained) == (EPOCHS * STEPS, [4])


def test_the_weights_of_an_earlier_epoch_are_trained_again_if_its_state_is_gone(tmp_path):
    parts = cut(EPOCHS)
    walk(tmp_path, parts, keep_states=1)
    for key in TrajectoryStore(tmp_path).state_sizes():
        TrajectoryStore(tmp_path).drop_state(key)
    said: list[str] = []
    with chain(parts, TrajectoryStore(tmp_path), make, order, say=said.append) as links:
        assert len(list(links.follow())) == EPOCHS
        assert links.weights(parts[1].key) == by_hand(2)[2]
        assert said[-1] == "the state after epoch 2 isn't stored any more: training again from epoch 1"
        assert links.steps_trained == 2 * STEPS
        assert links.weights(parts[3].key) == WEIGHTS
        assert links.weights(parts[0].key) == by_hand(1)[2]


def test_only_damage_is_called_damage(tmp_path, capsys):
    walk(tmp_path, cut(EPOCHS), keep_states=1)
    walk(tmp_path, cut(EPOCHS + 1), keep_states=1)
    assert capsys.readouterr().err == ""


# --- Faults of networks --------------------------------------------------------------------------


class Unknown(nn.Module):
    calls = 0  # of all networks of this kind: what a key can't know

    def forward(self, inputs):
        Unknown.calls += 1
        return inputs * (1 + Unknown.calls / 100)


def test_a_network_that_draws_on_something_unknown_is_found_when_it_is_trained_again(tmp_path):
    def make_unknown():
        return trainer(nn.Sequential(make_model(), Unknown()), {}, TRAINING, VALIDATION, 8, 3)

    parts = cut(2)
    walk(tmp_path, parts, make=make_unknown)
    store = TrajectoryStore(tmp_path)
    store.drop_state(parts[1].key)
    store.drop_state(parts[0].key)
    before = store.record(parts[0].key)
    with pytest.raises(UserError) as caught:
        walk(tmp_path, parts, make=make_unknown)
    assert str(caught.value).startswith(
        f"epoch 1, trained again, came out otherwise than recorded in {store.record_path(parts[0].key)}: the network"
        " draws on"
    )
    assert store.record(parts[0].key) == before


class Explodes(nn.Module):
    """Its output becomes infinite when `limit` steps were taken."""

    def __init__(self, limit):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.limit = limit

    def forward(self, inputs):
        if self.training:
            self.steps += 1
        return inputs * math.nan if self.steps > self.limit else inputs


@pytest.mark.parametrize("checkpoint_every", [0, 2])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_divergence_names_its_step_and_keeps_what_came_before(tmp_path, checkpoint_every, interrupted):
    def make_exploding():
        return trainer(nn.Sequential(make_model(), Explodes(2 * STEPS + 3)), {}, TRAINING, VALIDATION, 8, 3)

    parts = cut(EPOCHS, checkpoint_every)
    if interrupted:
        walk(tmp_path, parts, make=make_exploding, stop=2)
    store = TrajectoryStore(tmp_path)
    for attempt in range(2):
        with pytest.raises(
            Diverged,
            match=(
                rf"^the loss became nan at step 4, with lr {parts[0].values[0, 0] / 2.5:g}; it began in layer '1'"
                r" \(Explodes\)"
            ),
        ) as caught:
            walk(store, parts, make=make_exploding)
        assert caught.value.epoch == 3, attempt
        kept = [part for part in parts if store.record(part.key)]
        assert kept == [
            part for part in parts if part.steps_before + len(part.values) <= 2 * STEPS + (2 if checkpoint_every else 0)
        ]
        assert all(store.state(store.record(part.key)) for part in kept)


def test_a_divergence_in_the_validation_is_none_of_a_step(tmp_path):
    class InValidation(nn.Module):
        def forward(self, inputs):
            return inputs if self.training else inputs * math.inf

    with pytest.raises(Diverged, match=r"^the loss became nan in the validation after it, with lr") as caught:
        walk(
            tmp_path,
            cut(2),
            make=lambda: trainer(nn.Sequential(nn.Linear(5, CLASSES), InValidation()), {}, TRAINING, VALIDATION, 8, 3),
        )
    assert caught.value.epoch == 1
    assert not list(tmp_path.rglob("*.json"))


# --- What is kept --------------------------------------------------------------------------------


def stored(path, parts):
    sizes = TrajectoryStore(path).state_sizes()
    return [number for number, part in enumerate(parts, 1) if part.key in sizes]


@pytest.mark.parametrize("keep_states", [1, 2, 3, 50])
def test_the_last_states_and_the_best_stay(tmp_path, keep_states):
    # Uphill in the end: the best epoch is not among the last.
    parts = all_segments({}, [np.full(STEPS, lr) for lr in (0.05, 0.05, -0.03, -0.03, -0.03, -0.03)], 0)
    outcome = walk(tmp_path, parts, keep_states=keep_states)
    losses = [record.metrics["validation/loss"] for record in outcome.records]
    best = losses.index(min(losses)) + 1
    assert best < 5
    assert stored(tmp_path, parts) == sorted({best, *range(max(1, 7 - keep_states), 7)})
    assert all(TrajectoryStore(tmp_path).record(part.key) for part in parts)


def test_what_other_runs_need_stays(tmp_path):
    short, long = cut(2), cut(6)
    walk(tmp_path, short, mark=True, keep_states=1)
    assert 2 in stored(tmp_path, short)
    walk(tmp_path, long, keep_states=1)
    needed = {
        number
        for run in TrajectoryStore(tmp_path).runs().values()
        for number, part in enumerate(long, 1)
        if part.key in (run.last, run.best)
    }
    assert 2 in needed
    losses = [TrajectoryStore(tmp_path).record(part.key).metrics["validation/loss"] for part in long]
    assert stored(tmp_path, long) == sorted({6, losses.index(min(losses)) + 1} | needed)
    # Without a mark nobody needs it.
    for mark in (tmp_path / "runs").iterdir():
        mark.unlink()
    walk(tmp_path, cut(7), keep_states=1)
    assert 2 not in stored(tmp_path, long)


def test_a_small_disk_keeps_fewer_states_and_says_so(tmp_path, monkeypatch):
    store = TrajectoryStore(tmp_path)
    size = len(walk(tmp_path / "other", cut(1)).weights)
    monkeypatch.setattr(TrajectoryStore, "free_bytes", lambda self: 10 * 3 * 2 * size + 200 * size // 10)
    outcome = walk(store, cut(10), keep_states=8)
    sizes = store.state_sizes()
    room = int(DISK_SHARE * store.free_bytes() / max(sizes.values()))
    assert 1 < room < 8
    assert len(outcome.said) == 1
    assert outcome.said[0].startswith(
        f"keeping {room}, not 8 states of 0.0 MB each (train.keep_states): more would take over a tenth of the free"
        " disk"
    )
    assert stored(tmp_path, cut(10))[-room:] == list(range(11 - room, 11))
    assert len(sizes) <= room + 1


def test_checkpoints_that_mlflow_does_not_get_leave_room_on_a_small_disk(tmp_path, monkeypatch):
    store, parts = TrajectoryStore(tmp_path), cut(6)
    walk(store, parts)
    size = max(store.state_sizes().values())
    monkeypatch.setattr(TrajectoryStore, "free_bytes", lambda self: 2.5 * size / DISK_SHARE)
    with chain(parts, store, make, order) as links:
        for part in parts:
            links.keep_checkpoint("run", part.key)
    assert [store.kept_checkpoint("run", part.key).exists() for part in parts] == 3 * [True] + 3 * [False]


def test_a_large_disk_has_nothing_to_say(tmp_path):
    assert walk(tmp_path, cut(2)).said == []


def test_many_bytes_are_told_beforehand(tmp_path, monkeypatch):
    store = TrajectoryStore(tmp_path)
    said = []
    with chain(cut(2), store, make, order, say=said.append) as links:
        monkeypatch.setattr(TrajectoryStore, "free_bytes", lambda self: 10**12)
        links.segments += cut(2)
        links._limit_states(600_000_000)
    assert said == [
        "keeping up to 2 states of 600.0 MB each (train.keep_states), 1.2 GB; `surefoot store --prune` frees them"
    ]


def test_a_store_that_cannot_be_written_ends_the_training_and_keeps_what_was_there(tmp_path, monkeypatch):
    parts = cut(EPOCHS)
    walk(tmp_path, parts, stop=2)
    real = writing.write_durably

    def full(directory, contents):
        raise OSError(28, "No space left on device", str(directory / next(iter(contents))))

    monkeypatch.setattr(writing, "write_durably", full)
    with pytest.raises(
        UserError,
        match=rf"{parts[2].key}.safetensors can't be written: No space left on device\nwhat was stored before is whole",
    ):
        walk(tmp_path, parts)
    monkeypatch.setattr(writing, "write_durably", real)
    outcome = walk(tmp_path, parts)
    check(outcome)
    assert outcome.steps == 2 * STEPS


def test_a_segment_that_somebody_else_trained_meanwhile_is_not_trained_again(tmp_path):
    from contextlib import contextmanager

    parts = cut(EPOCHS)
    held = []

    @contextmanager
    def lock(key):
        if not held:
            walk(tmp_path, parts)  # while this one waits
        held.append(key)
        yield
        held.append(f"released {key}")

    outcome = walk(tmp_path, parts, lock=lock)
    check(outcome)
    assert (outcome.steps, outcome.trained) == (0, [])
    assert held == [parts[0].key, f"released {parts[0].key}"]


def test_a_lock_is_held_until_the_record_is_written(tmp_path):
    from contextlib import contextmanager

    parts = cut(EPOCHS)
    seen = {}

    @contextmanager
    def lock(key):
        before = TrajectoryStore(tmp_path).record(key)
        yield
        seen[key] = (before, TrajectoryStore(tmp_path).record(key))

    walk(tmp_path, parts, lock=lock)
    assert list(seen) == [part.key for part in parts]
    assert all(before is None and after.key == key for key, (before, after) in seen.items())


def test_the_thread_that_writes_ends_with_the_chain(tmp_path):
    import threading

    walk(tmp_path, cut(2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trajectory-writer")]
