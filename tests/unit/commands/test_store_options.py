import json
import sys

import pytest

from surefoot import cli
from surefoot.params.reference import json_schema
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import description, some_run
from tests.unit.run.chains import cut, walk


@pytest.fixture
def surefoot(here, monkeypatch, capfd):
    """Run a command within this process: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["surefoot", *arguments])
        capfd.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, *capfd.readouterr()
        return 0, *capfd.readouterr()

    run.path = here.path
    return run


def mark(path, parts, name):
    store = TrajectoryStore(path / ".surefoot")
    walk(store, parts)
    identity = f"{name}" * 64
    keys = [part.key for part in parts]
    said = description(f"run {name}")
    store.mark_run(some_run(identity[:64], epoch_keys=keys, last=keys[-1], best=keys[0], description=said))


NEEDED = {"compare": ["a", "b"], "predict": ["rows.csv"]}  # what a command isn't even parsed without


def test_outside_of_a_project_it_says_where_to_go(surefoot, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in cli.COMMANDS:
        wanted = (
            "error: there is no params.yaml here; run surefoot in the directory that has it, the repository's root\n"
        )
        assert surefoot(command, *NEEDED.get(command, [])) == (2, "", wanted)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_without_a_command_or_with_a_wrong_one_it_says_what_there_is(surefoot):
    for arguments in ([], ["train"]):
        code, out, err = surefoot(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("usage: surefoot")
    code, out, _ = surefoot("--help")
    assert code == 0
    assert all(command in out for command in cli.COMMANDS)


def test_check_is_silent_where_all_is_right(surefoot):
    assert surefoot("check")[0] == 0  # which may have added what DVC needs to find
    assert surefoot("check") == (0, "", "")


def test_check_names_the_fault(surefoot):
    (surefoot.path / "params.yaml").write_text("seed: -1\n")
    code, out, err = surefoot("check")
    assert (code, out) == (2, "")
    assert err.startswith("error: params.yaml:1: ")


def test_schema_prints_the_schema(surefoot):
    code, out, _ = surefoot("schema")
    assert (code, json.loads(out)) == (0, json_schema())


def test_store_lists_prunes_and_forgets(surefoot):
    mark(surefoot.path, cut(4), "a")
    code, out, err = surefoot("store")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["RUN", "EPOCHS", "STATES", "SIZE", "NAME", "SHARES"]
    assert lines[1].split() == ["a" * 8, "4/4", "4", "0.0", "MB", "run", "a"]
    assert lines[2].startswith(f"4 states, 0.0 MB in {surefoot.path / '.surefoot'}; free on that disk: ")
    assert surefoot("store", "--prune") == (0, "2 states deleted, 0.0 MB freed\n", "")
    assert surefoot("store", "--forget", "aa", "--prune") == (
        0,
        "forgotten: run a\n2 states deleted, 0.0 MB freed\n",
        "",
    )


def test_an_empty_store_is_listed(surefoot):
    code, out, err = surefoot("store")
    assert (code, err) == (0, "")
    assert out.startswith("RUN  EPOCHS  STATES  SIZE  NAME  SHARES\n0 states, 0.0 MB in ")


def test_the_store_may_lie_elsewhere(surefoot, monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_STORE", str(tmp_path / "other"))
    assert f"in {tmp_path / 'other'};" in surefoot("store")[1]
    assert not (surefoot.path / ".surefoot").exists()


def test_a_run_that_is_not_there_cannot_be_forgotten(surefoot):
    assert surefoot("store", "--forget", "abc") == (
        2,
        "",
        "error: --forget abc: no runs of the store start so; `surefoot store` lists them\n",
    )


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_ui_takes_a_port_that_there_can_be(surefoot, port):
    assert surefoot("ui", "--port", port) == (2, "", f"error: --port {port}: must be from 1 to 65535\n")


def test_ui_names_a_server(surefoot, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code, out, error = surefoot("ui")
    assert (code, out) == (
        0,
        "the runs are on the server: http://127.0.0.1:1/#/experiments?workflowType=machine_learning\n",
    )
    assert error.startswith("note: MLflow at http://127.0.0.1:1 can't be read")


def test_sync_of_an_empty_store_does_nothing(surefoot):
    assert surefoot("sync") == (0, "", "")
    assert not (surefoot.path / "mlflow.db").exists()


def test_fingerprint(surefoot):
    code, out, err = surefoot("fingerprint")
    assert (code, err, len(out)) == (0, "", 65)
    assert surefoot("fingerprint")[1] == out
