"""The process that writes a run to MLflow: whatever becomes of it, or of its stage, the outputs are the same bytes, and
in the end MLflow has all of the run once.
"""

import errno
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from surefoot.base import paths
from surefoot.commands.sync import sync_runs
from surefoot.run import publish, run_writer, start_tracking
from surefoot.run.tracking_process import follow_stage
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import mlflow_model
from tests.forked import forking
from tests.helpers import PARAMS, PROJECT, wait_for
from tests.pipeline.test_trajectory import check_history, ok, set_train

EPOCHS = 6
LACKS = "warning: MLflow may lack something of this run, as the process that writes it there "
SYNC = "; once the run is finished, `surefoot sync` brings it\n"
start_process = start_tracking.start_process  # which `tracked` replaces


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a stage in a process of its own."""
    directory = tmp_path_factory.mktemp("numerics")
    (directory / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        with forking(directory) as starts:
            yield starts


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def project(tracked, kept, empty_store, monkeypatch):
    """Batched, to be trained with a checkpoint each epoch, of states that aren't kept. `expected` has the outputs of an
    undisturbed training.
    """

    def make():
        tracked.csv()
        set_train(tracked, epochs=EPOCHS, save_every=1, keep_states=1, select="last")
        for stage in ("prepare", "batch", "train"):
            ok(tracked.stage(stage))
        (tracked / "expected.json").write_text(json.dumps(outputs()))
        for name in (".surefoot", "models", "reports", "mlartifacts"):
            shutil.rmtree(tracked / name)
        shutil.copy(empty_store, tracked / "mlflow.db")

    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    tracked.once(kept / "project", make)
    tracked.expected = json.loads((tracked / "expected.json").read_text())
    return tracked


def outputs():
    return [path.read_bytes().hex() for path in (paths.MODEL, paths.RUN, paths.HISTORY)]


def check(project):
    """See that MLflow has all of the run once, and nothing is left to bring."""
    (run,) = project.runs()
    assert (run.info.status, run.data.tags["surefoot.complete"]) == ("FINISHED", "true")
    check_history(project.path, run, EPOCHS)
    names = {f"epoch-{epoch:04}" for epoch in range(1, EPOCHS + 1)} | {"best", "last"}
    checkpoints = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoints"
    assert {path.stem for path in checkpoints.iterdir()} == names
    assert (checkpoints / "last.safetensors").read_bytes() == paths.MODEL.read_bytes()
    assert not list((project / ".surefoot/checkpoints").glob("*/*"))


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def records():
    """How many epochs are stored; one more where the run is finished."""
    return len(list(Path(".surefoot/chain").glob("*.json"))) + paths.HISTORY.exists()


def artifacts():
    """How many files MLflow has, of 11 in the end."""
    return sum(path.is_file() for path in Path("mlartifacts").rglob("*"))


@pytest.mark.parametrize("seed", range(12))
def test_whoever_is_killed_at_any_moment_all_is_there_in_the_end(project, start, seed):
    rng = random.Random(seed)
    whom = ("stage", "tracker", "both")[seed % 3]
    stage = start("train")
    tracker = stage.tracker()
    count, most = rng.choice(((records, EPOCHS + 1), (artifacts, 11), (artifacts, 11)))
    moment = rng.randint(0, most)
    wait_for(lambda: count() >= moment, pause=0.0005)
    time.sleep(rng.random() * 0.02)
    for pid in {"stage": [stage.pid], "tracker": [tracker], "both": [stage.pid, tracker]}[whom]:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    done = stage.ended()
    wait_for(lambda: gone(tracker), pause=0.005)
    if whom == "tracker":
        assert (done.code, outputs()) == (0, project.expected), done
        assert done.err in ("", f"{LACKS}was ended by SIGKILL{SYNC}")
        sync_runs()
    else:
        assert done.code in (-signal.SIGKILL, 0), done
        if whom == "stage" and done.code:
            (mark,) = TrajectoryStore(paths.trajectory_store()).runs().values()
            status = "FINISHED" if mark.finished else "KILLED"
            assert [run.info.status for run in project.runs()] == [status], "as `surefoot sync` leaves it"
        assert start("train").ended().code == 0
        assert outputs() == project.expected
    check(project)


def test_one_that_hangs_is_waited_for_a_while(project, start):
    stage = start("train", patience=0.2)
    tracker = stage.tracker()
    os.kill(tracker, signal.SIGSTOP)
    done = stage.ended()
    assert (done.code, outputs(), done.err) == (0, project.expected, f"{LACKS}gave no sign of life for 0 s{SYNC}"), done
    assert gone(tracker)
    sync_runs()
    check(project)


def test_one_that_gets_no_memory_says_so(project, monkeypatch):
    def start_with_little(channel):
        command = f"ulimit -v 300000; exec {sys.executable} -m surefoot.run.tracking_process"
        return subprocess.Popen(
            ["sh", "-c", command], stdin=channel.fileno(), env={**os.environ, "PYTHONPATH": str(PROJECT / "src")}
        )

    monkeypatch.setattr(start_tracking, "start_process", start_with_little)
    done = project.stage("train")
    assert (done.code, outputs(), done.err.count("\n")) == (0, project.expected, 1), done
    assert done.err.startswith(f"{LACKS}failed: ")
    assert done.err.endswith(SYNC)
    sync_runs()
    check(project)


def test_one_that_cannot_be_started(project, monkeypatch):
    def fail(channel):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(start_tracking, "start_process", fail)
    done = project.stage("train")
    assert (done.code, outputs(), done.err.count("\n")) == (0, project.expected, 1), done
    assert done.err.startswith(f"{LACKS}can't be started: ")
    assert done.err.endswith(SYNC)
    sync_runs()
    check(project)


def test_on_one_core_all_is_done(project, start):
    done = start("train", core=min(os.sched_getaffinity(0))).ended()
    assert (done.code, outputs(), done.err) == (0, project.expected, ""), done
    check(project)


def test_where_nobody_reads_what_is_printed_the_run_fails_and_the_next_one_ends_it(project, start):
    os.mkfifo("pipe")
    stage = start("train", stdout="pipe")
    with Path("pipe").open() as pipe:
        assert pipe.readline().startswith("training ")
    tracker = stage.tracker()
    assert stage.ended().code == 128 + signal.SIGPIPE
    assert gone(tracker)
    assert project.runs()[0].info.status == "FAILED"
    assert start("train").ended().code == 0
    check(project)


def test_an_evaluation_whose_tracker_is_killed_says_the_same(project, start):
    ok(project.stage("train"))
    stage = start("evaluate")
    os.kill(stage.tracker(), signal.SIGKILL)
    done = stage.ended()
    assert (done.code, done.err) == (0, f"{LACKS}was ended by SIGKILL{SYNC}"), done
    found = json.loads(paths.METRICS.read_text())["test"]
    assert "test/loss" not in project.runs()[0].data.metrics
    sync_runs()
    check(project)
    (run,) = project.runs()
    assert {name: run.data.metrics[f"test/{name}"] for name in found} == found
    assert len(project.client().list_artifacts(run.info.run_id, "plots")) >= 5


def test_a_stage_that_is_refused_leaves_no_process(here, monkeypatch):
    monkeypatch.setattr(start_tracking, "start_process", start_process)
    here.edit("train.lr", ".nan")
    here.stage("train").refused()
    assert not [
        child
        for child in psutil.Process().children()
        if start_tracking.helper_command("surefoot.run.tracking_process")[2] in child.cmdline()
    ]


def test_ctrl_c_that_reaches_it_too_changes_nothing(project, start):
    stage = start("train")
    tracker = stage.tracker()
    wait_for(artifacts, pause=0.0005)
    os.kill(tracker, signal.SIGINT)
    done = stage.ended()
    assert (done.code, outputs(), done.err) == (0, project.expected, ""), done
    check(project)


# --- the line between them


class Listener:
    """In the place of the process: takes the channel, and listens when it is told to."""

    def __init__(self, channel):
        self.channel, self.lines = channel.dup(), []

    def listen(self):
        with self.channel, self.channel.makefile("rwb") as stream:
            for line in stream:
                self.lines.append(json.loads(line))
                if "ask" in self.lines[-1]:
                    answer = {"ask": self.lines[-1]["ask"], "trouble": "", "run_id": "r"}
                    stream.write(json.dumps(answer).encode() + b"\n")
                    stream.flush()

    def wait(self, seconds=None):
        return 0

    def kill(self):
        pass


def test_telling_waits_for_nobody_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(start_tracking, "start_process", Listener)
    with start_tracking.start_tracking() as tracking:
        keys = [f"{number:064}" for number in range(10_000)]  # more than the line holds
        for key in keys:
            tracking.tell("add_epoch", key=key)
        thread = Thread(target=tracking._process.listen)
        thread.start()
        tracking.finish("end", status="KILLED")
        lines = tracking._process.lines
        assert [line["key"] for line in lines[:-1]] == keys
        assert lines[-1] == {"do": "end", "ask": 1, "status": "KILLED"}
        assert (tracking.run_id, tracking.trouble) == ("r", "")
    thread.join()


@pytest.mark.parametrize("signs", [0, 1, 7])
def test_a_stage_waits_anew_after_each_sign_of_life(monkeypatch, signs):
    bound, clock, ends = 100.0, [0.0], []

    def start(channel):
        ends.append(channel.dup())
        return Listener(channel)

    class Poll:
        """As the system's, where signs come a little before the time is up, and then nothing."""

        def register(self, channel, events):
            self.channel, self.events = channel, events

        def poll(self, milliseconds):
            timeout = milliseconds / 1000
            if self.events & select.POLLOUT:
                return [(self.channel.fileno(), select.POLLOUT)]
            clock[0] += min(timeout, 0.9 * bound)
            came = timeout >= 0.9 * bound and len(waits) < signs
            waits.append(timeout)
            if came:
                ends[0].send(b"\n")
            return [(self.channel.fileno(), select.POLLIN)] if came else []

    waits = []
    monkeypatch.setattr(start_tracking, "start_process", start)
    monkeypatch.setattr(start_tracking.select, "poll", Poll)
    monkeypatch.setattr(start_tracking.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(start_tracking.mlflow_client, "longest_call", lambda size: bound / start_tracking.CALLS)
    with start_tracking.start_tracking() as tracking:
        tracking.finish("end", status="KILLED")
        assert tracking.trouble == "gave no sign of life for 100 s"
    for end in (ends[0], tracking._process.channel):
        end.close()
    assert waits == [bound] * (signs + 1)


def test_a_child_that_a_stage_forks_does_not_keep_the_line_open(monkeypatch):
    monkeypatch.setattr(start_tracking, "start_process", Listener)
    with start_tracking.start_tracking() as tracking:
        child = os.fork()
        if not child:
            os._exit(0 if tracking._channel.fileno() == -1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        tracking._process.channel.close()


def test_its_path_is_that_of_the_stage_and_not_passed_on(tmp_path, monkeypatch):
    room = tmp_path / "a:b"
    (room / "surefoot/run").mkdir(parents=True)
    (room / "surefoot/__init__.py").touch()
    (room / "surefoot/run/__init__.py").touch()
    (room / "surefoot/run/tracking_process.py").write_text(
        "import json, os, sys\n"
        "def main():\n"
        "    os.write(0, json.dumps([sys.path, os.environ.get('PYTHONPATH')]).encode())\n"
    )
    monkeypatch.setenv("PYTHONPATH", "theirs")
    monkeypatch.setattr(sys, "path", [str(room), *sys.path])
    ours, theirs = socket.socketpair()
    with ours, theirs, start_process(theirs) as process:
        assert process.wait(60) == 0
        assert json.loads(ours.recv(1 << 16)) == [[path or "." for path in sys.path], "theirs"]


def told(project, *messages):
    """What a process that is told this answers after the beginning of a run."""
    store = TrajectoryStore(paths.trajectory_store())
    (run,) = store.runs().values()
    begun = run.model_copy(update=dict.fromkeys(("last", "best", "chosen", "weights")))
    store.mark_run(begun)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in ({"do": "begin", "mark": begun.mark().decode()}, *messages):
            ours.sendall(json.dumps(message).encode() + b"\n")
        ours.shutdown(socket.SHUT_WR)
        follow_stage(theirs)
        theirs.close()
        return ours.makefile().read().split("\n")


def test_each_call_is_a_sign_of_life(project):
    ok(project.stage("train"))
    *lines, answer, end = told(project, {"do": "end", "status": "FAILED", "ask": 1})
    assert json.loads(answer)["trouble"] == end == ""
    assert set(lines) == {""}
    assert len(lines) > 5


def test_what_is_told_twice_is_done_once(project, monkeypatch):
    """A signal may come between the sending and the note that it is sent."""
    ok(project.stage("train"))
    made, published = [], []
    tracker, checkpoint = run_writer.Tracker, publish.publish_checkpoint
    monkeypatch.setattr(run_writer, "Tracker", lambda *given: made.append(given) or tracker(*given))
    monkeypatch.setattr(publish, "publish_checkpoint", lambda *given: published.append(given[3]) or checkpoint(*given))
    store = TrajectoryStore(paths.trajectory_store())
    (run,) = store.runs().values()
    begin = {"do": "begin", "mark": run.mark().decode()}
    epochs = [{"do": "add_epoch", "key": key} for key in run.epoch_keys]
    told(project, begin, epochs[0], epochs[0], epochs[1], {"do": "end", "status": "FAILED", "ask": 1})
    assert (len(made), published) == (1, [1, 2])


def test_an_exit_is_answered_too(project, monkeypatch):
    """A library may end the process, or what it takes for it."""
    ok(project.stage("train"))
    monkeypatch.setattr(publish, "describe_in_mlflow", lambda *_: sys.exit("no more"))
    *_, answer, _ = told(project, {"do": "end", "status": "FAILED", "ask": 1})
    assert json.loads(answer)["trouble"] == "failed: SystemExit: no more"


def test_a_message_that_was_cut_off_is_the_stages_end(project):
    """A signal may come while it speaks."""
    ok(project.stage("train"))
    store = TrajectoryStore(paths.trajectory_store())
    (run,) = store.runs().values()
    begun = run.model_copy(update=dict.fromkeys(("last", "best", "chosen", "weights")))
    store.mark_run(begun)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        begin = json.dumps({"do": "begin", "mark": begun.mark().decode()}).encode()
        ours.sendall(begin + b"\n" + begin[:9] + begin + b"\n")
        follow_stage(theirs)
    assert [run.info.status for run in project.runs()] == ["KILLED"]
