"""Several processes train, as a user has them: the same outputs, whatever dies on the way, and MLflow once."""

import errno
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from surefoot.base import errors, paths
from surefoot.params.params_yaml import load_params
from surefoot.run.processes import launch, lead, wanted
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from tests.helpers import PROJECT, left, wait_for
from tests.pipeline.test_training import NETWORKS, change

EPOCHS = 12
PLATEAU = {"name": "ReduceLROnPlateau", "arguments": {"patience": 1, "factor": 0.5, "threshold": 0.05}}


@pytest.fixture
def project(tracked, monkeypatch):
    """Prepared and batched."""
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    return tracked


def outputs():
    return [path.read_bytes() for path in (paths.MODEL, paths.HISTORY, paths.RUN)]


def forget():
    for path in (paths.MODEL, paths.HISTORY, paths.RUN):
        path.unlink()


@contextmanager
def trained(project, processes, program=("-m", "surefoot.stages.train"), **environment):
    """The stage in a process of its own, with what it says on its standard output, and errors in `said.txt`."""
    path = os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])
    given = {"PYTHONPATH": path, "SUREFOOT_PROCESSES": str(processes), **environment}
    with (
        (project / "said.txt").open("w") as said,
        subprocess.Popen(
            [sys.executable, *program],
            cwd=project.path,
            env=os.environ | given,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as stage,
    ):
        try:
            yield stage
        finally:
            stage.kill()


def to_its_end(project, processes, *program, **environment):
    with trained(project, processes, *program, **environment) as stage:
        out = stage.communicate(timeout=600)[0]
    return stage.returncode, out, (project / "said.txt").read_text()


def process(stage, rank):
    """One of the processes that train."""

    def find():
        return next((child for child in psutil.Process(stage.pid).children() if rank_of(child) == rank), None)

    return wait_for(find, pause=0.02)


def rank_of(child):
    try:
        return int(child.environ().get("RANK", -1))
    except psutil.Error:  # just gone
        return -1


def wait_for_records(project, count):
    store = TrajectoryStore(project / ".surefoot")
    before = store.count_records()
    wait_for(lambda: store.count_records() >= before + count, pause=0.02)


def check_once(project, epochs=EPOCHS):
    """MLflow has each epoch of the one run once."""
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    points = project.client().get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, epochs + 1))
    return run


