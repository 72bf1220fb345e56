"""`surefoot run`, and the batch script of docs/clusters.md under a stand-in for SLURM."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.helpers import PROJECT, Workspace, copy_project, wait_for

OUTPUTS = ("models/model.safetensors", "models/run.json", "reports/history.csv", "reports/metrics.json")
EPOCHS, KILL_WAIT = 60, 30
SUREFOOT = [".venv/bin/python", "-m", "surefoot", "run"]


@pytest.fixture
def project(finished, tmp_path):
    """A project whose params ask for more epochs than are trained."""
    copy_project(finished, tmp_path / "project")
    workspace = Workspace(tmp_path / "project")
    workspace.edit("train.epochs", str(EPOCHS))
    return workspace


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """The outputs of the same, by DVC alone."""
    path = tmp_path_factory.mktemp("undisturbed") / "project"
    copy_project(finished, path)
    shutil.rmtree(path / ".surefoot")
    workspace = Workspace(path)
    workspace.edit("train.epochs", str(EPOCHS))
    workspace.dvc("repro")
    return outputs(path)


def outputs(path):
    return {name: (path / name).read_bytes() for name in OUTPUTS}


def place(project, name):
    return project / ".surefoot/run" / name / "repository"


def ignores(pid, number):
    """Whether a process ignores a signal by now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"^SigIgn:\s*(\w+)$", status, re.M)[1], 16) & 1 << number - 1)


def records(project):
    return len(list((project / ".surefoot/chain").glob("*.json")))


def wait_for_records(project, process, more):
    """Wait until so many more states are recorded."""
    wanted = records(project) + more

    def there():
        assert process.poll() is None, "it has ended"
        return records(project) >= wanted

    wait_for(there, pause=0.02)


def surefoot(project, *arguments, **options):
    return project.run(*SUREFOOT, *arguments, PYTHONPATH="src", **options)


# --- a stand-in for SLURM


class Job:
    """A job, as SLURM runs it: each start is a process that has the number of the job in its environment."""

    def __init__(self, project, tmp_path):
        self.project, self.log, self.asked, self.restarts = project, tmp_path / "job.out", tmp_path / "asked", 0
        (script,) = re.findall(
            r"^```sh\n(#!/bin/bash\n.*?)^```$", (PROJECT / "docs/clusters.md").read_text(), re.M | re.S
        )
        (tmp_path / "job.sh").write_text(script)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" >> {self.asked}\n')
        (tmp_path / "bin/scontrol").chmod(0o755)
        self.script, self.path = tmp_path / "job.sh", f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        self.number = f"{os.getpid()}{time.monotonic_ns()}"

    @contextmanager
    def started(self, *arguments, **environment):
        """The job's shell."""
        environment |= {"SLURM_JOB_ID": self.number, "SLURM_RESTART_COUNT": str(self.restarts), "PATH": self.path}
        self.restarts += 1
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                ["bash", str(self.script), *arguments],
                cwd=self.project.path,
                env=self.project.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as shell,
        ):
            try:
                yield shell
            finally:
                self.signal(signal.SIGKILL)

    def processes(self):
        """All that run in the job, wherever they moved to."""
        found = []
        for process in psutil.process_iter():
            try:
                running = process.status() != psutil.STATUS_ZOMBIE
                if running and process.environ().get("SLURM_JOB_ID") == self.number:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def signal(self, *numbers):
        for process in self.processes():
            for number in numbers:
                try:
                    process.send_signal(number)
                except psutil.NoSuchProcess:
                    break

    def names(self):
        return {process.name() for process in self.processes()}


def test_a_preempted_job_goes_on_where_it_was(project, undisturbed, tmp_path):
    job, before = Job(project, tmp_path), records(project)
    with job.started() as shell:
        wait_for_records(project, shell, 5)
        job.signal(signal.SIGCONT, signal.SIGTERM)
        wait_for(lambda: job.names() <= {"bash", "sleep"}, KILL_WAIT, pause=0.1)  # all the others have ended in time
        assert shell.poll() is None
    assert not job.asked.exists()
    assert project.trainings()[0].info.status == "KILLED"
    reached = records(project)
    assert before < reached < EPOCHS

    project.edit("train.lr", "0.5")  # what is edited meanwhile is another run's
    with job.started() as shell:
        assert shell.wait(600) == 0
    said = job.log.read_text()
    assert "stopped by SIGTERM" in said
    assert f"note: job-{job.number} goes on with the code, params and data of its start" in said
    assert f"epochs 1-{reached} restored, training {reached + 1}-{EPOCHS}" in said
    assert outputs(place(project, f"job-{job.number}")) == undisturbed
    (run,) = project.trainings()[:-1]  # beside that of the start
    assert run.info.status == "FINISHED"
    points = project.client().get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))


def test_a_job_whose_time_is_up_asks_to_be_queued_again(project, tmp_path):
    job = Job(project, tmp_path)
    assert "checked out to" in surefoot(project, "--in-checkout", "--later", "--name", "wide").out
    project.edit("train.lr", "0.5")
    with job.started("wide") as shell:
        wait_for_records(project, shell, 5)
        shell.send_signal(signal.SIGUSR1)  # B: the shell alone
        wait_for(lambda: ignores(shell.pid, signal.SIGTERM) or shell.poll() is not None, pause=0.01)
        shell.terminate()  # as where the time is up before all has ended
        assert shell.wait(KILL_WAIT) == 0
        assert not job.processes()
    assert job.asked.read_text() == f"requeue {job.number}\n"
    assert "note: wide goes on with the code, params and data of its start" in job.log.read_text()
    assert project.trainings()[0].data.params["train.lr"] == "0.02"


