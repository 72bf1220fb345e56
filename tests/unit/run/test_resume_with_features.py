"""Killed, lengthened, shortened, cut otherwise: each feature ends in the same bits as in one go."""

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.base import code_digests
from surefoot.base.errors import UserError
from surefoot.run.plan.planning import plan_run
from surefoot.run.trajectory_store import TrajectoryStore
from tests.unit.run.chains import Scratch, walk
from tests.unit.training.by_hand import NETWORKS, NO_DECAY, OF_THEIR_OWN, OPTIMIZERS, data, params

EPOCHS, STEPS = 4, 6
PLATEAU = {"name": "ReduceLROnPlateau", "arguments": {"patience": 0, "factor": 0.3, "threshold": 0.2}}

# Each: the section `train`, and whether more epochs change nothing of those before.
FEATURES = {
    "Adam": ({"optimizer": {"name": "Adam"}, "lr": 0.01}, True),
    "AdamW with groups": ({"optimizer": {"name": "AdamW", "groups": NO_DECAY}, "weight_decay": 0.1, "lr": 0.01}, True),
    "accumulation": ({"accumulate": 2, "momentum": 0.9}, True),
    "clipping": ({"clip_norm": 0.2, "clip_value": 0.05, "momentum": 0.9}, True),
    "EMA": ({"average": {"name": "ema", "decay": 0.8, "start": 2}}, True),
    "EMA with Adam": ({"average": {"name": "ema", "decay": 0.8}, "optimizer": {"name": "Adam"}, "lr": 0.01}, True),
    "SWA": ({"average": {"name": "swa", "start": 2}, "momentum": 0.9}, True),
    "plateau": ({"schedule": PLATEAU, "lr": 0.4, "momentum": 0.5}, True),
    "plateau of the averaged loss": (
        {"schedule": PLATEAU | {"metric": "validation/average_loss"}, "average": {"name": "swa"}, "lr": 0.4},
        True,
    ),
    "one cycle": ({"schedule": {"name": "OneCycleLR", "per": "step"}, "momentum": 0.9}, False),
    "one cycle of a given length": (
        {"schedule": {"name": "OneCycleLR", "per": "step", "arguments": {"total_steps": 48}}, "momentum": 0.9},
        True,
    ),
    "one cycle with Adam": ({"schedule": {"name": "OneCycleLR", "per": "step"}, "optimizer": {"name": "Adam"}}, False),
    "frozen": ({"optimizer": {"groups": [{"parameters": "0.*", "frozen": True}]}, "momentum": 0.9}, True),
    "shards": ({"shards": 2, "clip_norm": 0.2, "momentum": 0.9}, True),
    "shards, accumulation and EMA": ({"shards": 2, "accumulate": 2, "average": {"name": "ema", "decay": 0.8}}, True),
    "shards and SWA": ({"shards": 2, "average": {"name": "swa", "start": 2}, "lr": 0.05}, True),
    "early stopping": ({"early_stopping": {"patience": 1, "min_delta": 0.02}, "lr": 0.02, "momentum": 0.9}, True),
    "plateau and early stopping": (
        {"schedule": PLATEAU, "early_stopping": {"patience": 2, "min_delta": 0.02}, "lr": 0.9},
        True,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        # The source doesn't change meanwhile.
        patch.setattr(code_digests, "module_digest", cache(code_digests.module_digest))
        yield


@cache
def planned(text):
    return plan_run(params(json.loads(text)), data())


def links(train, **more):
    """What makes the chain of a run."""
    train = {"epochs": EPOCHS} | train | more
    kept = {name: value for name, value in train.items() if name != "checkpoint_every"}
    plan = planned(json.dumps(kept))
    plan = replace(plan, inputs=replace(plan.inputs, params=params(train)))  # with its `checkpoint_every`
    return lambda store, **hooks: plan.chain(store, **hooks)


def told(outcome):
    """What was determined in a walk to the end."""
    assert outcome.weights
    return [
        {name: getattr(record, name) for name in ("epoch", "step", "steps", "rows", "key", "metrics", "state")}
        for record in outcome.records
    ], outcome.weights


@cache
def in_one_go(text):
    with Scratch() as path:
        outcome = walk(path, links(json.loads(text)))
        return told(outcome), outcome.steps


def whole(train, **more):
    """What was determined in one go, and how many steps that took."""
    return in_one_go(json.dumps({"epochs": EPOCHS} | train | more))


@pytest.mark.parametrize("name", FEATURES)
def test_killed_after_a_segment_it_ends_in_the_same_bits(name, tmp_path):
    train, _ = FEATURES[name]
    wanted, steps = whole(train)
    for stop in range(1 + list(FEATURES).index(name) % 4, steps // 2, 4):
        path = tmp_path / str(stop)
        first = walk(path, links(train, checkpoint_every=2), stop=stop)
        second = walk(path, links(train, checkpoint_every=2))
        assert told(second) == wanted
        assert first.steps + second.steps == steps
        assert first.steps > 0 < second.steps


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("checkpoint_every", [0, 1, 2, 5])
def test_killed_again_and_again_no_step_is_taken_twice(name, checkpoint_every, tmp_path):
    train, _ = FEATURES[name]
    wanted, steps = whole(train)
    parts = [walk(tmp_path, links(train, checkpoint_every=checkpoint_every), stop=stop).steps for stop in (1, 0, 2, 1)]
    last = walk(tmp_path, links(train, checkpoint_every=checkpoint_every))
    assert told(last) == wanted
    assert sum(parts) + last.steps == steps
    again = walk(tmp_path, links(train))
    assert (told(again), again.steps) == (wanted, 0)


@pytest.mark.parametrize("name", FEATURES)
def test_lengthened_and_shortened_it_ends_in_the_same_bits(name, tmp_path):
    train, grows = FEATURES[name]
    reached = 0
    for epochs, checkpoint_every in ((2, 0), (5, 2), (3, 0), (6, 5)):
        wanted, steps = whole(train, epochs=epochs)
        outcome = walk(
            tmp_path,
            links(train, epochs=epochs, checkpoint_every=checkpoint_every),
            keep_states=1 if epochs == 3 else 50,
        )
        assert told(outcome) == wanted
        assert outcome.steps == (max(0, steps - reached) if grows else steps)
        reached = max(reached, steps)


@pytest.mark.parametrize("name", ["EMA", "plateau", "SWA", "one cycle"])
def test_states_that_are_gone_are_made_again(name, tmp_path):
    train, _ = FEATURES[name]
    walk(tmp_path, links(train, checkpoint_every=2), stop=9)
    store = TrajectoryStore(tmp_path)
    for key in store.state_sizes():
        store.drop_state(key)
    assert told(walk(tmp_path, links(train, checkpoint_every=2))) == whole(train)[0]


@settings(max_examples=10)
@given(
    st.sampled_from(sorted(FEATURES)),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 2, 5]), st.none() | st.integers(0, 9)), max_size=4),
)
def test_whatever_came_before_it_ends_in_the_same_bits(name, before):
    train, _ = FEATURES[name]
    with Scratch() as path:
        for epochs, checkpoint_every, stop in before:
            walk(path, links(train, epochs=epochs, checkpoint_every=checkpoint_every), stop=stop)
        assert told(walk(path, links(train))) == whole(train)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_restored(name, tmp_path):
    make = OF_THEIR_OWN.get(name)
    train = {"optimizer": {"name": name, "arguments": OPTIMIZERS[name]}, "epochs": 2, "lr": 0.01}
    train |= {"model": {"factory": f"{NETWORKS}:{make.__name__}"}} if make else {}
    wanted, steps = whole(train)
    for stop in (1, 3, 4):
        walk(tmp_path / str(stop), links(train, checkpoint_every=2), stop=stop)
        outcome = walk(tmp_path / str(stop), links(train, checkpoint_every=2))
        assert (told(outcome), outcome.steps) == (wanted, steps - 2 * stop)


