"""Short trainings by the project's own code, with other params than params.yaml has.

Nothing of them stays: no file, no run in MLflow.
"""

import atexit
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from surefoot.base import paths
from surefoot.data.batch_store import Store, open_store
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from surefoot.run.pinned_params import pin_by

Epoch = dict[str, float]  # its metrics, by the names that they have in MLflow


def params(**changes: Any) -> Params:
    """What params.yaml says, but for some keys: `params(train__lr=0.1)` for `train.lr: 0.1`."""
    values = load_params(paths.PARAMS).model_dump(mode="json")
    for name, value in changes.items():
        *sections, key = name.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[key] = value
    return Params.model_validate(values)


def pinned(params: Params) -> None:
    """Choose the kernels that compute, as a stage does before it trains."""
    pin_by(params)


def batches(params: Params) -> Store:
    """What the stages prepare and batch make of the data."""
    return open_store(batched(params))


def batched(params: Params) -> Path:
    """The same as a directory, which goes with the process."""
    return _batched(json.dumps(params.model_dump(mode="json", include={"seed", "prepare", "batch"})))


@cache
def _batched(values: str) -> Path:
    from surefoot.stages import batch, prepare

    scratch = tempfile.TemporaryDirectory(prefix="surefoot-tutorial-")
    atexit.register(scratch.cleanup)
    here, there = Path.cwd(), Path(scratch.name)
    (there / "data").mkdir()
    (there / paths.RAW).symlink_to(here / paths.RAW)
    (there / paths.PARAMS).write_text(
        json.dumps(load_params(paths.PARAMS).model_dump(mode="json") | json.loads(values))
    )  # JSON is YAML, too
    os.chdir(there)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepare.main()
            batch.main()
        return there / paths.BATCHES
    finally:
        os.chdir(here)


def epochs(params: Params) -> Iterator[tuple[Epoch, Any]]:
    """Train, as the stage train does without what it restores and stores: the metrics of each epoch, and the trainer as
    it then is.

    Raises:
        Diverged: the loss became NaN or infinite.
    """
    pinned(params)
    from surefoot.run.plan.planning import plan_run
    from surefoot.training.loop import Progress

    data = batches(params)
    plan = plan_run(params, data)
    trainer, schedule = plan.trainer(), plan.make_schedule()
    metrics, epoch, steps = None, 0, 0
    while len(scheduled := schedule.next_epoch(metrics)):
        epoch += 1
        order = data.order(params.seed, epoch)
        done = trainer.train(order, scheduled.tolist(), Progress(), steps, epoch)
        steps += done.steps
        metrics = {
            "train/loss": done.loss_sum / done.rows,
            **trainer.end_epoch(epoch, steps),
            "lr": float(scheduled[-1, 0]),
        }
        metrics["gradient_norm"] = done.norm_sum / done.steps
        yield metrics, trainer


def train(**changes: Any) -> list[Epoch]:
    """The metrics of each epoch of a training with these changes to params.yaml."""
    return [metrics for metrics, _ in epochs(params(**changes))]


def trainer(params: Params, count: int = 0) -> Any:
    """The network, its optimizer and its data (`surefoot.training.loop.Trainer`) after so many epochs."""
    pinned(params)
    from surefoot.run.plan.planning import plan_run

    if not count:
        return plan_run(params, batches(params)).trainer()
    *_, (_, last) = islice(epochs(params), count)
    return last
