"""`surefoot search`: trials one after the other, each the project's own stages in a checkout of the search's own.

.surefoot/search/NAME.json            what the search is, and what came of each trial: it goes on from there if killed
.surefoot/search/NAME/repository      the code and data of its start, in which trials run; the workspace isn't touched
.surefoot/search/NAME/trial-N.json    a trial's question and answer; beside it, .log has what its stages printed
"""

import importlib.util
import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from surefoot.base import digests, paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.base.installation import install_command
from surefoot.base.locks import Locks
from surefoot.commands.options import check_name
from surefoot.commands.search import space as spaces
from surefoot.commands.search import study
from surefoot.commands.search.in_checkout import check_out_start, try_values
from surefoot.commands.search.journal import known_or_new_journal
from surefoot.commands.search.space import Distribution
from surefoot.commands.search.study import Trial
from surefoot.params.dotted_keys import flatten
from surefoot.params.given_values import put_values
from surefoot.params.params_yaml import load_params
from surefoot.reproduction import provenance

FAILURES = 5  # so many first trials may fail before the search gives up
BEST = 5  # trials in the table at the end


def main(texts: list[str], trials: int, metric: str, prune: str, name: str | None, seed: int) -> None:
    """Bring the search to `trials` trials, then say which were best.

    Raises:
        UserError: Optuna isn't installed; the space or a key isn't right; another search has this name; the metric
        isn't logged; all trials fail.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError(f"surefoot search needs Optuna, which isn't installed: {install_command('search')}")
    space = spaces.parse_space(texts)
    if trials < 1:
        raise UserError(f"--trials {trials}: must be at least 1")
    check_name(name)
    if load_params(paths.PARAMS).train.max_minutes is not None or "train.max_minutes" in space:
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
            key: value
            for key, value in flatten(load_params(paths.PARAMS).model_dump(mode="json")).items()
            if key not in space
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
    from surefoot.training.schedule import higher_is_better

    source, journal = provenance.code_state(), home.with_suffix(".json")
    found = known_or_new_journal(journal, settings, base, source)
    place = check_out_start(home, source, found.start)
    writing.write_json(journal, found.plain())
    done = found.trials
    terminal.print_lines(
        f"search {name}: {min(len(done), wanted)} of {wanted} trials are there"
        if done
        else f"search {name}: {wanted} trials"
    )
    up = higher_is_better(settings["metric"])
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
            trial = try_values(home, place, f"{name}-{len(done) + 1}", found.base, values, question, data)
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


def _check_keys(space: dict[str, Distribution], base: str) -> None:
    """See whether each key may have the values at its ends, by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "params.yaml"
        for key, given in space.items():
            for value in given.values:
                try:
                    path.write_text(put_values(base, {key: value}), encoding="utf-8")
                    load_params(path)
                except UserError as error:
                    # Another key may only be right together with this one.
                    fault = re.sub(r"^.*?params\.yaml:(\d+: )?", "", str(error).splitlines()[0]).strip()
                    if fault.startswith((f"{key}:", f"{key}.")):
                        raise UserError(f"-S {fault}") from None


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