# --- Ends that come before the last epoch --------------------------------------------------------


def test_early_stopping_ends_where_it_would_have(tmp_path):
    train, _ = FEATURES["early stopping"]
    wanted, steps = whole(train, epochs=30)
    assert steps == 3 * STEPS
    last = steps // STEPS
    outcome = walk(tmp_path, links(train, epochs=30))
    assert outcome.said == [
        f"the run ends after epoch {last} of 30: validation/loss has not improved for 1 epochs (train.early_stopping)"
    ]
    longer = walk(tmp_path, links(train, epochs=60))
    assert (told(longer), longer.steps) == (wanted, 0)
    shorter = walk(tmp_path, links(train, epochs=last - 1))
    assert (told(shorter)[0], shorter.steps) == (wanted[0][:-1], 0)
    # With more patience it goes on from there.
    patient = walk(tmp_path, links(train, epochs=30, early_stopping={"patience": 4, "min_delta": 0.02}))
    assert patient.steps == STEPS * (len(patient.records) - last) > 0
    assert told(patient) == whole(train, epochs=30, early_stopping={"patience": 4, "min_delta": 0.02})[0]


AVERAGED = {"average": {"name": "swa"}, "momentum": 0.9}


@pytest.mark.parametrize(
    "train", [{"momentum": 0.9}, AVERAGED, {"schedule": PLATEAU, "lr": 0.4}], ids=["plain", "SWA", "plateau"]
)
@pytest.mark.parametrize("checkpoint_every", [0, 1, 2, 5])
def test_a_budget_of_steps_that_is_raised_shares_what_came_before(train, checkpoint_every, tmp_path):
    short, steps = whole(train, max_steps=14)
    assert steps == 14
    assert [(record["epoch"], record["step"], record["steps"]) for record in short[0]] == [
        (1, 6, 6),
        (2, 12, 6),
        (3, 14, 2),
    ]
    first = walk(tmp_path, links(train, max_steps=14, checkpoint_every=checkpoint_every))
    assert (told(first), first.steps) == (short, 14)
    # The last state of a budget is none to go on from: its epoch has ended, and may have been averaged.
    for more, shared in (
        ({"max_steps": 20}, 13 if checkpoint_every == 1 else 12),
        ({}, 19 if checkpoint_every == 1 else 18),
    ):
        wanted, steps = whole(train, **more)
        outcome = walk(tmp_path, links(train, checkpoint_every=checkpoint_every, **more))
        assert (told(outcome), outcome.steps) == (wanted, steps - shared)
        assert outcome.records[:2] == first.records[:2]
    again = walk(tmp_path, links(train, max_steps=14, checkpoint_every=checkpoint_every))
    assert (told(again), again.steps) == (short, 0)


