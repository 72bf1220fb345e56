"""`surefoot lr-find`: the range test with the run's own network, data and optimizer, its curve, and
what it suggests.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.base import digests, paths, terminal, writing
from surefoot.base.errors import UserError
from surefoot.base.locks import Locks
from surefoot.commands.schedule import load_with_batches
from surefoot.data.batch_store import Store
from surefoot.params.sections import Params
from surefoot.run import new_record
from surefoot.run.record import Origin
from surefoot.tracking import run_model, tag_names
from surefoot.tracking.tracker import Tracker

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan
    from surefoot.training.range_test import Curve

MOST = 100_000  # steps


def main(lowest: float, highest: float, steps: int | None, out: Path | None) -> None:
    """Run the test; write lr-find.csv and lr-find.png; print what is suggested; bring all to MLflow.

    Args:
        lowest: learning rate of the first step.
        highest: of the last one.
        steps: how many; None: as many as it takes.
        out: the directory to write to; None: in the trajectory store.

    Raises:
        UserError: limits that are none; no data/batches; the loss falls nowhere.
    """
    _check(lowest, highest, steps)
    params, batches = load_with_batches()
    from surefoot.run.plan.planning import plan_run
    from surefoot.training import range_test as test

    plan = plan_run(params, batches)
    inputs, trainer = plan.inputs, plan.trainer()
    steps = steps or test.steps_needed(trainer)
    lrs = test.learning_rates(lowest, highest, steps)
    bar = terminal.progress_bar(lrs, name="lr-find", total=steps, unit="step", leave=False)
    remedies = inputs.remedies()
    try:
        curve = test.range_test(trainer, inputs.lr, bar, steps, plan.order, inputs.steps_per_epoch)
    except test.NeverFinite as error:
        raise UserError(f"{error}{remedies.replace(', or ', '; try ', 1)}") from None
    _check_curve(curve, lowest, highest, steps, remedies)
    scale = inputs.lr / params.train.lr  # train.lr_reference_batch
    found = {"steepest": curve.steepest, "tenth_of_diverging": curve.tenth, "suggested": curve.suggested}
    suggestions = {name: lr / scale for name, lr in found.items() if lr}
    contents = {"lr-find.csv": _table(curve), "lr-find.png": _plot(curve)}
    directory = out or paths.trajectory_store() / "lr-find"
    for name, data in contents.items():
        writing.write_bytes(directory / name, data)
    _say(params, curve, suggestions, scale, highest)
    terminal.print_lines(f"curve: {' and '.join(str(paths.from_here(directory / name)) for name in contents)}")
    _track(params, batches, plan, {"min": lowest, "max": highest, "steps": steps}, suggestions, contents)


def _check(lowest: float, highest: float, steps: int | None) -> None:
    for name, value in (("--min", lowest), ("--max", highest)):
        if not 0 < value <= 1e38:
            raise UserError(f"{name} {value:g}: must be above 0, and a number")
    if lowest >= highest:
        raise UserError(f"--min {lowest:g}: must be less than --max, which is {highest:g}")
    if steps is not None and not 20 <= steps <= MOST:
        raise UserError(f"--steps {steps}: must be from 20 to {MOST}; fewer show no curve")


def _check_curve(curve: "Curve", lowest: float, highest: float, steps: int, remedies: str) -> None:
    if curve.steepest is not None:
        return
    if curve.diverging is not None:
        raise UserError(
            f"the loss explodes at lr {curve.diverging:.2g}, and doesn't fall before; give a --min below"
            f" {lowest:g}{remedies}"
        )
    raise UserError(
        f"from lr {lowest:g} to {highest:g} the loss doesn't fall by more than it varies from minibatch to minibatch; "
        f"give a larger --max, or more --steps than {steps}"
    )


def _say(params: Params, curve: "Curve", suggestions: dict[str, float], scale: float, highest: float) -> None:
    end = (
        f"the loss exploded at lr {curve.diverging:.2g}"
        if curve.diverging
        else f"the loss didn't explode up to lr {highest:g}; a larger --max shows where"
    )
    terminal.print_lines(f"{len(curve.lrs)} steps: {end}")
    terminal.print_lines(f"steepest descent        train.lr {suggestions['steepest']:.2g}")
    if curve.tenth:
        terminal.print_lines(f"a tenth of diverging    train.lr {suggestions['tenth_of_diverging']:.2g}")
        terminal.print_lines(f"between them            train.lr {suggestions['suggested']:.2g}")
    if scale != 1:
        terminal.print_lines(
            f"(each is multiplied by {scale:g} for {params.train.lr_reference_batch} rows: train.lr_reference_batch;"
            " the curve shows what that comes to)"
        )
    if any("lr" in group.arguments for group in params.train.optimizer.groups):
        terminal.print_lines(
            f"(groups with an lr of their own kept its ratio to train.lr, {params.train.lr:g}: change theirs by the"
            " same factor)"
        )
    terminal.print_lines(
        f"to train with it: `lr: {suggestions['suggested']:.2g}` under `train` in params.yaml, or  dvc exp run -S"
        f" train.lr={suggestions['suggested']:.2g}"
    )


def _table(curve: "Curve") -> bytes:
    """The curve as CSV."""
    steps = range(1, len(curve.lrs) + 1)
    rows = zip(steps, curve.lrs, curve.losses, curve.smoothed, strict=True)
    return writing.csv_bytes([("step", "lr", "loss", "smoothed_loss"), *rows])


def _plot(curve: "Curve") -> bytes:
    from surefoot.evaluation.plots import learning_rate

    named = (
        ("steepest descent", curve.steepest),
        ("a tenth of it", curve.tenth),
        ("between them", curve.suggested if curve.tenth else None),
    )
    return learning_rate.range_test_plot(
        curve.lrs, curve.losses, curve.smoothed, curve.diverging, [(name, lr) for name, lr in named if lr]
    )


def _track(
    params: Params,
    batches: Store,
    plan: "Plan",
    settings: dict[str, float],
    suggestions: dict[str, float],
    contents: dict[str, bytes],
) -> None:
    """A run of its own in MLflow: one for the same test of the same params.

    The trajectory store knows nothing of it.
    """
    said = new_record.description(params, batches, Origin.model_validate(plan.origin))
    tags = {name: value for name, value in said.tags.items() if name != "DVC_EXP_NAME"} | {
        tag_names.KIND: "lr-find",
        "mlflow.source.name": "surefoot lr-find",
    }
    asked = {f"lr_find.{name}": value for name, value in settings.items()}
    described = said.model_copy(
        update={"name": f"{said.name[:190]} lr-find", "tags": tags, "params": said.params | asked}
    )
    identity = digests.sha256(digests.canonical_json(["lr-find", plan.identity, settings]))
    tracker = Tracker(identity, described, Locks(paths.trajectory_store() / "lock"))
    tracker.open("RUNNING")
    run_model.log_results(tracker, {f"lr_find/{name}": lr for name, lr in suggestions.items()})
    for name, data in contents.items():
        tracker.log_artifact(name, data)
    tracker.end("FINISHED")
    tracker.set_tags({tag_names.COMPLETE: "true"})
