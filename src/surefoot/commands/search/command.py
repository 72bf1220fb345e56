"""`surefoot search`: trials one after the other, each the project's own stages in a checkout of the search's own.

.surefoot/search/NAME.json          what the search is, and what came of each trial: all that a killed one needs to go
on alike
.surefoot/search/NAME/repository    the code and data of its start, in which the trials run; the workspace isn't touched
.surefoot/search/NAME/trial-N.json, .log    a trial's question and answer, and what its stages printed
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from surefoot.base import digests, paths, reading, terminal, writing
from surefoot.base.documents import Digest, Document, Malformed, parse_document
from surefoot.base.errors import CannotSay, UserError
from surefoot.base.locks import Locks
from surefoot.commands import option
from surefoot.commands.search import space as spaces
from surefoot.commands.search import study
from surefoot.commands.search.space import Distribution
from surefoot.commands.search.study import Trial
from surefoot.params.dotted_keys import flatten
from surefoot.params.reading import load
from surefoot.reproduction import checkout, provenance

FORMAT: Literal[1] = 1
FAILURES = 5  # so many first trials may fail before the search gives up
BEST = 5  # trials in the table at the end


class Answer(Document):
    """What a trial's process leaves."""

    state: Literal["complete", "pruned"]
    value: float | None
    epochs: list[float | None]
    why: str
    metrics: list[str]


class SearchStart(Document):
    """The code that a search started with."""

    commit: str | None
    patch: Digest


class Journal(Document):
    """`.surefoot/search/NAME.json`."""

    format: Literal[1]
    settings: dict[str, Any]
    start: SearchStart
    base: str
    trials: list[Trial]


@option(
    "-S",
    dest="texts",
    action="append",
    default=[],
    metavar="KEY=SPACE",
    help="a key and what it may be: log(low,high), uniform, int, choice(a,b)",
)
@option(
    "--trials",
    type=int,
    default=20,
    metavar="N",
    help="how many, with those that are there already (default: %(default)s)",
)
@option(
    "--metric",
    default="validation/loss",
    help="of an epoch: accuracies should rise, others fall; that of the kept model counts (default: %(default)s)",
)
@option(
    "--prune",
    choices=["median", "none"],
    default="median",
    help="end a trial that is worse than the median at an epoch (default: %(default)s)",
)
@option("--name", help="of the search, in MLflow and to go on with it (default: made from what it is)")
@option("--seed", type=int, default=0, help="decides what is tried (default: %(default)s)")
def main(texts: list[str], trials: int, metric: str, prune: str, name: str | None, seed: int) -> None:
    """Bring the search to `trials` trials, then say which were best.

    Raises:
        UserError: Optuna isn't installed; the space or a key isn't right; another search has this name; the metric
        isn't logged; all trials fail.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            "surefoot search needs Optuna, which isn't installed: .venv/bin/python -m pip install --constraint"
            " requirements.txt -e '.[search]'"
        )
    space = spaces.parse_space(texts)
    if trials < 1:
        raise UserError(f"--trials {trials}: must be at least 1")
    _check_name(name)
    if load(paths.PARAMS).train.max_minutes is not None or "train.max_minutes" in space:
        raise UserError(
            "train.max_minutes: a search by the clock would be another one on each machine; set it to null, and limit"
            " train.epochs or max_steps"
        )
    base = paths.PARAMS.read_text(encoding="utf-8")
    _check_keys(space, base)
    settings = {
        "space": {key: [given.kind, list(given.values)] for key, given in space.items()},
        "metric": metric,
        "prune": prune,
        "seed": seed,
        "params": {
            key: value for key, value in flatten(load(paths.PARAMS).model_dump(mode="json")).items() if key not in space
        },
    }
    name = name or f"search-{digests.sha256(digests.canonical_json(settings))[:6]}"
    home = paths.trajectory_store() / "search"
    locks = Locks(paths.trajectory_store() / "lock")
    with locks.held(
        f"search {name}", lambda pid: _refuse(f"process {pid or 'unknown'} is at work on the search {name}")
    ):
        _run(home / name, name, space, base, settings, trials)


def _refuse(text: str) -> None:
    raise UserError(text)


def _run(
    home: Path,
    name: str,
    space: dict[str, Distribution],
    base: str,
    settings: dict[str, Any],
    wanted: int,
) -> None:
    from surefoot.training.schedule import rises

    source, journal = provenance.code_state(), home.with_suffix(".json")
    found = _known_or_new(journal, settings, base, source)
    place = _check_out(home, source, found.start)
    writing.write_json(journal, found.plain())
    done = found.trials
    terminal.print_lines(
        f"search {name}: {min(len(done), wanted)} of {wanted} trials are there"
        if done
        else f"search {name}: {wanted} trials"
    )
    up = rises(settings["metric"])
    data = True  # whether the batches may be others than those that are there
    while len(done) < wanted:
        values = study.suggest_values(space, done, settings["seed"], up)
        same = next((number for number, trial in enumerate(done, 1) if trial.values == values), None)
        if same:
            trial = done[same - 1].model_copy(update={"why": f"as trial {same}"})
        else:
            question = {
                "metric": settings["metric"],
                "rises": up,
                "bars": study.median_bars(done) if settings["prune"] == "median" else [],
            }
            trial = _try(home, place, f"{name}-{len(done) + 1}", found.base, values, question, data)
            data = trial.state == "failed" or any(
                not key.startswith("train.") or key == "train.start_from" for key in space
            )
        done = [*done, trial]
        writing.write_json(journal, found.model_copy(update={"trials": done}).plain())
        terminal.print_lines(f"trial {len(done)}/{wanted}  {_spell(values)}  {_outcome(trial, settings['metric'])}")
        if len(done) >= FAILURES and all(trial.state == "failed" for trial in done):
            raise UserError(
                f"all of {len(done)} trials failed, the last one with: {trial.why}",
                f"what they printed is in {home}",
            )
    _say_best(name, done, up, settings["metric"])


def _known_or_new(journal: Path, settings: dict[str, Any], base: str, source: provenance.CodeState) -> Journal:
    """The search as its journal has it, or one that starts now; where the code isn't that of its start, it is told."""
    known, start = _read(journal, settings), _start(source)
    if known and known.start != start:
        terminal.print_lines(
            f"note: {journal.stem} goes on with the code of its start, commit {str(known.start.commit)[:7]};"
            " --name starts another one with that of now"
        )
    return known or Journal(format=FORMAT, settings=settings, start=start, base=base, trials=[])


