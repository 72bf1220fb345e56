"""Machines that share a trajectory store on S3 (moto, on loopback), as a user has them: each with a directory, a local
store and an MLflow of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import psutil
import pytest
import torch

from surefoot import cli
from surefoot.base import digests, paths
from surefoot.run.sharing import sharing_process, start_sharing
from surefoot.serving import mlflow_model
from surefoot.training.network import to_bytes
from tests.helpers import PROJECT, Here, make_workspace, wait_for
from tests.pipeline.test_training import change
from tests.s3_server import SECRET, URL, refusal

EPOCHS, MANY = 12, 400


@pytest.fixture
def project(tracked, monkeypatch):
    """Prepared and batched; without a shared store so far."""
    tracked.csv()
    change(tracked, epochs=EPOCHS)
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    return tracked


@pytest.fixture
def another(project, empty_store, tmp_path_factory):
    """Makes another machine, now the current directory, with the same code and data, and nothing trained."""

    def make() -> Here:
        path = tmp_path_factory.mktemp("machine")
        made = shutil.ignore_patterns(".surefoot", "models", "reports", "mlartifacts", "mlflow.db*")
        shutil.copytree(project.path, path, symlinks=True, dirs_exist_ok=True, ignore=made)
        shutil.copy(empty_store, path / "mlflow.db")
        machine = Here.__new__(Here)
        machine.path, machine._capfd = path, project._capfd
        at(machine)
        return machine

    return make


def at(machine):
    """Work on a machine from now on."""
    os.chdir(machine.path)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # which a stage in this process has set


@pytest.fixture
def whole(project, another):
    """The outputs of the run, trained in one go by a machine that shares nothing."""
    machine = another()
    assert machine.stage("train").code == 0
    at(project)
    return outputs(machine)


@pytest.fixture
def shared(whole, s3, monkeypatch):
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    return s3


def outputs(machine):
    return [(machine / str(path)).read_bytes() for path in (paths.MODEL, paths.HISTORY, paths.RUN)]


def command(machine, monkeypatch, *arguments):
    """A command of `surefoot`, within this process."""
    monkeypatch.setattr(sys, "argv", ["surefoot", *arguments])
    machine._capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
        raise SystemExit(0)
    return stop.value.code or 0, *machine._capfd.readouterr()


def check_all_there(server, machine, missing=0):
    """Each record is shared, as this machine has it, but for `missing` at most; and each object is whole."""
    local = {path.name: path.read_bytes() for path in (machine / ".surefoot/chain").iterdir()}
    there = {name.rpartition("/")[2]: data for name, data in server.objects().items()}
    assert there.items() <= local.items()
    assert sum(name.endswith(".json") for name in local.keys() - there.keys()) <= missing
    assert not list((machine / ".surefoot/unshared").rglob("*.*"))


@contextmanager
def training(machine, **environment):
    """The stage in a process of its own, which may be killed."""
    given = {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)]), **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "surefoot.stages.train"],
        cwd=machine.path,
        env=os.environ | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stage:
        try:
            yield stage
        finally:
            stage.kill()


def test_what_one_machine_trained_another_one_restores(project, whole, shared, another):
    first = project.stage("train")
    assert (first.code, first.err) == (0, ""), first
    assert outputs(project) == whole
    check_all_there(shared, project)

    other = another()
    shared.requests.clear()
    done = other.stage("train")
    assert (done.code, done.err) == (0, ""), done
    assert f"epochs 1-{EPOCHS} restored, nothing to train" in done.out
    assert outputs(other) == whole
    assert not [request for request in shared.requests if request.startswith("PUT")]
    (run,) = other.runs()
    points = other.client().get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    checkpoints = other.client().list_artifacts(run.info.run_id, "checkpoints")
    assert {about.path for about in checkpoints} == {f"checkpoints/{name}.safetensors" for name in ("best", "last")}

    change(other, epochs=EPOCHS + 2)
    done = other.stage("train")
    assert f"epochs 1-{EPOCHS} restored, training {EPOCHS + 1}-{EPOCHS + 2}" in done.out
    assert len(shared.names(".json")) == EPOCHS + 2


def test_a_run_that_is_killed_on_one_machine_goes_on_on_another(project, whole, shared, another):
    change(project, epochs=MANY)
    unbroken = another()
    os.environ["SUREFOOT_STORE"] = str(unbroken / "alone")
    assert unbroken.stage("train").code == 0
    os.environ["SUREFOOT_STORE"] = URL
    at(project)
    with training(project) as stage:
        wait_for(lambda: len(shared.names(".json")) >= 20, 60, pause=0.02)
        stage.kill()
        assert stage.wait() == -signal.SIGKILL
    other = another()
    done = other.stage("train")
    assert done.code == 0, done
    restored = re.search(rf"^epochs 1-(\d+) restored, training (\d+)-{MANY}$", done.out, re.M)
    assert restored, done
    assert 20 <= int(restored[1]) < MANY
    assert outputs(other) == outputs(unbroken)


def test_two_machines_that_train_the_same_at_once_both_succeed(project, whole, shared, another):
    machines = [project, another()]
    both_looked = threading.Barrier(2)

    def answer(request):
        if "list-type" in request.args:  # neither sees what the other one has
            both_looked.wait(60)

    shared.answer = answer
    with training(machines[0]) as one, training(machines[1]) as two:
        for stage in (one, two):
            out, err = stage.communicate(timeout=120)
            assert (stage.returncode, err) == (0, ""), (out, err)
    assert outputs(machines[0]) == outputs(machines[1]) == whole
    assert len(shared.names(".json")) == EPOCHS
    there = shared.objects()
    for name, data in there.items():
        trained = [(machine / ".surefoot/chain" / name.rpartition("/")[2]) for machine in machines]
        assert data in [path.read_bytes() for path in trained if path.exists()], name
    puts = [request.rpartition("/")[2] for request in shared.requests if request.startswith("PUT")]
    assert len(puts) > len(set(puts)), "both brought the same"


def test_dvc_repro_goes_on_elsewhere(s3, tmp_path, monkeypatch):
    """Two clones, each with its own DVC: one is killed with all its processes, the other one goes on."""
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    one, two = (make_workspace(tmp_path / name) for name in ("one", "two"))
    for clone in (one, two):
        clone.edit("train.epochs", "200")
    with subprocess.Popen(
        [".venv/bin/dvc", "repro", "train"], cwd=one.path, stdout=subprocess.DEVNULL, start_new_session=True
    ) as repro:
        wait_for(lambda: len(s3.names(".safetensors")) >= 4, 120, pause=0.1)
        os.killpg(repro.pid, signal.SIGKILL)
    done = two.dvc("repro", "train")
    assert re.search(r"^epochs 1-\d+ restored, training \d+-200$", done.out, re.M), done
    alone = one.dvc("repro", "train", SUREFOOT_STORE=str(tmp_path / "alone"))
    assert "restored" not in alone.out
    for path in (paths.MODEL, paths.HISTORY, paths.RUN):
        assert (one.path / path).read_bytes() == (two.path / path).read_bytes()


# --- What can't be reached -----------------------------------------------------------------------


def test_a_store_that_nobody_answers_for_gets_all_later(project, whole, s3, another, monkeypatch):
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    s3.stop()
    done = project.stage("train")
    assert done.code == 0, done
    assert outputs(project) == whole
    nobody = f'Could not connect to the endpoint URL: "http://127.0.0.1:{s3.port}"'
    lacking = rf"{EPOCHS} records and [123] states"
    assert re.fullmatch(
        rf"warning: {URL} can't be read: {nobody}; going on with what {project / '.surefoot'} has\n"
        rf"note: {URL} lacks {lacking}, kept in .surefoot: the next training, or `surefoot sync`, brings them\n",
        done.err,
    ), done
    code, _out, err = command(project, monkeypatch, "sync")
    assert code == 2
    assert re.search(rf"warning: {URL} lacks {lacking}: {nobody}\n", err)
    assert "error: the shared store still lacks something, as told above\n" in err


def test_what_was_left_is_brought_once_somebody_answers(project, whole, shared, another, monkeypatch):
    shared.answer = lambda request: refusal("OperationAborted", 409)
    assert "the next training, or `surefoot sync`, brings them" in project.stage("train").err
    assert shared.objects() == {}, "nothing came"
    shared.answer = lambda request: None
    code, out, err = command(project, monkeypatch, "sync")
    assert (code, err) == (0, "")
    assert re.match(rf"bringing {EPOCHS} records and [12] states? to {URL}\nbrought\n", out)
    check_all_there(shared, project)
    assert command(project, monkeypatch, "sync")[0] == 0
    other = another()
    assert f"epochs 1-{EPOCHS} restored" in other.stage("train").out
    assert outputs(other) == whole


def test_the_next_training_brings_what_was_left_of_another_run(project, shared):
    shared.answer = lambda request: refusal("OperationAborted", 409)
    project.stage("train")
    shared.answer = lambda request: None
    change(project, lr=0.2)
    done = project.stage("train")
    assert (done.code, done.err) == (0, ""), done
    assert len(shared.names(".json")) == 2 * EPOCHS
    check_all_there(shared, project)


def test_a_bucket_that_vanishes_in_the_middle_costs_no_training(project, whole, shared, another):
    change(project, epochs=MANY)
    with training(project) as stage:
        wait_for(lambda: len(shared.names(".json")) >= 5, 60, pause=0.02)
        shared.answer = lambda request: refusal("NoSuchBucket", 404)
        _out, err = stage.communicate(timeout=120)
    assert stage.returncode == 0, err
    local = project / ".surefoot"
    assert re.fullmatch(
        rf"warning: {URL} takes nothing: there is no such bucket or directory; what is trained stays in {local}"
        rf" meanwhile\nnote: {URL} lacks \d+ records and [123] states?, kept in .surefoot: the next training, or"
        r" `surefoot sync`, brings them\n",
        err,
    ), err
    shared.answer = lambda request: None
    done = project.stage("train")
    assert (done.code, done.err) == (0, ""), done
    assert len(shared.names(".json")) == MANY
    check_all_there(shared, project)


def test_a_bucket_that_vanishes_before_it_is_read_costs_what_it_held(project, whole, shared, another):
    """What the listing promised isn't there: it is trained here."""
    assert project.stage("train").code == 0
    other = another()
    listed = []

    def answer(request):
        if "list-type" in request.args:
            listed.append(request)
            return None
        return refusal("NoSuchBucket", 404)

    shared.answer = answer
    done = other.stage("train")
    assert done.code == 0
    assert listed
    assert "restored" not in done.out
    assert outputs(other) == whole


