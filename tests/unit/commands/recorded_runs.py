"""Runs in MLflow as trainings leave them."""

from surefoot.base import locks
from surefoot.tracking import run_model
from surefoot.tracking.metric_points import Point
from surefoot.tracking.tracker import Tracker
from tests.helpers import description


def write_run(here, name, lr, accuracy=None, epochs=3, **tags):
    """A run as a training leaves it; its id."""
    params = {"train.lr": lr, "batch.size": 4, "train.save_every": int(lr * 100)}
    tracker = Tracker(
        f"{name} {lr} {accuracy}",
        description(name, params, tags),
        locks.Locks(here / "lock"),
    )
    tracker.open("RUNNING")
    for epoch in range(1, epochs + 1):
        values = {
            "train/loss": 1 / epoch,
            "validation/loss": abs(epoch - 2) + lr,
            "validation/accuracy": 0.5 + epoch / 10,
            "lr": lr,
        }
        tracker.add_points(Point(key, value, epoch, 1_700_000_000.0 + epoch) for key, value in values.items())
    if accuracy:
        run_model.log_results(
            tracker,
            {
                "test/accuracy": accuracy,
                "test_interval/accuracy_low": accuracy - 0.03,
                "test_interval/accuracy_high": accuracy + 0.02,
                "test/loss": 0.25,
            },
        )
    tracker.end("FINISHED")
    return tracker.run_id