def test_whatever_dies_the_outputs_are_those_of_one_process(project, tmp_path_factory, monkeypatch):
    change(project, shards=4, epochs=EPOCHS, schedule=PLATEAU, lr=0.5, average={"name": "ema"}, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        assert project.stage("train").code == 0
    whole = outputs()
    forget()

    with trained(project, 3, SUREFOOT_TIMEOUT="5") as stage:
        for rank, number in ((1, signal.SIGKILL), (0, signal.SIGKILL), (2, signal.SIGSTOP)):
            wait_for_records(project, 3)
            process(stage, rank).send_signal(number)
        wait_for_records(project, 3)
        ranks = [process(stage, rank) for rank in range(3)]
        stage.kill()
        psutil.wait_procs(ranks, timeout=20)
        assert not [rank for rank in ranks if rank.is_running()]
    said = (project / "said.txt").read_text()
    again = "; all are started again, and go on from the last state\n"
    assert f"process 2 of 3 was ended by SIGKILL{again}" in said
    assert f"process 1 of 3 was ended by SIGKILL{again}" in said
    assert re.search(
        r"^process 3 of 3 \(pid \d+\) didn't answer within 5 s \(SUREFOOT_TIMEOUT\); it is ended; all are started",
        said,
        re.M,
    )
    assert "Traceback" not in said

    code, out, said = to_its_end(project, 2)
    assert (code, said) == (0, ""), out
    assert "restored, training " in out
    assert len(re.findall(rf"^epoch {EPOCHS}/", out, re.M)) == 1
    assert outputs() == whole
    run = check_once(project)
    assert run.data.tags["surefoot.processes"] == "2"


STOPPED_WHILE_IT_STARTS_OTHERS = """
import os, signal
from torch.distributed.elastic.multiprocessing import api
from surefoot.base import errors
from surefoot.stages import train

def start(begin=api.get_subprocess_handler, **given):
    process = begin(**given)
    os.kill(os.getpid(), signal.{name})
    return process

api.get_subprocess_handler = start
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored under nohup
errors.run_process(train.main_of_processes)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_while_it_starts_others_it_leaves_none_and_says_it_once(project, number):
    change(project, shards=2, epochs=EPOCHS)
    program = "-c", STOPPED_WHILE_IT_STARTS_OTHERS.format(name=number.name)
    code, out, said = to_its_end(project, 2, program)
    assert left(project) == []
    assert (code, out, said) == (128 + number, "", f"stopped by {number.name}\n")


@pytest.mark.slow
def test_a_first_process_that_is_stopped_between_two_epochs_is_ended(project):
    change(project, shards=2, epochs=EPOCHS, model={"factory": f"{NETWORKS}:stops_between_steps", "arguments": {}})
    (project / "stop").touch()
    code, _, said = to_its_end(project, 2, SUREFOOT_TIMEOUT="10")
    assert code == 0
    assert re.search(
        r"^process 1 of 2 \(pid \d+\) didn't answer within 10 s \(SUREFOOT_TIMEOUT\); it is ended; all are started"
        r" again, and go on from the last state$",
        said,
        re.M,
    ), said
    assert not (project / "stop").exists()
    check_once(project)


MINE = """
from torch import nn

def network(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(2, classes))
"""


def test_params_that_are_edited_meanwhile_are_those_of_the_next_run(project, tmp_path_factory, monkeypatch):
    change(project, shards=2, epochs=EPOCHS, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        assert project.stage("train").code == 0
    whole = outputs()
    forget()
    with trained(project, 2) as stage:
        wait_for_records(project, 3)
        change(project, epochs=3, weight_decay=0.5)
        process(stage, 1).kill()
        assert stage.wait(120) == 0
    assert "was ended by SIGKILL; all are started again" in (project / "said.txt").read_text()
    assert outputs() == whole
    check_once(project)


def test_code_that_is_changed_meanwhile_makes_no_other_run_of_it(project):
    (project / "mine.py").write_text(MINE)
    change(project, shards=2, epochs=100_000, model={"factory": "mine:network", "arguments": {}})
    with trained(project, 2) as stage:
        wait_for_records(project, 2)
        (project / "mine.py").write_text(MINE.replace("0.25", "0.5"))
        process(stage, 1).kill()
        assert stage.wait(120) == 2
    assert (project / "said.txt").read_text().splitlines()[1:] == [
        "error: the run would go on as another one, by model.source.mine: code, packages or data were changed since it"
        " began; what was trained is kept"
    ]


def test_validation_is_shared_with_the_same_bits(tracked, tmp_path_factory, monkeypatch):
    """In parts of 1,024 rows: one of three processes has none."""
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    tracked.csv(rows=8000)
    change(
        tracked,
        {"batch": {"size": 256}},
        shards=3,
        model={"factory": f"{NETWORKS}:normalized", "arguments": {}},
        average={"name": "ema", "decay": 0.5},
    )
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        assert tracked.stage("train").code == 0
    whole = outputs()
    forget()
    code, out, said = to_its_end(tracked, 3)
    assert (code, said) == (0, ""), out
    assert outputs() == whole
    assert "validation/average_loss" in paths.HISTORY.read_text()


def test_ctrl_c_and_sigterm_end_all(project):
    change(project, shards=2, epochs=100_000)
    with trained(project, 2) as stage:
        wait_for_records(project, 1)
        ranks = [process(stage, rank) for rank in range(2)]
        stage.terminate()
        assert stage.wait(60) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(ranks, timeout=20)[1]
    assert (project / "said.txt").read_text() == "stopped by SIGTERM\n"
    assert project.runs()[0].info.status == "KILLED"


def test_ctrl_z_stops_all_and_they_go_on_together(project):
    change(project, shards=2, epochs=60)
    with trained(project, 2) as stage:
        wait_for_records(project, 1)
        every = [psutil.Process(stage.pid), process(stage, 0), process(stage, 1)]
        stage.send_signal(signal.SIGTSTP)
        wait_for(lambda: all(one.status() == psutil.STATUS_STOPPED for one in every), pause=0.02)
        stage.send_signal(signal.SIGCONT)
        assert stage.wait(120) == 0
    assert (project / "said.txt").read_text() == ""
    check_once(project, 60)


@pytest.mark.parametrize("what", ["fails", "diverges"])
def test_what_goes_wrong_is_told_once_as_by_one_process(project, what):
    change(project, shards=2, model={"factory": f"{NETWORKS}:on_large_rows", "arguments": {"what": what}})
    alone = project.stage("train").refused()
    code, out, said = to_its_end(project, 2)
    assert (code, said.replace("error: ", "")) == (2, alone.replace("error: ", "")), out


def test_one_that_dies_each_time_is_given_up(project):
    change(project, shards=2, model={"factory": f"{NETWORKS}:on_large_rows", "arguments": {"what": "is killed"}})
    code, _, said = to_its_end(project, 2)
    assert code == 2
    assert said.count("all are started again") == 2
    assert "was ended by SIGKILL, 3 times in a row without a new state; what was trained is kept" in said


def test_one_that_has_too_little_memory_ends_the_run_with_a_line_and_nothing_is_lost(project):
    change(project, shards=2, epochs=EPOCHS, model={"factory": f"{NETWORKS}:short_of_memory", "arguments": {}})
    store = TrajectoryStore(project / ".surefoot")
    with trained(project, 2) as stage:
        wait_for_records(project, 2)
        (project / "limited").touch()
        assert stage.wait(120) == 2
    said = (project / "said.txt").read_text()
    assert re.fullmatch(
        r"error: train\.model: the network fails in training, at step \d+ of the epoch, on shard 2 of 2"
        r" \(train\.shards\): the limit on memory is reached: `ulimit -v` is \d+; raise it"
        r" \(.*networks_for_tests\.py, line \d+\)\n",
        said,
    ), said
    assert 2 <= store.count_records() < EPOCHS
    (project / "limited").unlink()
    code, out, said = to_its_end(project, 2)
    assert (code, said) == (0, "")
    assert " restored, training " in out
    check_once(project)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0", "SUREFOOT_PROCESSES: a number of processes is needed, or auto; got '0'"),
        ("many", "SUREFOOT_PROCESSES: a number of processes is needed, or auto; got 'many'"),
        ("3", "SUREFOOT_PROCESSES: 3 processes can't share the 2 shards of a minibatch; set train.shards to 3 or more"),
    ],
)
def test_a_number_of_processes_that_makes_no_sense_is_refused(project, given, message):
    change(project, shards=2)
    code, out, said = to_its_end(project, given)
    assert (code, out) == (2, "")
    assert message in said
    assert not project.runs()


def test_a_time_out_that_makes_no_sense_is_refused(project):
    change(project, shards=2)
    code, _, said = to_its_end(project, 2, SUREFOOT_TIMEOUT="soon")
    assert (code, said) == (2, "error: SUREFOOT_TIMEOUT: a number of seconds is needed, got 'soon'\n")


def test_auto_takes_the_free_processors_but_no_more_than_shards(monkeypatch):
    monkeypatch.setenv("SUREFOOT_PROCESSES", "auto")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert [
        wanted.wanted_processes(shards, threads) for shards, threads in ((1, 1), (4, 1), (8, 1), (8, 2), (8, 7))
    ] == [*(1, 4, 6, 3, 1)]


def test_where_no_process_can_be_started_it_is_told(here, monkeypatch, capfd, keep_process):
    def refuse(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(launch.Agent, "_start_workers", refuse)
    for name in (wanted.RANK, "TORCH_CPP_LOG_LEVEL", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as end:
        params, file = load_params(paths.PARAMS), paths.PARAMS.read_bytes()
        errors.run_process(lambda: lead.lead_run(params, file, 2, (1, 1), None, lambda: None))
    assert end.value.code == 2
    assert "error: " in capfd.readouterr().err


def test_each_process_trains_on_a_gpu_of_its_own():
    pytest.skip("by nccl, on a machine with several GPUs: written so, and not run yet")
