"""`surefoot run`: `dvc repro` for a batch job, here or in a checkout of its own; a signal ends it at the last state.

.surefoot/run/NAME/repository    the code, params and data of its start; the workspace isn't touched
.surefoot/run/NAME/start         a digest of them
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from surefoot.base import digests, paths, terminal, writing
from surefoot.base.errors import Stopped, UserError
from surefoot.base.job_control import stopping_together
from surefoot.base.locks import Locks
from surefoot.commands.options import check_name
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import load_params
from surefoot.reproduction import checkout, git, own_checkout, provenance, raw_data

SECONDS = 10  # until DVC is told again that it is to end


def main(in_checkout: bool, name: str | None, later: bool) -> None:
    """Run the pipeline; the exit code is that of `dvc repro`, or 128 + the number of the signal that ended it.

    Raises:
        UserError: the options don't go together; the project can't be checked out; another process is at this run.
    """
    if (name is not None or later) and not in_checkout:
        raise UserError(f"{'--later' if later else '--name'} goes with --in-checkout")
    if not in_checkout:
        end_as(run_dvc(Path(), os.environ | {"PATH": own_checkout.path_with_python()}))
        return
    check_name(name)
    source = provenance.code_state(raw_data.raw_places(flatten(load_params(paths.PARAMS).model_dump(mode="json"))))
    if source.commit is None:
        raise UserError(f"--in-checkout needs the project in Git, with a commit: {source.trouble}")
    start = _digest_of(source)
    name = name or f"run-{start[:10]}"
    locks = Locks(paths.trajectory_store() / "lock")
    with locks.held(f"run {name}", lambda pid: _refuse_or_wait(name, pid)):
        place = _checkout_of(name, start, source)
        if later:
            terminal.print_lines(f"checked out to {place}; `surefoot run --in-checkout --name {name}` trains there")
            return
        terminal.print_lines(f"run {name}, in {place}")
        # DVC notes here who is at work, by the number of a process, which may be another's by now, on another machine.
        (checkout.dvc_root_in(place.resolve(), _home(name)) / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        end_as(run_dvc(place, own_checkout.environment_there()))
        terminal.print_lines(
            f"the model, the reports and dvc.lock are in {place}; as long as code, params and data here are the same,"
            " `dvc repro` brings them from DVC's cache"
        )


def _digest_of(source: provenance.CodeState) -> str:
    """A digest of code, params and data, as a checkout has them."""
    parts = [source.commit, digests.sha256(source.patch), raw_data.data_digest(source.data)]
    large = [name for name in source.left_out if (git.top_of_repository() / name).is_file()]
    return digests.sha256(
        digests.canonical_json([*parts, *([raw_data.data_digest(large, remember=False)] if large else [])])
    )


def _refuse_or_wait(name: str, pid: int) -> None:
    """Refuse a run that a process here is at. One elsewhere, which has no number here, may be dead: a network's file
    system holds the locks of a machine that is gone for a while, and a job that is queued again is to go on.
    """
    if pid > 0:
        raise UserError(f"process {pid} is at work on the run {name}")
    terminal.print_lines(
        f"waiting for the run {name}: a process that isn't known here is at work on it, or was when its machine failed"
    )


def _checkout_of(name: str, start: str, source: provenance.CodeState) -> Path:
    """Where the run of a name takes place: in a checkout from its start, or a new one."""
    home = _home(name)
    noted, repository = home / "start", home / "repository"
    if not repository.is_dir():
        writing.write_bytes(noted, start.encode())
        own_checkout.check_out_now(repository, source)
    elif not noted.is_file() or noted.read_text() != start:
        terminal.print_lines(
            f"note: {name} goes on with the code, params and data of its start; another --name starts with those of now"
        )
    return paths.from_here(own_checkout.project_in(repository))


def _home(name: str) -> Path:
    return paths.trajectory_store() / "run" / name


def run_dvc(place: Path, environment: dict[str, str]) -> int:
    """`dvc repro` there; its exit code.

    Raises:
        Stopped: by a signal, when the stage has ended.
    """
    command = [sys.executable, "-m", "surefoot.commands.dvc_of_run", "--wait-for-lock", "repro"]
    with subprocess.Popen(command, cwd=place, env=environment, process_group=0) as dvc:

        def stop_or_go_on(stop: bool) -> None:
            with suppress(ProcessLookupError):
                os.killpg(dvc.pid, signal.SIGTSTP if stop else signal.SIGCONT)

        try:
            with stopping_together(stop_or_go_on):
                return dvc.wait()
        except Stopped:
            while dvc.poll() is None:  # DVC doesn't hear a signal in the moment between a stage and what follows
                with suppress(ProcessLookupError):
                    os.killpg(dvc.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    dvc.wait(SECONDS)
            raise


def end_as(code: int) -> None:
    """End this process, as another one ended, unless that went well."""
    if code:
        sys.stdout.flush()
        sys.exit(128 - code if code < 0 else code)
