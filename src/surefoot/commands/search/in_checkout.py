"""The checkout that a search's trials run in, and a trial in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from surefoot.base import paths, reading, writing
from surefoot.base.documents import Document, Malformed, parse_document
from surefoot.base.errors import CannotSay, UserError
from surefoot.commands.search import space as spaces
from surefoot.commands.search.journal import SearchStart, code_at_start
from surefoot.commands.search.study import Trial
from surefoot.params.params_yaml import load_params
from surefoot.reproduction import checkout, provenance


class Answer(Document):
    """What a trial's process leaves."""

    state: Literal["complete", "pruned"]
    value: float | None
    epochs: list[float | None]
    why: str
    metrics: list[str]


def check_out_start(home: Path, source: provenance.CodeState, start: SearchStart) -> Path:
    """The checkout that the trials run in: that of the search's start, where it is there; else one of now."""
    if source.commit is None:
        raise UserError("surefoot search needs the project in Git, with a commit: each trial has a checkout of it")
    repository, workspace = home / "repository", Path.cwd()
    try:
        top, below = checkout.place_in_repository(workspace)
        place = repository / below
        if not repository.is_dir():
            if start != code_at_start(source):
                raise UserError(
                    f"{repository} is gone, and the code isn't that of the search's start any more; give --name a new"
                    " name"
                )
            with writing.new_directory(repository) as beside:
                checkout.check_out(top, beside, source.commit, source.patch)
                for name in (*source.left_out, *source.data):  # which the patch doesn't have
                    if (top / name).is_file():
                        (beside / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(top / name, beside / name)
                _share_cache(workspace, beside / below)
    except CannotSay as error:
        raise UserError(f"the code can't be checked out for the trials: {error}") from None
    return place


def _share_cache(workspace: Path, place: Path) -> None:
    """Let DVC in the checkout use the workspace's cache, and bring the data that it tracks."""
    from dvc.config import Config, ConfigError

    try:
        ours = Config(str(workspace / ".dvc"))
        with Config(str(place / ".dvc")).edit("local") as local:
            local["cache"]["dir"] = ours["cache"].get("dir") or str(workspace / ".dvc/cache")
    except ConfigError as error:
        raise UserError(f"DVC's settings can't be read: {error}") from None
    tracked = [str(path.relative_to(place)) for path in place.rglob("*.dvc") if path.is_file()]
    if tracked:
        subprocess.run(
            [sys.executable, "-m", "dvc", "checkout", "--quiet", *tracked],
            cwd=place,
            env=_environment(),
            capture_output=True,
            check=False,
        )


def _environment(**more: str) -> dict[str, str]:
    # DVC_ROOT: the store, MLflow's and the virtual environment are the workspace's.
    kept = {
        name: value
        for name, value in checkout.plain_environment().items()
        if name not in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE")
    }
    here = {
        "DVC_ROOT": str(paths.repository_root()),
        "DVC_NO_ANALYTICS": "true",
        "SUREFOOT_STORE": str(paths.trajectory_store().resolve()),
        "PYTHONPATH": _python_path(),
    }
    return {**kept, **here, **more}


def _python_path() -> str:
    """`src` first, so that the checkout's code runs, then what this process was given."""
    return os.pathsep.join(["src", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])


def try_values(
    home: Path, place: Path, name: str, base: str, values: dict[str, Any], question: dict[str, Any], data: bool
) -> Trial:
    """Run a trial; what it came to."""
    asked = home / f"trial-{name.rpartition('-')[2]}.json"

    def failed(why: str) -> Trial:
        return Trial(values=values, state="failed", value=None, epochs=[], why=why)

    writing.write_bytes(place / paths.PARAMS, spaces.put_values(base, values).encode())
    try:
        load_params(place / paths.PARAMS)
    except UserError as error:
        return failed(str(error).splitlines()[0].removeprefix(f"{place}/"))
    writing.write_json(asked, question)
    module = checkout.command_module(place, "search.trial")
    commands = [[sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--quiet", "batch"]] if data else []
    for command in [*commands, [sys.executable, "-m", module, str(asked.resolve())]]:
        # DVC_STAGE: the training stops when this process is gone.
        variables = {"DVC_STAGE": "train", "SUREFOOT_TRIAL": name} if command[2] != "dvc" else {}
        code, why = _run_logged(command, place, asked.with_suffix(".log"), _environment(**variables))
        if code:
            return failed(why or f"exit code {code}; {asked.with_suffix('.log')} has what it printed")
    try:
        answer = parse_document(Answer, reading.read_file(asked))
    except (OSError, Malformed) as error:
        raise UserError(f"{asked} isn't what a trial leaves: {error}") from None
    metric = question["metric"]
    if metric not in answer.metrics:
        raise UserError(
            f"--metric {metric}: no such metric is logged in an epoch; there are {', '.join(answer.metrics)}"
        )
    if answer.state == "complete" and answer.value is None:
        return failed(f"{metric} isn't measured in the epoch whose model is kept")
    return Trial(values=values, state=answer.state, value=answer.value, epochs=answer.epochs, why=answer.why)


def _run_logged(command: list[str], place: Path, log: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a process with its output in a file; returns its exit code, and what its error line says.

    If this process is stopped, it is, too.
    """
    with log.open("ab") as out:
        start = out.tell()
        with subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
    with log.open("rb") as written:
        written.seek(start)
        printed = written.read().decode(errors="replace")
    if code < 0:
        raise UserError(f"a trial was killed by signal {-code}; the same command goes on from there")
    if code > 128:
        raise UserError(f"a trial was stopped by signal {code - 128}; the same command goes on from there")
    said = [line for line in printed.splitlines() if line.lower().startswith("error: ")]
    return code, said[0].partition(": ")[2] if said else ""
