"""The checkout that a search's trials run in, and a trial in it."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from surefoot.base import paths, reading, writing
from surefoot.base.documents import Document, Malformed, parse_document
from surefoot.base.errors import UserError
from surefoot.commands.search.journal import SearchStart, code_at_start
from surefoot.commands.search.study import Trial
from surefoot.params.given_values import put_values
from surefoot.params.params_yaml import load_params
from surefoot.reproduction import checkout, own_checkout, provenance


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
    repository = home / "repository"
    if not repository.is_dir():
        if start != code_at_start(source):
            raise UserError(
                f"{repository} is gone, and the code isn't that of the search's start any more; give --name a new name"
            )
        own_checkout.check_out_now(repository, source)
    return own_checkout.project_in(repository)


def try_values(
    home: Path, place: Path, name: str, base: str, values: dict[str, Any], question: dict[str, Any], data: bool
) -> Trial:
    """Run a trial; what it came to."""
    asked = home / f"trial-{name.rpartition('-')[2]}.json"

    def failed(why: str) -> Trial:
        return Trial(values=values, state="failed", value=None, epochs=[], why=why)

    writing.write_bytes(place / paths.PARAMS, put_values(base, values).encode())
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
        code, why = _run_logged(command, place, asked.with_suffix(".log"), own_checkout.environment_there(**variables))
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
