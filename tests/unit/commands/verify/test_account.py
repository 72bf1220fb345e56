"""What is read from MLflow's artifacts, mutated: a line in any case, never a traceback, and never *identical* of what
isn't the account of the run.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surefoot.base import digests, documents
from surefoot.base.documents import Malformed, Seen
from surefoot.base.errors import CannotSay
from surefoot.base.paths import trajectory
from surefoot.commands.verify import account as accounts
from surefoot.run import record
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from tests.helpers import Here

WRONG = [None, True, 0, -1, 1.5, 10**400, "", "x", "../../../x", "\x1b[2J", [], {}, [[]], {"a": 1}, ["a"] * 3, "0" * 64]


def paths(value, before=()):
    """The places of a document's values."""
    yield before
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*before, key))


def mutated(document, place, how, new):
    """A copy in which the value at a place is another one, is gone, lies deeper, or is there twice."""
    whole = [json.loads(json.dumps(document))]
    owner, place = whole, (0, *place)
    for key in place[:-1]:
        owner = owner[key]
    if how == "replace":
        owner[place[-1]] = new
    elif how == "drop" and len(place) > 1:
        del owner[place[-1]]
    elif how == "wrap":
        owner[place[-1]] = [owner[place[-1]]]
    elif isinstance(owner, list) and len(place) > 1:
        owner.insert(place[-1], owner[place[-1]])
    return whole[0]


BROKEN = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "no UTF-8": lambda data: data.replace(b'"', b"\xff", 1),
    "nested": lambda data: b"[" * 100_000,
    "nested mappings": lambda data: b'{"a":' * 100_000,
    "nested within": lambda data: data[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": lambda data: b"[" + data + b"]",
    "twice": lambda data: data + data,
    "a number": lambda data: b"5",
    "a text": lambda data: b'"x"',
    "null": lambda data: b"null",
    "NaN": lambda data: b"NaN",
    "surrogates": lambda data: b'"\\ud800"',
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A real account, and the tags of its run."""
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
        store = TrajectoryStore(trajectory().resolve())
        ((identity, known),) = store.runs().items()
        return record.account(identity, known, store), dict(run.data.tags)


def test_the_account_itself_is_read(made):
    account, tags = made
    assert accounts.read(digests.canonical_json(account), tags) == account
    accounts.check_keys(account, account["epochs"], account["origin"])


@pytest.mark.parametrize("how", BROKEN)
def test_broken_accounts(made, how):
    account, tags = made
    with pytest.raises(CannotSay, match=r"its trajectory\.json in MLflow is damaged: [^\n]*$"):
        accounts.read(BROKEN[how](digests.canonical_json(account)), tags)


def verdict(account, made_again, tags):
    """What `surefoot verify` would say of an account where `made_again` came out, whose bits are all as they were."""
    from surefoot.commands.verify import verdict as verdict_module
    from surefoot.commands.verify.verdict import causes, data_row, epochs_row, model_row

    try:
        read = accounts.read(json.dumps(account).encode(), tags)
        data, _ = data_row(read["data"], made_again["data"])
        last = max(len(read["epochs"]), len(made_again["epochs"]))
        epochs, _ = epochs_row(read["epochs"], made_again["epochs"], 1, last)
        rows = [data, epochs, model_row("model", read["model"], made_again["model"])]
        found = verdict_module.verdict(rows, causes(read["origin"], made_again["origin"]))
        accounts.check_keys(read, made_again["epochs"], made_again["origin"])
        return found
    except CannotSay as reason:
        assert "\n" not in str(reason)
        return "cannot say"


# What says nothing of bits: names; params, which are compared elsewhere; what an account of an older Surefoot lacks.
FREE = {("data", "source", "path"), ("data", "source", "md5"), ("params",), ("chosen",), ("incomplete",), ("start",)}


def test_no_mutation_of_an_account_is_called_identical(made):
    account, tags = made
    places = [place for place in paths(account) if not any(place[: len(free)] == free for free in FREE)]

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


SEEN = {
    "parts": [["data/raw/a.csv", "0" * 64], ["data/raw/b.csv", "1" * 64]],
    "others": ["2" * 64],
    "split": {"prepare.split": {"by": "row"}, "seed": 0},
}


@pytest.mark.parametrize(
    "kind",
    [Seen, documents.Start, documents.Machine, documents.Mark, documents.Record, documents.Journal, documents.Answer],
)
@pytest.mark.parametrize("how", BROKEN)
def test_broken_documents(kind, how):
    with pytest.raises(Malformed, match=r"^[^\n]+$"):
        documents.parse(kind, BROKEN[how](digests.canonical_json(SEEN)))


@given(
    st.sampled_from(list(paths(SEEN))), st.sampled_from(["replace", "drop", "wrap", "twice"]), st.sampled_from(WRONG)
)
def test_part_files_are_what_they_should_be_or_refused(place, how, new):
    try:
        read = documents.parse(Seen, json.dumps(mutated(SEEN, place, how, new)).encode())
    except Malformed as error:
        assert "\n" not in str(error)
        return
    assert all(isinstance(text, str) for part in read["parts"] for text in part)
    assert all(len(part) == 2 for part in read["parts"])
    assert all(isinstance(text, str) for text in read["others"])
    assert isinstance(read["split"], dict)


MLMODEL = (
    b"artifact_path: x\nrun_id: 0123456789abcdef0123456789abcdef\nflavors:\n  python_function:\n    loader_module:"
    b" surefoot.serving\n"
)


def test_an_mlmodel():
    assert documents.parse_mlmodel(MLMODEL)["run_id"] == "0123456789abcdef" * 2
    assert documents.parse_mlmodel(b"flavors: {}\n")["run_id"] is None


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"- a\n",
            b"5\n",
            b"run_id: 5\n",
            b"run_id: ../x\n",
            b"run_id: [a]\n",
            b"run_id: {a: b}\n",
            b"run_id: !!python/object/apply:os.system [ls]\n",
        ),
        *(
            b"a: b: c\n",
            b"\xff\xfe\xff",
            b"\x00",
            b"[" * 50_000,
            b"{a: " * 50_000,
            b"- " * 50_000,
            b"run_id: *nothing\n",
            b"&a [*a]",
            b"x" * (3 << 20),
        ),
        b"run_id: 2001-99-99\n",
    ],
)
def test_malformed_mlmodels(data):
    with pytest.raises(Malformed, match=r"^[^\n]+$"):
        documents.parse_mlmodel(data)