def test_a_bucket_that_may_only_be_read_is_read(project, whole, shared, another):
    change(project, epochs=2)
    assert project.stage("train").code == 0
    before = shared.objects()
    change(project, epochs=EPOCHS)
    other = another()
    shared.answer = lambda request: refusal("AccessDenied", 403) if request.method == "PUT" else None
    done = other.stage("train")
    assert done.code == 0
    assert f"epochs 1-2 restored, training 3-{EPOCHS}" in done.out
    assert f"warning: {URL} takes nothing: AccessDenied: no; what is trained stays in" in done.err
    assert re.search(rf"note: {URL} lacks {EPOCHS - 2} records and [123] states?, kept", done.err)
    assert outputs(other) == whole
    assert shared.objects() == before


# --- Refused before anything is trained ----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("InvalidAccessKeyId", 403, "InvalidAccessKeyId: no"),
        ("SignatureDoesNotMatch", 403, "SignatureDoesNotMatch: no"),
        ("NoSuchBucket", 404, "there is no such bucket or directory"),
    ],
)
def test_who_is_refused_trains_nothing(project, s3, monkeypatch, code, status, expected):
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    s3.answer = lambda request: refusal(code, status)
    assert project.stage("train").refused() == f"error: SUREFOOT_STORE: {URL}: {expected}\n"
    assert not (project / ".surefoot/chain").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://nobody/prefix", "SUREFOOT_STORE: s3://nobody/prefix: there is no such bucket or directory"),
        ("file:///nowhere/at/all", "SUREFOOT_STORE: file:///nowhere/at/all: there is no such bucket or directory"),
        ("gs://bucket", "SUREFOOT_STORE: gs://bucket: Please install gcsfs to access Google Storage"),
        ("what://a:secret@bucket", "SUREFOOT_STORE: what://bucket: Protocol not known: what"),
        ("s3:/team/surefoot", "SUREFOOT_STORE: s3:/team/surefoot is neither a URL, as s3://BUCKET/PREFIX, nor a direc"),
    ],
)
def test_a_store_that_cannot_be_is_refused(project, s3, monkeypatch, given, expected):
    monkeypatch.setenv("SUREFOOT_STORE", given)
    assert project.stage("train").refused().startswith(f"error: {expected}")
    assert not (project / ".surefoot/chain").exists()


