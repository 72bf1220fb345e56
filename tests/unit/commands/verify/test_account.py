"""What is read from MLflow's artifacts, mutated: a line in any case, never a traceback, and never *identical* of what
isn't the account of the run.
"""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surefoot.base import digests
from surefoot.base.errors import CannotSay
from surefoot.base.object_store import open_object_store
from surefoot.base.paths import trajectory_store
from surefoot.commands.verify import account as accounts
from surefoot.commands.verify import command, made_again
from surefoot.run import record
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from tests.helpers import Here
from tests.unit.mutated import BROKEN, WRONG, mutated, places_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A real account, the tags of its run, and the store that it was trained into."""
    from tests.helpers import mlflow_client

    here = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv(
            "MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db"
        )  # which is set here otherwise, for the tests after these, too
        patch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
        mlflow_client(here).search_experiments()

        class Nothing:
            def readouterr(self):
                return "", ""

        place = Here(here, Nothing())
        place.csv()
        for stage in ("prepare", "batch", "train"):
            assert place.stage(stage).code == 0
        (run,) = place.runs()
        store = TrajectoryStore(trajectory_store().resolve())
        (known,) = store.runs().values()
        return record.make_account(known, store).plain(), dict(run.data.tags), store.path


def test_the_account_itself_is_read(made):
    account, tags, _ = made
    assert accounts.read_account(digests.canonical_json(account), tags).plain() == account
    read = accounts.read_account(digests.canonical_json(account), tags)
    accounts.check_keys(read, read.epochs, account["origin"])


@pytest.mark.parametrize("how", BROKEN)
def test_broken_accounts(made, how):
    account, tags, _ = made
    with pytest.raises(CannotSay, match=r"its trajectory\.json in MLflow is damaged: [^\n]*$"):
        accounts.read_account(BROKEN[how](digests.canonical_json(account)), tags)


def verdict(account, made_again, tags):
    """What `surefoot verify` would say of an account where `made_again` came out, whose bits are all as they were."""
    from surefoot.commands.verify.verdict import data_row, differing_origins, epochs_row, give_verdict, model_row

    try:
        checked = accounts.read_account(json.dumps(account).encode(), tags)
        read, again = checked.plain(), record.Account.model_validate(made_again).epochs
        data, _ = data_row(read["data"], made_again["data"])
        epochs, _ = epochs_row(checked.epochs, again, 1, max(len(checked.epochs), len(again)))
        rows = [data, epochs, model_row("model", read["model"], made_again["model"])]
        found = give_verdict(rows, differing_origins(read["origin"], made_again["origin"]))
        accounts.check_keys(checked, again, made_again["origin"])
        return found
    except CannotSay as reason:
        assert "\n" not in str(reason)
        return "cannot say"


# What says nothing of bits: names; params, which are compared elsewhere; what an account of an older Surefoot lacks.
FREE = {("data", "source", "path"), ("data", "source", "md5"), ("params",), ("chosen",), ("incomplete",), ("start",)}


def test_no_mutation_of_an_account_is_called_identical(made):
    account, tags, _ = made
    places = [place for place in places_of(account) if not any(place[: len(free)] == free for free in FREE)]

    @settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(places), st.sampled_from(["replace", "drop", "wrap", "twice"]), st.sampled_from(WRONG))
    def check(place, how, new):
        document = mutated(account, place, how, new)
        if document != account or json.dumps(document) != json.dumps(account):
            assert verdict(document, account, tags) != "identical", (place, how, new)

    assert verdict(account, account, tags) == "identical"
    dampening = ("origin", "optimizer", "dampening")
    for value in (0, False, float("nan")):  # 0 == 0.0, but they are digested as two
        assert verdict(mutated(account, dampening, "replace", value), account, tags) != "identical", value
    check()


def test_the_state_before_an_epoch_may_be_one_that_machines_share(made, tmp_path, monkeypatch):
    """Here is nothing; another machine's states are in a directory that both see."""
    account = record.Account.model_validate(made[0])
    trained = TrajectoryStore(Path(made[2]))
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("SUREFOOT_STORE", f"file://{tmp_path}/there")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    objects = open_object_store(f"file://{tmp_path}/there")
    before, origin = account.epochs[0], digests.sha256(digests.canonical_json(account.origin.plain()))
    objects.put_if_absent(f"{origin}/{before.key}.json", trained.record_path(before.key))
    objects.put_if_absent(f"{origin}/{before.key}.safetensors", trained.state_path(before.key))
    assert command._ranges(None, len(account.epochs), account) == [(1, 1), (2, 2)]
    _, _, seeded = made_again._seed(tmp_path / "scratch", account, 2, 2)
    assert TrajectoryStore(seeded).state_of(before.key) == trained.state_of(before.key)
