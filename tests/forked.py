"""Stages in processes of their own, forked from one that has imported everything: real ones, to be killed at any moment
and started again, without the seconds that it takes to start.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import psutil

from tests.helpers import PROJECT, Done, wait_for

OUTPUT = (".out", ".err")


class Forked:
    """A stage that was started."""

    def __init__(self, pid, ended) -> None:
        self.pid, self.ended = pid, ended  # `ended()`: waits for its end

    def tracker(self) -> int:
        """The id of the process that writes to MLflow."""
        return wait_for(lambda: next((child.pid for child in psutil.Process(self.pid).children()), None), pause=0.001)


@contextmanager
def forking(project):
    """A function that starts a stage in the current directory, in which `_run` says what else may be said of it; its
    numerics are those of the params in `project`.
    """
    command, path = [sys.executable, "-m", "tests.forked"], f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"
    with subprocess.Popen(
        command, cwd=project, env={**os.environ, "PYTHONPATH": path}, stdin=PIPE, stdout=PIPE, text=True
    ) as zygote:

        def start(stage, **more):
            here = Path.cwd()
            zygote.stdin.write(json.dumps({"here": str(here), "stage": stage, **more}) + "\n")
            zygote.stdin.flush()
            pid = int(zygote.stdout.readline())

            def ended():
                files = [here / name for name in OUTPUT]
                return Done(
                    int(zygote.stdout.readline()), *(file.read_text() if file.exists() else "" for file in files)
                )

            return Forked(pid, ended)

        yield start
        zygote.stdin.close()


def _run(here, stage, core=None, patience=None, stdout=None) -> None:
    """Run a stage, and end.

    Args:
        here: the directory to run it in.
        stage: its name.
        core: the only one that it may use.
        patience: seconds that a call to MLflow may take.
        stdout: a pipe that is standard output.
    """
    from importlib import import_module

    from surefoot.base import errors
    from surefoot.run import start_tracking
    from surefoot.tracking import mlflow_client

    os.chdir(here)
    for number, name in enumerate((stdout or OUTPUT[0], OUTPUT[1]), 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if core is not None:
        os.sched_setaffinity(0, {core})
    if patience is not None:
        mlflow_client.longest_call = lambda size=0: patience
    start_tracking.start_process = _Fork
    code = 1
    try:
        errors.run_process(import_module(f"surefoot.stages.{stage}").main)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class _Fork:
    """As `subprocess.Popen` of the process that writes to MLflow."""

    def __init__(self, channel) -> None:
        self.pid, self._code = os.fork(), None
        if not self.pid:
            try:
                os.dup2(channel.fileno(), 0)
                os.closerange(3, 1000)
                from surefoot.run.tracking_process import main

                main()
            finally:
                os._exit(1)

    def wait(self, seconds=None) -> int:
        if self._code is None:
            until = time.monotonic() + (seconds or 600)
            while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if time.monotonic() > until:
                    raise subprocess.TimeoutExpired("tracker", seconds)
                time.sleep(0.005)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)


def main() -> None:
    """Import everything, then fork a stage for each line."""
    from surefoot.run.pinned_params import load_and_pin

    load_and_pin()
    import mlflow.pyfunc  # noqa: F401

    from surefoot.serving import mlflow_model

    mlflow_model.log_model = lambda run_id, *_: f"model of {run_id}"  # a real one takes a second
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _run(**json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
