import os
import signal
import subprocess
import sys

import pytest

from surefoot.base.errors import UserError
from surefoot.commands import dvc_of_run, run
from tests.helpers import PROJECT


@pytest.mark.parametrize("pid", [0, -7])
def test_the_lock_of_another_machine_is_waited_for(pid, capsys):
    """As after a failure of that machine: a job that was queued again mustn't end by it."""
    run._refuse_or_wait("wide", pid)
    assert capsys.readouterr().out.startswith(
        "waiting for the run wide: a process that isn't known here is at work on it"
    )


def test_a_run_that_a_process_here_is_at_is_refused():
    with pytest.raises(UserError, match=r"^process 7 is at work on the run wide$"):
        run._refuse_or_wait("wide", 7)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.parametrize("started", ["dvc_of_run.main()", "errors.begin_process(); import dvc.cli"])
def test_ctrl_c_during_imports_ends_it_without_a_traceback(tmp_path, started, before):
    """Where DVC is imported, and in a stage before it has set its handlers; also where a script has `surefoot run &`,
    by which the signal is ignored at first.
    """
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc/__init__.py").touch()
    (tmp_path / "dvc/cli.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from {dvc_of_run.__package__} import dvc_of_run; from surefoot.base import errors; {started}",
        ],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT / "src")])},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
        timeout=60,
    )
    assert done.returncode == 130, done
    assert "Traceback" not in done.stderr