def test_no_epoch_that_was_cut_off_is_in_the_way_of_a_longer_run(tmp_path):
    """The record of its end has metrics of an epoch, and averages that count it."""
    for most in range(13, 18):
        walk(tmp_path, links(AVERAGED, max_steps=most, checkpoint_every=1))
    for checkpoint_every in (1, 2, 0):
        assert told(walk(tmp_path, links(AVERAGED, checkpoint_every=checkpoint_every))) == whole(AVERAGED)[0]


def test_a_budget_at_the_end_of_an_epoch_is_that_many_epochs(tmp_path):
    wanted, _ = whole({}, epochs=2)
    assert whole({}, max_steps=12)[0] == wanted
    assert told(walk(tmp_path, links({}, max_steps=12))) == wanted
    assert walk(tmp_path, links({}, epochs=2)).steps == 0


# --- Averages of BatchNorm -----------------------------------------------------------------------


def test_a_row_that_is_left_over_does_not_hinder_the_measuring_of_batch_norm(tmp_path):
    """Training leaves it out by `batch.drop_last`; of one row there is no variance."""
    batches = data(rows=41, drop_last=True)
    chosen = params({"average": {"name": "ema"}})
    plan = plan_run(chosen, batches)
    outcome = walk(tmp_path, lambda store, **hooks: plan.chain(store, **hooks))
    assert [record.steps for record in outcome.records] == [5, 5, 5]
    assert all("validation/average_loss" in record.metrics for record in outcome.records)


# --- Some epochs alone, as `surefoot verify --epochs` trains them --------------------------------


def test_epochs_of_a_plateau_are_trained_anew_from_the_records_before_them(tmp_path):
    train = FEATURES["plateau"][0] | {"epochs": 6}
    (records, _), _ = whole(train)
    assert len({record["metrics"]["lr"] for record in records}) > 2
    walk(tmp_path, links(train))
    store = TrajectoryStore(tmp_path)
    for record in records[3:]:
        store.record_path(record["key"]).unlink()
        store.drop_state(record["key"])
    with links(train)(TrajectoryStore(tmp_path)) as chain:
        found = [reached.record.state for reached in chain.follow(4, 5)]
        assert (found, chain.steps_trained) == ([record["state"] for record in records[3:5]], 2 * STEPS)
    store.record_path(records[0]["key"]).unlink()
    with (
        links(train)(TrajectoryStore(tmp_path)) as chain,
        pytest.raises(UserError, match="follows validation/loss of each epoch, and the store lacks the record"),
    ):
        list(chain.follow(4, 5))


# --- What is shared ------------------------------------------------------------------------------

TAILS = [
    {"name": "constant"},
    {"name": "CosineAnnealingLR"},
    {"name": "LinearLR", "arguments": {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 10}},
    {"name": "ExponentialLR", "arguments": {"gamma": 0.8}},
    {"name": "StepLR", "arguments": {"step_size": 5}},
    {"name": "PolynomialLR", "arguments": {"total_iters": 10}},
    {"name": "CosineAnnealingWarmRestarts", "arguments": {"T_0": 5}},
    {"name": "MultiStepLR", "arguments": {"milestones": [1, 3]}},
]


def test_a_sweep_of_schedules_that_part_late_trains_once_what_they_share(tmp_path):
    train = {"epochs": 30, "momentum": 0.9}
    swept, apart = 0, 0
    for number, tail in enumerate(TAILS):
        schedule = [{"name": "constant", "length": 20}, tail]
        outcome = walk(tmp_path, links(train, schedule=schedule))
        swept += outcome.steps
        apart += 30 * STEPS
        assert len(outcome.records) == 30
        if number in (3, 7):
            assert told(outcome) == whole(train, schedule=schedule)[0]
    assert swept <= 0.45 * apart
