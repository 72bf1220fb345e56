"""Two machines train, here two directories of one: the same outputs, whatever dies, leaves, comes or is refused."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from surefoot.base import paths
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from tests.helpers import PROJECT, wait_for
from tests.pipeline.test_processes import MINE, check_once, forget, outputs, process
from tests.pipeline.test_training import NETWORKS, change

HOST = "127.0.0.1"
EPOCHS = 30


@pytest.fixture
def project(tracked, monkeypatch):
    """Prepared and batched."""
    tracked.csv()
    change(tracked, shards=4, epochs=EPOCHS, average={"name": "ema"}, checkpoint_every=2)
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    return tracked


@pytest.fixture
def other(project, tmp_path_factory):
    """Another machine's directory, which has the data, and no store."""
    path = tmp_path_factory.mktemp("other") / "project"
    shutil.copytree(project.path, path, ignore=shutil.ignore_patterns("mlflow.db", ".surefoot", "said*.txt"))
    return path


@pytest.fixture
def place():
    with socket.create_server((HOST, 0)) as free:
        return f"{HOST}:{free.getsockname()[1]}"


class Machine(subprocess.Popen):
    """What a machine runs; all that it says goes to one file."""

    def __init__(self, directory, *command, **environment):
        path = os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])
        self.file = Path(directory) / f"said{len(list(Path(directory).glob('said*.txt')))}.txt"
        with self.file.open("w") as file:
            super().__init__(
                [sys.executable, "-m", *command],
                cwd=directory,
                env=os.environ | {"PYTHONPATH": path, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self):
        return self.file.read_text()

    def wait_to_say(self, text):
        wait_for(lambda: text in self.said or self.poll() is not None, seconds=120, pause=0.02)
        assert text in self.said, self.said

    def end(self):
        """Its exit code, and what it said."""
        code = self.wait(240)
        assert "Traceback" not in self.said
        return code, self.said

    def kill_all(self):
        """As where the machine's power fails, but for its connections, which the system closes."""
        for one in [*psutil.Process(self.pid).children(recursive=True), self]:
            one.kill()


@contextmanager
def first(project, place, nodes, **environment):
    given = {"SUREFOOT_NODES": nodes, "SUREFOOT_RENDEZVOUS": place, **environment}
    with Machine(project.path, "surefoot.stages.train", **given) as machine:
        try:
            yield machine
        finally:
            machine.kill()


@contextmanager
def joined(directory, place, **environment):
    with Machine(directory, "surefoot", "join", place, **environment) as machine:
        try:
            yield machine
        finally:
            machine.kill()


def records(project):
    return TrajectoryStore(project / ".surefoot").count_records()


def wait_for_records(project, count=2):
    before = records(project)
    wait_for(lambda: records(project) >= before + count, pause=0.02)


@pytest.mark.slow
def test_whatever_happens_to_machines_the_outputs_are_those_of_one_process(
    project, other, place, tmp_path_factory, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        assert project.stage("train").code == 0
    whole = outputs()
    forget()

    again = "; all are started again, and go on from the last state\n"
    with first(project, place, "1:2", SUREFOOT_TIMEOUT="5") as one:
        with joined(other, place, SUREFOOT_PROCESSES="2") as two:
            two.wait_to_say("training: processes 2 to 3 of 3\n")
            wait_for_records(project)
            process(two, 1).kill()  # one of the other machine's
            one.wait_to_say(f"process 2 of 3 on machine 2 ({HOST}) was ended by SIGKILL{again}")
            wait_for_records(project)
            hung = process(two, 2)
            hung.suspend()
            one.wait_to_say(
                f"process 3 of 3 (machine 2 ({HOST}), pid {hung.pid}) didn't answer within 5 s (SUREFOOT_TIMEOUT);"
                f" it is ended{again}"
            )
            assert "process 2 of 3 (" not in one.said, "it only waits"
            assert not hung.is_running()
            wait_for_records(project)
            two.kill_all()
        one.wait_to_say(f"machine 2 ({HOST}) is gone: nothing was heard of it for 10 s{again}")
        with joined(other, place) as three:
            three.wait_to_say("training: process 2 of 2\n")
            assert three.end()[0] == 0
            assert three.said.endswith("the run is over\n")
        code, said = one.end()
    assert code == 0
    assert f"machine 3 ({HOST}) has joined, with 1 process; it takes part when the next state is stored\n" in said
    assert outputs() == whole
    assert not (other / ".surefoot").exists(), "it keeps nothing"
    assert check_once(project, EPOCHS).data.tags["surefoot.processes"] == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_machine_that_is_stopped_leaves_the_others(project, other, place, number):
    with first(project, place, "1:2") as one, joined(other, place) as two:
        two.wait_to_say("training: process 2 of 2\n")
        ranks = [process(two, 1)]
        two.send_signal(number)
        code, said = two.end()
        assert (code, said.splitlines()[-1]) == (128 + number, f"stopped by {number.name}")
        assert not psutil.wait_procs(ranks, timeout=20)[1]
        code, said = one.end()
    assert code == 0
    assert f"machine 2 ({HOST}) has left: stopped by {number.name}; all are started again, and go on" in said


def test_when_the_run_is_stopped_the_others_end_as_it_does(project, other, place):
    change(project, epochs=100_000)
    change_of_other(project, other)
    with first(project, place, "2") as one, joined(other, place) as two:
        wait_for_records(project)
        one.terminate()
        code, said = one.end()
        assert (code, said.splitlines()[-1]) == (128 + signal.SIGTERM, "stopped by SIGTERM")
        code, said = two.end()
        assert (code, said.splitlines()[-1]) == (143, "the run has ended on the first machine, with exit code 143")
    assert project.runs()[0].info.status == "KILLED"


def change_of_other(project, other):
    shutil.copy(project / "params.yaml", other / "params.yaml")


def test_a_joined_machine_ends_where_the_first_one_vanishes(project, other, place):
    change(project, epochs=100_000)
    change_of_other(project, other)
    with first(project, place, "2") as one, joined(other, place, SUREFOOT_PROCESSES="2") as two:
        two.wait_to_say("training: processes 2 to 3 of 3\n")
        wait_for_records(project)
        ranks = [process(two, rank) for rank in (1, 2)]
        one.kill_all()
        code, said = two.end()
        assert (code, said.splitlines()[-1]) == (75, f"error: the first machine, at {place}, is gone")
        assert not psutil.wait_procs(ranks, timeout=20)[1]


def test_a_refused_machine_ends_and_the_first_goes_on_waiting(project, other, place):
    with first(project, place, "2") as one:
        params = (other / "params.yaml").read_text()
        (other / "params.yaml").write_text(params.replace("lr: 0.1", "lr: 0.2"))
        with joined(other, place) as two:
            code, said = two.end()
        assert (code, said.splitlines()[-1]) == (
            2,
            "error: the first machine trains something else, or computes otherwise: params.yaml: train.lr (0.2 here,"
            " 0.1 on the first machine)",
        )
        assert one.poll() is None
        assert f"a machine was refused ({HOST}): it differs in params.yaml: train.lr\n" in one.said
        one.terminate()
        code, said = one.end()
        assert (code, said.splitlines()[-1]) == (143, "stopped by SIGTERM")
    assert not records(project)


def test_a_machine_on_which_it_cannot_be_done_leaves(project, other, place):
    change(project, model={"factory": f"{NETWORKS}:fails_where_told", "arguments": {}})
    change_of_other(project, other)
    with first(project, place, "1:2") as one, joined(other, place, FAILS_HERE="") as two:
        code, said = two.end()
        assert code == 2
        assert "it fails here" in said.splitlines()[-1]
        code, said = one.end()
    assert code == 0
    assert f"machine 2 ({HOST}) has left: exit code 2; all are started again, and go on from the last state\n" in said


def test_a_machine_whose_code_was_changed_after_it_joined_leaves(project, other, place):
    for directory in (project.path, other):
        (directory / "mine.py").write_text(MINE)
        change(directory, model={"factory": "mine:network", "arguments": {}})
    with first(project, place, "1:2") as one, joined(other, place) as two:
        two.wait_to_say("training: process 2 of 2\n")
        wait_for_records(project)
        change(other, weight_decay=0.5)  # which is for later
        (other / "mine.py").write_text(MINE.replace("0.25", "0.5"))
        process(two, 1).kill()
        code, said = two.end()
        assert code == 2
        assert said.splitlines()[-1] == (
            "error: this process would train something else than the first one, by model.source.mine: code, packages or"
            " data were changed since this machine began, or differ"
        )
        code, said = one.end()
    assert code == 0
    assert f"machine 2 ({HOST}) has left: exit code 2; all are started again, and go on from the last state\n" in said


def test_a_join_without_data_is_refused(project, other, place):
    shutil.rmtree(other / paths.BATCHES)
    with joined(other, place) as two:
        code, said = two.end()
    assert code == 2
    assert str(paths.BATCHES) in said
    assert len(said.splitlines()) <= 2


def test_a_join_with_damaged_data_is_refused(project, other, place):
    path = other / paths.BATCHES / "train/inputs.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with joined(other, place) as two:
        code, said = two.end()
    assert (code, said.splitlines()[-1]) == (
        2,
        f"error: {paths.BATCHES / 'train/inputs.npy'}: is damaged; remove it, and `dvc repro batch` makes it again",
    )


def test_a_join_to_nowhere_ends_in_time(project, other, place):
    for address, time_out, message in (
        (place, "1", f"error: no run was found at {place} within 1 s (SUREFOOT_JOIN_TIMEOUT): Connection refused"),
        (place, "soon", "error: SUREFOOT_JOIN_TIMEOUT: a number of seconds is needed, got 'soon'"),
        ("nowhere", "1", "error: HOST:PORT: HOST:PORT is needed, as 10.0.0.1:29400; got 'nowhere'"),
    ):
        with joined(other, address, SUREFOOT_JOIN_TIMEOUT=time_out) as two:
            code, said = two.end()
        assert code == 2
        assert message in said


@pytest.mark.parametrize(
    ("nodes", "place", "message"),
    [
        ("2", "", "SUREFOOT_RENDEZVOUS: an address of this machine and a free port are needed"),
        ("2", "here", "SUREFOOT_RENDEZVOUS: HOST:PORT is needed, as 10.0.0.1:29400; got 'here'"),
        ("many", f"{HOST}:1", "SUREFOOT_NODES: a number of machines is needed, or the least and the most, as 1:2; got"),
        ("5", f"{HOST}:1", "SUREFOOT_NODES: 5 processes on 5 machines can't share the 4 shards of a minibatch"),
        ("1", f"{HOST}:1", "SUREFOOT_RENDEZVOUS is where several machines meet; say by SUREFOOT_NODES how many"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(project, nodes, place, message):
    with first(project, place, nodes) as one:
        code, said = one.end()
    assert code == 2
    assert said.startswith(f"error: {message}")
    assert not project.runs()


def test_a_port_in_use_is_told(project):
    with socket.create_server((HOST, 0)) as taken:
        place = f"{HOST}:{taken.getsockname()[1]}"
        with first(project, place, "2") as one:
            assert one.end() == (
                2,
                f"error: SUREFOOT_RENDEZVOUS: port {taken.getsockname()[1]} is in use; take another one, or end what"
                " listens there\n",
            )
