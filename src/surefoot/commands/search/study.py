"""What a search suggests next and when it prunes: functions of what was found before and of the seed, so that a killed
search goes on alike.
"""

import json
import statistics
import warnings
from typing import Any, Literal

from surefoot.base import digests
from surefoot.base.documents import Document
from surefoot.commands.search.space import Distribution


class Trial(Document):
    """A trial: the values by key, what came of it, the metric's value at the end and in each epoch, and why it ended
    early, or is as another.
    """

    values: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    epochs: list[float | None]
    why: str


FIRST = 5  # complete trials before any is pruned


def suggest_values(space: dict[str, Distribution], trials: list[Trial], seed: int, rises: bool) -> dict[str, Any]:
    """The values of the next trial, by Optuna's TPE, which draws at random until it knows ten trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _optunas(optuna.distributions, given) for key, given in space.items()}
    # A sampler of its own for each trial: one that lives on has a state that a killed process takes with it.
    own = int(digests.sha256(digests.canonical_json([seed, len(trials)]))[:8], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=own), direction="maximize" if rises else "minimize"
        )
        study.add_trials([_known(optuna, space, distributions, trial) for trial in trials])
        drawn = study.ask(distributions).params
    return {
        key: json.loads(drawn[key]) if given.kind == "choice" else given.rounded(drawn[key])
        for key, given in space.items()
    }


def _optunas(kinds: Any, given: Distribution) -> Any:
    if given.kind == "choice":
        return kinds.CategoricalDistribution([json.dumps(value) for value in given.values])
    if given.kind == "int":
        return kinds.IntDistribution(*given.values)
    return kinds.FloatDistribution(*given.values, log=given.kind == "log")


def _known(optuna: Any, space: dict[str, Distribution], distributions: dict[str, Any], trial: Trial) -> Any:
    complete = trial.state == "complete"
    # One that failed counts as pruned before its first epoch: worse than all others, so that its like isn't tried again
    # and again.
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
        params={
            key: json.dumps(value) if space[key].kind == "choice" else value for key, value in trial.values.items()
        },
        distributions=distributions,
        value=trial.value if complete else None,
        intermediate_values={epoch: value for epoch, value in enumerate(trial.epochs, 1) if value is not None}
        if trial.state != "failed"
        else {},
    )


def median_bars(trials: list[Trial]) -> list[float | None]:
    """For each epoch the median of what complete trials had in it: one whose best so far is worse is pruned.

    Empty until there are five.
    """
    complete = [trial.epochs for trial in trials if trial.state == "complete"]
    if len(complete) < FIRST:
        return []
    # As long as most trials are: beyond that too few say anything. Epochs before there is a value, as of averaged
    # weights, prune nothing.
    columns = [
        [value for epochs in complete for value in epochs[number : number + 1] if value is not None]
        for number in range(max(map(len, complete)))
    ]
    return [statistics.median(column) if len(column) >= FIRST else None for column in columns]