# --- Garbage -------------------------------------------------------------------------------------


def test_garbage_in_the_bucket_is_left_aside(project, whole, shared, another):
    assert project.stage("train").code == 0
    records = shared.names(".json")
    states = shared.names(".safetensors")
    garbage = [b"", b"\x80\x04cos\nsystem\n(S'touch stolen'\ntR.", b"{" * 100_000, shared.objects()[records[0]]]
    for number, name in enumerate(records):
        if number % 2:
            shared.put(name, garbage[number // 2 % len(garbage)])
    for name in states:
        shared.put(name, b"no state at all")
    for name in ("x", "y.json", f"{'../' * 9}z.json", "a" * 64 + ".safetensors", "b" * 64 + ".json"):
        shared.put(f"{records[0].rpartition('/')[0]}/{name}", b"stray")
    other = another()
    done = other.stage("train")
    assert done.code == 0, done
    assert outputs(other) == whole
    damaged = [name for number, name in enumerate(records) if number % 2]
    assert set(re.findall(r"^warning: s3://team/(\S+) is damaged; it isn't used$", done.err, re.M)) >= set(damaged)
    assert not (other / "stolen").exists()
    assert {path.stem for path in (other / ".surefoot/chain").iterdir()} == {
        name.rpartition("/")[2].partition(".")[0] for name in records
    }
    said = re.findall(
        r"^warning: s3://team/(\S+) is damaged; delete it, so that it can be brought again$", done.err, re.M
    )
    assert sorted(said) == damaged


def sealed(record):
    body = digests.canonical_json(record)
    return digests.sha256(body).encode() + b"\n" + body


def test_forged_records_and_states_end_in_no_traceback(project, whole, shared, another):
    assert project.stage("train").code == 0
    records = {name: json.loads(shared.objects()[name].partition(b"\n")[2]) for name in shared.names(".json")}
    for number, (name, record) in enumerate(records.items()):
        metrics = [{}, {"validation/loss": 0.0}, {**record["metrics"], "../x": 1.0}][number % 3]
        shared.put(name, sealed(record | {"metrics": metrics}))
    other = another()
    done = other.stage("train")
    assert done.code == 0, done
    assert outputs(other) == whole

    state = to_bytes({"model.x": torch.zeros(3)})
    for name, record in records.items():
        shared.put(name, sealed(record | {"state": digests.sha256(state)}))
        shared.put(name.replace(".json", ".safetensors"), state)
    other = another()
    done = other.stage("train")
    assert done.code == 2, done
    assert "Traceback" not in done.err
    assert ".safetensors is damaged; it isn't used" in done.err
    assert re.search("^error: epoch .* came out otherwise than recorded in", done.err, re.M)


# --- What isn't told, and isn't imported ---------------------------------------------------------


def test_no_credentials_and_no_address_are_kept_or_said(project, shared, monkeypatch):
    monkeypatch.setenv("SUREFOOT_STORE", f"{URL}/prefix-of-ours")
    shared.answer = lambda request: refusal("OperationAborted", 409)
    done = project.stage("train")
    done.out += "".join(command(project, monkeypatch, "store")[1:])
    monkeypatch.setenv("SUREFOOT_STORE", "what://somebody:another-secret@host/prefix-of-ours")
    done.err += project.stage("train").err
    assert "prefix-of-ours" in done.err
    for secret in (SECRET, "another-secret"):
        assert secret not in done.out + done.err
    kept = [path for path in project.path.rglob("*") if path.is_file()]
    assert project / "mlflow.db" in kept
    for path in kept:
        data = path.read_bytes()
        for hidden in (SECRET, "another-secret", "prefix-of-ours"):
            assert hidden.encode() not in data, path


def test_without_a_url_nothing_of_it_is_imported(project):
    code = (
        "import sys; from surefoot.stages.train import main; main();"
        "print([name for name in sys.modules if name.partition('.')[0] in ('s3fs', 'botocore', 'aiohttp', 'fsspec')])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done


# --- The process ---------------------------------------------------------------------------------


def test_the_store_tells_of_both_sides(project, shared, another, monkeypatch):
    change(project, checkpoint_every=2)
    assert project.stage("train").code == 0
    code, out, err = command(project, monkeypatch, "store")
    assert (code, err) == (0, "")
    states = len(shared.names(".safetensors"))
    size = sum(map(len, shared.objects().values())) / 1e6
    assert out.splitlines()[0].split() == ["RUN", "EPOCHS", "STATES", "THERE", "SIZE", "NAME", "SHARES"]
    assert out.splitlines()[-1] == f"{states} states, {size:,.1f} MB in {URL}, for all machines"
    assert command(project, monkeypatch, "store", "--prune")[0] == 0
    assert len(shared.names(".safetensors")) == states
    shared.answer = lambda request: refusal("AccessDenied", 403)
    code, out, err = command(project, monkeypatch, "store")
    assert (code, err) == (0, f"warning: {URL} can't be read: AccessDenied: no\n")


def test_a_stage_that_is_killed_leaves_the_rest_to_its_process(project, shared):
    change(project, epochs=MANY)
    shared.answer = lambda request: refusal("OperationAborted", 409) if request.method == "PUT" else None
    with training(project) as stage:
        notes = project / ".surefoot/unshared"
        wait_for(lambda: len(list(notes.rglob("*.json"))) > 20, 60, pause=0.02)
        wait_for(lambda: any(request.startswith("PUT") for request in shared.requests), 60, pause=0.02)
        (process,) = sharing_processes(stage)
        process.suspend()
        stage.kill()
        stage.wait()
        shared.answer = lambda request: None
        process.resume()
        psutil.wait_procs([process], timeout=60)
    assert not process.is_running()
    check_all_there(shared, project, missing=1)  # one that was written, and not noted yet


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_stopped_shares_what_it_has(project, shared, number):
    change(project, epochs=MANY)
    with training(project) as stage:
        wait_for(lambda: len(shared.names(".json")) >= 5, 60, pause=0.02)
        for process in (*sharing_processes(stage), stage):  # to all processes, as by systemd
            process.send_signal(number)
        _out, err = stage.communicate(timeout=60)
    assert stage.returncode == 128 + number, err
    assert err == f"stopped by {number.name}\n"
    check_all_there(shared, project)


def test_a_process_that_is_killed_leaves_it_to_the_next_one(project, shared):
    change(project, epochs=MANY)
    with training(project) as stage:
        wait_for(lambda: len(shared.names(".json")) >= 5, 60, pause=0.02)
        (process,) = sharing_processes(stage)
        process.kill()
        _out, err = stage.communicate(timeout=60)
    assert stage.returncode == 0, err
    assert re.fullmatch(rf"note: {URL} lacks \d+ records and [123] states?, kept in .surefoot: .*\n", err)
    done = project.stage("train")
    assert (done.code, done.err) == (0, ""), done
    check_all_there(shared, project)


def test_a_server_that_hangs_holds_a_training_up_no_longer_than_the_bound(project, whole, shared, monkeypatch):
    monkeypatch.setattr(start_sharing, "SECONDS", 0.1)
    monkeypatch.setattr("surefoot.base.object_store.SECONDS", 0.1)
    shared.seconds = 5
    done = project.stage("train")
    shared.seconds = 0
    assert done.code == 0
    assert outputs(project) == whole
    assert f"{URL} can't be read: it doesn't answer within 0 s; going on with" in done.err
    assert f"note: {URL} lacks {EPOCHS} records and" in done.err


def sharing_processes(stage):
    """The process that shares what a stage trains."""
    module = sharing_process.__name__
    return [
        child
        for child in psutil.Process(stage.pid).children()
        if any(module in argument for argument in child.cmdline())
    ]
