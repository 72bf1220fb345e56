"""Two machines as a user has them: two clones, each in a network namespace with an address of its own, and `dvc repro`.

Either is killed as by a power failure, and comes back; the outputs are those of one process, byte for byte.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from mlflow.tracking import MlflowClient

from tests.helpers import Workspace, make_workspace

pytestmark = pytest.mark.slow

NAMES = [f"surefoot-{os.getpid()}-{letter}" for letter in "ab"]
ADDRESSES = ["10.77.0.1", "10.77.0.2"]
PLACE = f"{ADDRESSES[0]}:29400"
EPOCHS = 120
REPRO = (".venv/bin/dvc", "repro", "--force", "--single-item", "train")
JOIN = (".venv/bin/surefoot", "join", PLACE)
OWN_CODE = {"PYTHONPATH": "src"}  # the clones have the environment of this one


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def machines():
    """Two namespaces, joined by a cable."""
    if not sys.platform.startswith("linux") or os.geteuid() or shutil.which("ip") is None:
        pytest.skip("two network namespaces need Linux, root and the command `ip`; on Debian: apt-get install iproute2")
    try:
        for name in NAMES:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    try:
        ends = [f"sf{os.getpid() % 100_000}{letter}" for letter in "ab"]
        ip("link", "add", ends[0], "netns", NAMES[0], "type", "veth", "peer", "name", ends[1], "netns", NAMES[1])
        for name, end, address in zip(NAMES, ends, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield ends
    finally:
        for name in NAMES:
            kill_all(name)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def kill_all(name):
    """SIGKILL to all that runs in a namespace."""
    while pids := subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
        subprocess.run(["kill", "-KILL", *pids], check=False, stderr=subprocess.DEVNULL)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def clones(tmp_path_factory):
    """Two clones with the data, and the outputs of one process."""
    directory = tmp_path_factory.mktemp("machines")
    one = make_workspace(directory / "one")
    for key, value in (("epochs", str(EPOCHS)), ("shards", "4"), ("checkpoint_every", "7")):
        one.edit(f"train.{key}", value)
    one.git("commit", "--quiet", "--all", "--message=shards")
    one.dvc("repro", "train", SUREFOOT_STORE=str(directory / "store"))
    one.dvc("remote", "add", "--default", "shared", str(directory / "remote"))
    one.git("add", "--all")
    one.git("commit", "--quiet", "--message=trained")
    one.dvc("push")
    one.git("clone", "--quiet", ".", str(directory / "two"))
    two = Workspace(directory / "two")
    (two / ".venv").symlink_to(sys.prefix)
    two.dvc("pull", "batch", "start_from")
    whole = outputs(one)
    for name in whole:
        (one / name).unlink()
    return one, two, whole


def outputs(workspace):
    names = ("models/model.safetensors", "models/run.json", "reports/history.csv")
    return {name: (workspace / name).read_bytes() for name in names}


@contextmanager
def running(name, workspace, *command, **environment):
    """A command on one of the machines; what it says is in a file."""
    file = workspace / "said.txt"
    with file.open("w") as said:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *command],
            cwd=workspace.path,
            env=workspace.environment(**environment),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, file
    finally:
        process.kill()
        process.wait()


def wait_to_say(process, file, pattern):
    until = time.monotonic() + 240
    while not re.search(pattern, file.read_text(), re.M):
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < until, file.read_text()
        time.sleep(0.05)


def epochs_said(file):
    return len(re.findall("^epoch ", file.read_text(), re.M))


def wait_for_epochs(process, file, count=5):
    before = epochs_said(file)
    while epochs_said(file) < before + count:
        assert process.poll() is None, file.read_text()
        time.sleep(0.05)


def test_a_machine_that_dies_and_comes_back_changes_no_byte(machines, clones):
    one, two, whole = clones
    given = {"SUREFOOT_NODES": "1:2", "SUREFOOT_RENDEZVOUS": PLACE, "SUREFOOT_PROCESSES": "2"}
    with running(NAMES[0], one, *REPRO, **given) as (first, said):
        with running(NAMES[1], two, *JOIN, **OWN_CODE) as (second, said_there):
            wait_to_say(second, said_there, "^training: process 3 of 3$")
            wait_for_epochs(first, said)
            kill_all(NAMES[1])
        wait_to_say(first, said, r"^machine 2 \(10\.77\.0\.2\) is gone: .* all are started again")
        wait_for_epochs(first, said)
        with running(NAMES[1], two, *JOIN, **OWN_CODE) as (second, said_there):
            wait_to_say(second, said_there, "^training: process 3 of 3$")
            wait_for_epochs(first, said)
            assert first.wait(300) == 0, said.read_text()
            assert second.wait(30) == 0
            assert said_there.read_text().endswith("the run is over\n")
    assert outputs(one) == whole
    assert "Traceback" not in said.read_text()
    assert not (two / ".surefoot").exists()


def test_a_run_whose_first_machine_dies_goes_on_there_with_the_same_bytes(machines, clones, tmp_path):
    one, two, whole = clones
    for name in whole:
        (one / name).unlink(missing_ok=True)
    mlflow = f"sqlite:///{tmp_path}/mlflow.db"
    given = {"SUREFOOT_NODES": "2", "SUREFOOT_RENDEZVOUS": PLACE, "SUREFOOT_STORE": str(tmp_path / "store")}
    given["MLFLOW_TRACKING_URI"] = mlflow
    with (
        running(NAMES[0], one, *REPRO, **given) as (first, said),
        running(NAMES[1], two, *JOIN, **OWN_CODE, SUREFOOT_PROCESSES="2") as (second, said_there),
    ):
        wait_to_say(second, said_there, "^training: processes 2 to 3 of 3$")
        wait_for_epochs(first, said)
        kill_all(NAMES[0])
        assert second.wait(60) == 75, said_there.read_text()
        assert said_there.read_text().endswith(f"error: the first machine, at {PLACE}, is gone\n")
    assert not any((one / name).exists() for name in whole)
    with running(NAMES[1], two, *JOIN, **OWN_CODE, SUREFOOT_PROCESSES="2") as (second, said_there):
        wait_to_say(second, said_there, "^waiting for the first machine, at ")
        with running(NAMES[0], one, *REPRO, **given) as (first, said):
            wait_to_say(first, said, rf"^epochs 1-\d+ restored, training \d+-{EPOCHS}$")
            assert first.wait(300) == 0, said.read_text()
        assert second.wait(30) == 0, said_there.read_text()
        assert "training: processes 2 to 3 of 3\n" in said_there.read_text()
    assert outputs(one) == whole
    client = MlflowClient(mlflow)
    (run,) = client.search_runs([client.get_experiment_by_name("surefoot").experiment_id])
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))


def test_a_cable_that_is_pulled_is_noticed_on_both_sides(machines, clones):
    """No connection is closed: nothing is heard any more."""
    one, two, _ = clones
    given = {"SUREFOOT_NODES": "1:2", "SUREFOOT_RENDEZVOUS": PLACE, "SUREFOOT_STORE": str(one / "other_store")}
    with (
        running(NAMES[0], one, *REPRO, **given) as (first, said),
        running(NAMES[1], two, *JOIN, **OWN_CODE) as (second, said_there),
    ):
        wait_to_say(second, said_there, "^training: process 2 of 2$")
        wait_for_epochs(first, said)
        ip("-n", NAMES[0], "link", "set", machines[0], "down")
        try:
            wait_to_say(first, said, r"^machine 2 \(10\.77\.0\.2\) is gone: nothing was heard of it for 10 s; all are")
            assert second.wait(60) == 75
            assert said_there.read_text().endswith(f"error: the first machine, at {PLACE}, is gone\n")
            assert first.wait(300) == 0, said.read_text()
        finally:
            ip("-n", NAMES[0], "link", "set", machines[0], "up")


def test_a_clone_with_another_commit_is_refused(machines, clones):
    one, two, _ = clones
    given = {"SUREFOOT_NODES": "2", "SUREFOOT_RENDEZVOUS": PLACE, "SUREFOOT_STORE": str(one / "third_store")}
    (two / "src/networks/mlp.py").write_text((two / "src/networks/mlp.py").read_text() + "\n# changed\n")
    two.git("commit", "--quiet", "--all", "--message=changed")
    with running(NAMES[0], one, *REPRO, **given) as (
        first,
        said,
    ):
        with running(NAMES[1], two, *JOIN, **OWN_CODE) as (second, said_there):
            assert second.wait(120) == 2
            line = said_there.read_text().splitlines()[-1]
            before = "error: the first machine trains something else, or computes otherwise: commit ("
            assert line.startswith(before), line
            assert line.endswith("; src (src/networks/mlp.py)"), line
        wait_to_say(first, said, r"^a machine was refused \(10\.77\.0\.2\): it differs in commit, src$")
        assert first.poll() is None
    kill_all(NAMES[0])


def test_the_namespaces_are_apart(machines):
    """Otherwise nothing was shown."""
    refused = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            NAMES[1],
            sys.executable,
            "-c",
            "import socket; socket.create_server(('10.77.0.1', 0))",
        ],
        capture_output=True,
        text=True,
    )
    assert "Cannot assign requested address" in refused.stderr