def _start(source: provenance.CodeState) -> SearchStart:
    return SearchStart(commit=source.commit, patch=digests.sha256(source.patch))


def _check_name(name: str | None) -> None:
    if name is not None and not re.fullmatch(r"[A-Za-z][\w-]{0,60}", name):
        raise UserError(f"--name {name}: must be letters, digits, - and _, beginning with a letter")


def _check_keys(space: dict[str, Distribution], base: str) -> None:
    """See whether each key may have the values at its ends, by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "params.yaml"
        for key, given in space.items():
            for value in given.values:
                path.write_text(spaces.put_values(base, {key: value}), encoding="utf-8")
                try:
                    load(path)
                except UserError as error:
                    # Another key may only be right together with this one.
                    fault = re.sub(r"^.*?params\.yaml:(\d+: )?", "", str(error).splitlines()[0]).strip()
                    if fault.startswith((f"{key}:", f"{key}.")):
                        raise UserError(f"-S {fault}") from None


def _read(journal: Path, settings: dict[str, Any]) -> Journal | None:
    """What is known of a search.

    Raises:
        UserError: it can't be read, or it is another search.
    """
    try:
        found = parse_document(Journal, reading.read_file(journal))
        before = found.settings
    except FileNotFoundError:
        return None
    except (OSError, Malformed):
        raise UserError(
            f"{journal} can't be read; delete it to start the search anew: what was trained is kept"
        ) from None
    other = [key for key in settings if before.get(key) != json.loads(json.dumps(settings[key]))]
    if other:
        what = {"space": "what -S says", "params": "params.yaml"}
        raise UserError(
            f"a search {journal.stem} was started with another {what.get(other[0], other[0])}; give --name a new name,"
            " or say what it was"
        )
    return found


def _check_out(home: Path, source: provenance.CodeState, start: SearchStart) -> Path:
    """The checkout that the trials run in: that of the search's start, where it is there; else one of now."""
    if source.commit is None:
        raise UserError("surefoot search needs the project in Git, with a commit: each trial has a checkout of it")
    repository, workspace = home / "repository", Path.cwd()
    try:
        top, below = checkout.place_in_repository(workspace)
        place = repository / below
        if not repository.is_dir():
            if start != _start(source):
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


def _try(
    home: Path, place: Path, name: str, base: str, values: dict[str, Any], question: dict[str, Any], data: bool
) -> Trial:
    """Run a trial; what it came to."""
    asked = home / f"trial-{name.rpartition('-')[2]}.json"

    def failed(why: str) -> Trial:
        return Trial(values=values, state="failed", value=None, epochs=[], why=why)

    writing.write_bytes(place / paths.PARAMS, spaces.put_values(base, values).encode())
    try:
        load(place / paths.PARAMS)
    except UserError as error:
        return failed(str(error).splitlines()[0].removeprefix(f"{place}/"))
    writing.write_json(asked, question)
    commands = [[sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--quiet", "batch"]] if data else []
    for command in [*commands, [sys.executable, "-m", "surefoot.commands.search.trial", str(asked.resolve())]]:
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


def _spell(values: dict[str, Any]) -> str:
    return " ".join(
        f"{key.partition('.')[2] or key}={json.dumps(value).strip(chr(34))}" for key, value in values.items()
    )


def _outcome(trial: Trial, metric: str) -> str:
    repeated = f"  ({trial.why})" if trial.why.startswith("as trial ") else ""
    return (
        f"{metric} {trial.value:.4g}{repeated}"
        if trial.state == "complete"
        else f"{trial.state}: {trial.why.removeprefix('pruned ')}"
    )


def _say_best(name: str, trials: list[Trial], rises: bool, metric: str) -> None:
    """The best trials, and how to make the best one in the workspace."""
    states = [trial.state for trial in trials]
    complete = [
        (trial.value, number, trial.values)
        for number, trial in enumerate(trials, 1)
        if trial.state == "complete" and trial.value is not None and not trial.why
    ]
    terminal.print_lines(
        "",
        f"{len(trials)} trials: {states.count('complete')} complete, {states.count('pruned')} pruned,"
        f" {states.count('failed')} failed",
    )
    if not complete:
        return
    best = sorted(complete, key=lambda found: -found[0] if rises else found[0])[:BEST]
    rows = [["TRIAL", metric, *trials[0].values]]
    rows += [
        [str(number), f"{reached:.4g}", *(json.dumps(value).strip('"') for value in values.values())]
        for reached, number, values in best
    ]
    terminal.print_lines(*terminal.table_lines(rows))
    overrides = [
        part for key, value in best[0][2].items() for part in ("-S", shlex.quote(spaces.dvc_override(key, value)))
    ]
    terminal.print_lines(
        "",
        f"in MLflow: tags.`surefoot.sweep` = '{name}'",
        f"the best one, in the workspace: dvc exp run {' '.join(overrides)}",
    )
