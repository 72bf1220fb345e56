"""What a run's page in MLflow opens on: what was trained on what, its figures, and how to make it again."""

from collections.abc import Mapping
from typing import Any

from surefoot.params.sections import NO_RESULT, default_values
from surefoot.run.record import RunRecord

# Shown also where they are the defaults.
SHOWN = ("train.model", "train.lr", "train.epochs", "train.momentum", "batch.size", "seed")


def page_markdown(run: RunRecord, run_id: str, before: str = "") -> str:
    """The description of a run in MLflow, whose id there is `run_id`; `before`: a line on the run that it goes on
    from.
    """
    rows, network, params = run.description.dataset.rows, run.model, run.description.params
    assert rows and network, "the mark is whole"
    counts = f"{rows.train:,} train, {rows.validation:,} validation, {rows.test:,} test"
    classes = f", {len(network.classes)} classes" if network.classes else ""
    source, target = (params.get(f"prepare.{name}") for name in ("source", "target"))
    done = len(run.epoch_keys)
    state = (
        (f"{done} epochs" if done == run.epochs else f"{done} of {run.epochs} epochs")
        if run.last or run.results  # without `last` the model came from elsewhere
        else f"of {run.epochs} epochs, not all are trained"
    )
    state += f", not complete: {run.incomplete}" if run.incomplete else ""
    results = metric_texts(run.results, "test/")
    # The first lines are seen at once, the tables below on a click.
    first = [
        (
            f"{_code(network.factory)} on {_code(source)}, to predict {_code(target)} ({network.task}{classes}; rows:"
            f" {counts}); {state}."
        ),
        (
            f"Test: {', '.join(f'{name} **{value}**' for name, value in list(results.items())[:2])}."
            if results
            else "Not evaluated yet."
        ),
        f"Make it again, and compare every bit: {_code(f'surefoot verify {run_id}')}",
        before,
    ]
    parts = [
        "  \n".join(line for line in first if line),
        _table(
            (
                "Test figure",
                "Value" + (", and its interval" if any("[" in value for value in results.values()) else ""),
            ),
            results,
        ),
        "What it was trained by, other defaults left out:",
        _table(("Param", "Value"), {name: _code(value) for name, value in params_that_matter(params).items()}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metric_texts(metrics: Mapping[str, float], prefix: str) -> dict[str, str]:
    """Metrics as texts, such as `0.967 [0.938, 0.983]` where `test/accuracy` has a `test_interval/accuracy_low` and
    `_high`; the prefix is left out.
    """
    found = {}
    for name, value in metrics.items():
        if name.startswith(prefix):
            short = name.removeprefix(prefix)
            ends = [metrics.get(f"{prefix.removesuffix('/')}_interval/{short}_{end}") for end in ("low", "high")]
            interval = "" if None in ends else f" [{ends[0]:.4g}, {ends[1]:.4g}]"
            found[short] = f"{value:.4g}{interval}"
    return found


def params_that_matter(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a run that everybody asks for, and those that aren't the defaults."""
    defaults = default_values()
    asked = {
        name: value for key in SHOWN for name, value in params.items() if name == key or name.startswith(f"{key}.")
    }
    other = {
        name: value
        for name, value in params.items()
        if name not in asked
        and name not in ("prepare.source", "prepare.target", *NO_RESULT)
        and (name not in defaults or defaults[name] != value)
    }
    return asked | other


def differing_params(params: list[dict[str, str]]) -> list[str]:
    """The names of the params that aren't the same in all the runs, but for those that change no result."""
    names = sorted({name for run in params for name in run} - set(NO_RESULT))
    return [name for name in names if len({run.get(name) for run in params}) > 1]


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {' | '.join(head)} |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) if rows else ""


def _code(value: Any) -> str:
    """A value of the user's as code, in which nothing is Markdown."""
    text = str(value).replace("`", "'").replace("|", "\\|").replace("\n", " ")
    return f"`{text}`"