@pytest.mark.slow
def test_several_processes_in_a_job_and_sigkill(project, tmp_path):
    """These have sessions of their own; SLURM finds them nevertheless. Their number differs from start to start."""
    project.edit("train.epochs", "8")
    project.edit("train.shards", "4")
    whole = Workspace(tmp_path / "whole")
    copy_project(project.path, whole.path)
    surefoot(whole)
    job = Job(project, tmp_path)
    for processes, numbers in (("3", [signal.SIGCONT, signal.SIGTERM]), ("2", [signal.SIGKILL])):
        with job.started(SUREFOOT_PROCESSES=processes) as shell:
            wait_for_records(project, shell, 2)
            job.signal(*numbers)
            wait_for(lambda: job.names() <= {"bash", "sleep"}, KILL_WAIT, pause=0.1)
    with job.started() as shell:
        assert shell.wait(600) == 0
    assert outputs(place(project, f"job-{job.number}")) == outputs(whole.path)
    assert [run.info.status for run in project.trainings()[:-1]] == ["FINISHED"]


def test_two_jobs_of_one_clone_do_not_wait_for_each_other(project, undisturbed, tmp_path):
    jobs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        jobs.append(Job(project, tmp_path / str(number)))
    with jobs[0].started() as first:
        wait_for(place(project, f"job-{jobs[0].number}").is_dir)
        project.edit("train.lr", "0.03")
        with jobs[1].started() as second:
            wait_for(lambda: [run.info.status for run in project.trainings()].count("RUNNING") == 2, pause=0.1)
            project.edit("train.lr", "0.02")
            assert (first.wait(600), second.wait(600)) == (0, 0)
    assert outputs(place(project, f"job-{jobs[0].number}")) == undisturbed
    other = Workspace(place(project, f"job-{jobs[1].number}"))
    rates = sorted(run.data.params["train.lr"] for run in project.trainings()[:-1])  # either may have begun first
    assert rates == ["0.02", "0.03"]
    assert {run.info.status for run in project.trainings()} == {"FINISHED"}
    assert outputs(other.path) != undisturbed
    # What came of the first is brought here without training.
    assert "training " not in re.sub("training networks", "", project.dvc("repro").out)
    assert outputs(project.path) == undisturbed


# --- without a batch system


def test_ctrl_c_ends_it_at_the_last_state_and_the_same_command_goes_on(project, undisturbed):
    with subprocess.Popen(
        [*SUREFOOT, "--in-checkout"],
        cwd=project.path,
        env=project.environment(PYTHONPATH="src"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        wait_for_records(project, running, 5)
        os.killpg(running.pid, signal.SIGINT)
        assert running.communicate(timeout=60)[0].endswith("\nstopped by SIGINT\n")
        assert running.returncode == 128 + signal.SIGINT
    (home,) = (project / ".surefoot/run").iterdir()
    # As it is left behind where DVC was killed on another machine, on which a process of that number lives.
    left = {"pid": os.getpid(), "cmd": "dvc repro"}
    (home / "repository/.dvc/tmp/rwlock").write_text(
        json.dumps({"read": {}, "write": {str(home / "repository/models/model.safetensors"): left}})
    )
    done = surefoot(project, "--in-checkout")
    assert " restored, training " in done.out
    assert outputs(home / "repository") == undisturbed


def test_ctrl_z_stops_dvc_and_its_stage_too(project):
    with subprocess.Popen(SUREFOOT, cwd=project.path, env=project.environment(PYTHONPATH="src")) as running:
        wait_for_records(project, running, 3)
        (dvc,) = psutil.Process(running.pid).children()
        every = [psutil.Process(running.pid), dvc, *dvc.children()]
        assert len(every) >= 3
        running.send_signal(signal.SIGTSTP)
        wait_for(lambda: all(one.status() == psutil.STATUS_STOPPED for one in every), pause=0.02)
        running.send_signal(signal.SIGCONT)
        assert running.wait(600) == 0


def test_exit_codes_and_mistakes(project):
    project.edit("train.lr", "1e9")
    failed = surefoot(project, "--in-checkout", check=False)
    assert failed.code == 255
    assert "error: training diverged" in failed.err
    assert surefoot(project, check=False).code == 255  # here, too
    assert surefoot(project, "--later", check=False).refused() == "error: --later goes with --in-checkout\n"
    assert surefoot(project, "--name", "", check=False).refused() == "error: --name goes with --in-checkout\n"
    assert "must be letters" in surefoot(project, "--in-checkout", "--name", "a/b", check=False).refused()
    shutil.rmtree(project / ".git")
    assert "needs the project in Git" in surefoot(project, "--in-checkout", check=False).refused()


def test_one_run_has_one_process_and_all_that_it_started_ends_with_it(project):
    with subprocess.Popen(
        [*SUREFOOT, "--in-checkout", "--name", "mine"], cwd=project.path, env=project.environment(PYTHONPATH="src")
    ) as running:
        wait_for_records(project, running, 3)
        refused = surefoot(project, "--in-checkout", "--name", "mine", check=False).refused()
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) >= 3  # DVC, the stage, and what writes to MLflow
        running.kill()
    assert refused == f"error: process {running.pid} is at work on the run mine\n"
    wait_for(lambda: not [process for process in started if is_there(process)], 60, pause=0.1)


def is_there(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
