import io

import numpy as np
import pytest
from PIL import Image

from surefoot.evaluation.plots import learning_rate
from surefoot.evaluation.schedule_points import schedule_points

LR = [(0, "lr")]


def size(png):
    return Image.open(io.BytesIO(png)).size


def flat(epochs, *values, steps=5):
    return schedule_points([np.tile(values, (steps, 1)) for _ in range(epochs)], epochs)


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_a_schedule(epochs):
    assert size(learning_rate.schedule_plot(flat(epochs, 0.1), LR, ["all others"], 5, epochs))[0] == 840


def test_momentum_has_a_plot_of_its_own():
    one = learning_rate.schedule_plot(flat(3, 0.1), LR, ["all"], 5, 3)
    both = learning_rate.schedule_plot(flat(3, 0.1, 0.9), [*LR, (0, "momentum")], ["all"], 5, 3)
    assert size(both)[1] > size(one)[1]


def test_groups_that_are_the_same_share_a_line(monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axes, *_, label, **__: drawn.append(label))
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)
    learning_rate.schedule_plot(
        flat(2, 0.1, 0.2, 0.1), [(0, "lr"), (1, "lr"), (2, "lr")], ["*.bias", "a$b$" + 50 * "x", "all others"], 5, 2
    )
    assert drawn == ["*.bias, all others", r"a\$b\$" + 22 * "x" + "…" + 13 * "x"]


def test_of_many_steps_the_peaks_stay():
    values = np.full((100_000, 1), 0.5)
    values[77_777], values[33_333] = 0.9, 0.1
    steps, kept = schedule_points([values, values], 80)
    assert len(steps) < 500
    assert (steps[0], steps[-1]) == (1, 200_000)
    assert {77_778, 33_334, 177_778, 133_334} <= set(steps)
    assert (kept.max(), kept.min()) == (0.9, 0.1)
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize("diverging", [None, 1.0])
def test_a_range_test(diverging):
    lrs = [10.0 ** (n / 5 - 4) for n in range(30)]
    losses = [2.0 - lr if lr < 1 else 1e30 for lr in lrs]
    found = [("steepest descent", 0.1), ("a tenth of it", 0.1), ("between them", 0.1)]
    assert size(learning_rate.range_test_plot(lrs, losses, losses, diverging, found)) == (840, 540)
