"""One kind of id: what `surefoot store` lists, MLflow's own, or the start of either, wherever a run is named."""

import pytest

from surefoot.base import paths
from surefoot.base.documents import Malformed
from surefoot.base.errors import UserError
from surefoot.commands.store import forget_run
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import find_runs, tag_names
from tests.helpers import description, some_run

ONE, TWO, THREE = "a" * 64, "abcd" + "1" * 60, "abcd" + "2" * 60


@pytest.fixture
def runs(tracked):
    client = tracked.client()
    experiment = client.create_experiment("surefoot")
    return {
        identity: client.create_run(
            experiment, run_name=f"run {number}", tags={tag_names.IDENTITY: identity}
        ).info.run_id
        for number, identity in enumerate((ONE, TWO, THREE), 1)
    }


def found(wanted):
    with find_runs.reading_mlflow() as client:
        return find_runs.find_run(client, wanted).info.run_id


def test_ids_of_both_kinds_and_their_starts(runs):
    for identity, run_id in runs.items():
        for wanted in (identity, identity[:12] if identity == ONE else identity[:8], run_id, run_id[:8]):
            assert found(wanted) == run_id, wanted
    assert found("aaaa") == runs[ONE]
    assert found("abcd1") == runs[TWO]
    assert found("run 2") == runs[TWO]


def test_a_start_that_several_have(runs):
    with pytest.raises(UserError, match=r"^2 runs have an id that starts with 'abcd'; give the id of one: ") as error:
        found("abcd")
    assert all(runs[identity] in str(error.value) for identity in (TWO, THREE))


def test_a_start_that_none_has(runs):
    for wanted in ("abce", "b" * 64, "b" * 65, "ABCD1111", "a%", ""):
        with pytest.raises(UserError, match=r"^there is no run "):
            found(wanted)


def test_runs_of_one_identity_are_one(runs, tracked):
    """As where a run was lost and brought again."""
    client = tracked.client()
    later = client.create_run(
        client.get_run(runs[ONE]).info.experiment_id, run_name="again", tags={tag_names.IDENTITY: ONE}, start_time=2**42
    ).info.run_id
    assert found(ONE[:8]) == later
    assert found(runs[ONE]) == runs[ONE]


def test_a_run_that_mlflow_lacks(runs):
    TrajectoryStore(paths.trajectory_store()).mark_run(some_run("ef" * 32))
    with pytest.raises(
        UserError,
        match=r"^the run efef is in .*, but not in MLflow; `surefoot sync` brings it there, once it is finished$",
    ):
        found("efef")


def test_the_store_forgets_by_either(runs):
    store = TrajectoryStore(paths.trajectory_store())
    for identity in runs:
        store.mark_run(some_run(identity, description=description("kept")))
    assert forget_run(store, runs[ONE][:8]) == "kept"
    assert forget_run(store, TWO[:8]) == "kept"
    assert list(store.runs()) == [THREE]
    with pytest.raises(UserError, match=r"lists them$"):
        forget_run(store, runs[ONE])


MLMODEL = (
    b"artifact_path: x\nrun_id: 0123456789abcdef0123456789abcdef\nflavors:\n  python_function:\n    loader_module:"
    b" surefoot.serving\n"
)


def test_an_mlmodel():
    assert find_runs.run_of_model(MLMODEL) == "0123456789abcdef" * 2
    assert find_runs.run_of_model(b"flavors: {}\n") is None


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
        find_runs.run_of_model(data)
