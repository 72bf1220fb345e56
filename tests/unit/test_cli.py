import inspect
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module

import pytest

from surefoot import cli
from surefoot.commands import ui
from surefoot.params.reference import json_schema
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import PROJECT, call_surefoot, description, some_run
from tests.unit.run.chains import cut, walk


@pytest.fixture
def surefoot(here, monkeypatch, capfd):
    """Run a command within this process: exit code, output, errors."""

    return partial(call_surefoot, monkeypatch, capfd)


def test_check_says_nothing_of_params_that_are_right(surefoot):
    assert surefoot("check") == (0, "", "")


def test_check_refuses_params_that_are_wrong(surefoot, here):
    here.edit("train.lr", "fast")
    code, out, err = surefoot("check")
    assert (code, out) == (2, "")
    assert err.startswith("error: params.yaml:10: train.lr: input should be a valid number")


def test_check_without_a_file(surefoot, here):
    (here / "params.yaml").unlink()
    code, _, err = surefoot("check")
    assert code == 2
    assert err.startswith("error: there is no params.yaml here")


def test_the_schema_is_printed(surefoot):
    code, out, _ = surefoot("schema")
    assert code == 0
    assert json.loads(out) == json_schema()


def test_the_ui_of_a_server_is_the_server(surefoot, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:1/")
    code, out, err = surefoot("ui")
    assert (code, out) == (
        0,
        "the runs are on the server: http://127.0.0.1:1/#/experiments?workflowType=machine_learning\n",
    )
    assert err.startswith("note: MLflow at http://127.0.0.1:1/ can't be read: ")
    assert "secret" not in out + err


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_the_ui_takes_a_port_that_there_can_be(surefoot, port):
    assert surefoot("ui", "--port", port) == (2, "", f"error: --port {port}: must be from 1 to 65535\n")


def test_the_ui_is_on_this_machine_alone(surefoot, here, monkeypatch):
    monkeypatch.setattr(ui, "SERVER", [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"])
    code, out, err = surefoot("ui", "--no-browser", "--port", str(port := ui.free_port()))
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: MLflow's server ended by itself, exit code 0; what it said is above",
    )
    said, arguments = out.splitlines()
    assert f"http://127.0.0.1:{port}/" in said
    arguments = json.loads(arguments)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--port") + 1] == str(port)
    assert arguments[arguments.index("--backend-store-uri") + 1] == f"sqlite:///{here / 'mlflow.db'}"


NEEDED = {
    "join": ["10.0.0.1:29400"],
    "compare": ["RUN"],
    "predict": ["FILE"],
}  # what a command isn't even parsed without


def test_help_names_every_command(surefoot):
    code, out, _ = surefoot("--help")
    assert code == 0
    assert all(command in out for command in cli.COMMANDS)


def test_outside_of_a_project_it_says_where_to_go(surefoot, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in cli.COMMANDS.keys() - {"init"}:
        wanted = (
            "error: there is no params.yaml here; run surefoot in the directory that has it, the repository's root\n"
        )
        assert surefoot(command, *NEEDED.get(command, [])) == (2, "", wanted)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_sync_of_an_empty_store_does_nothing(surefoot, here):
    assert surefoot("sync") == (0, "", "")
    assert not (here.path / "mlflow.db").exists()


def test_fingerprint(surefoot):
    code, out, err = surefoot("fingerprint")
    assert (code, err, len(out)) == (0, "", 65)
    assert surefoot("fingerprint")[1] == out


def marked(path, parts, name):
    store = TrajectoryStore(path / ".surefoot")
    walk(store, parts)
    identity = f"{name}" * 64
    keys = [part.key for part in parts]
    said = description(f"run {name}")
    store.mark_run(some_run(identity[:64], epoch_keys=keys, last=keys[-1], best=keys[0], description=said))


def test_store_lists_prunes_and_forgets(surefoot, here):
    marked(here.path, cut(4), "a")
    code, out, err = surefoot("store")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["RUN", "EPOCHS", "STATES", "SIZE", "NAME", "SHARES"]
    assert lines[1].split() == ["a" * 8, "4/4", "4", "0.0", "MB", "run", "a"]
    assert lines[2].startswith(f"4 states, 0.0 MB in {here.path / '.surefoot'}; free on that disk: ")
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


def test_the_store_may_lie_elsewhere(surefoot, here, monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_STORE", str(tmp_path / "other"))
    assert f"in {tmp_path / 'other'};" in surefoot("store")[1]
    assert not (here.path / ".surefoot").exists()


def test_a_run_that_is_not_there_cannot_be_forgotten(surefoot):
    assert surefoot("store", "--forget", "abc") == (
        2,
        "",
        "error: --forget abc: no runs of the store start so; `surefoot store` lists them\n",
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_is_given_its_options(name, surefoot, here, monkeypatch):
    """Its own parameters, all of them, by name."""
    module = import_module(f"surefoot.commands.{cli.COMMANDS[name][0]}")
    wanted, given = set(inspect.signature(module.main).parameters), {}

    def instead(**options):
        given.update(options)

    monkeypatch.setattr(module, "main", instead)
    assert surefoot(name, *NEEDED.get(name, [])) == (0, "", "")
    assert given.keys() == wanted


def test_options_reach_the_command(surefoot, monkeypatch):
    given = {}
    monkeypatch.setattr(ui, "serve", lambda port, *, browser: given.update(port=port, browser=browser))
    assert surefoot("ui", "--port", "5001", "--no-browser") == (0, "", "")
    assert given == {"port": 5001, "browser": False}
    surefoot("ui")
    assert given == {"port": 5000, "browser": True}


@pytest.mark.parametrize(
    "arguments", [["--help"], [], ["nothing"], ["store", "--x"]] + [[name, "--help"] for name in cli.COMMANDS]
)
def test_a_command_is_imported_when_it_is_called(arguments, tmp_path):
    """Outside of a project, too."""
    code = (
        "import atexit, sys; from surefoot.cli import main; atexit.register(lambda: print([name for name in sys.modules"
        " if name in ('numpy', 'pydantic', 'torch', 'yaml') or name.startswith('surefoot.commands.')])); sys.argv[1:]"
        " = sys.argv[2:]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "-", *arguments],
        env={"PYTHONPATH": str(PROJECT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert done.stdout.splitlines()[-1] == "['surefoot.commands.options']", done


def test_it_is_a_module_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "surefoot", "compare", "--help"],
        env={"PYTHONPATH": str(PROJECT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: surefoot compare [-h] [--out FILE] RUN [RUN ...]\n")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["check", "more"]])
def test_a_command_that_is_not_there(surefoot, arguments):
    code, out, err = surefoot(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: surefoot")


def test_check_says_that_git_is_out_of_reach(here, monkeypatch, capfd):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(here.path.parent))
    (here / "params.yaml").write_text("seed: 0\n" + (here / "params.yaml").read_text())
    shutil.copy(PROJECT / "dvc.yaml", here.path)
    monkeypatch.setattr(sys, "argv", ["surefoot", "check"])
    cli.main()
    out, err = capfd.readouterr()
    assert err.count("\n") == 1, out
    assert (
        err.startswith("warning: Git is out of reach, so a run would be recorded without its commit")
        and "not a git repository" in err
    )


def test_make_repro_without_git_ends_before_it_installs(tmp_path):
    shutil.copy(PROJECT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", "repro"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )
    assert done.returncode == 2
    assert "git init --quiet && git add --all && git commit" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
