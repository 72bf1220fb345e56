import io

import numpy as np
from PIL import Image

from surefoot.evaluation.plots.runs_overlaid import overlaid_plot


def size(data):
    image = Image.open(io.BytesIO(data))
    assert np.asarray(image.convert("L")).std() > 5, "something is drawn"
    return image.size


def test_a_panel_for_each_metric_that_a_run_has():
    curve = [(1, 1.0), (2, 0.5)]
    runs = [("a", {"train/loss": curve, "lr": curve}), ("b", {"train/loss": curve})]
    one = size(overlaid_plot(runs, ["train/loss", "nothing"]))
    two = size(overlaid_plot(runs, ["train/loss", "nothing", "lr"]))
    three = size(overlaid_plot(runs, ["train/loss", "lr", "train/loss"]))
    assert one[0] < two[0] == three[0]
    assert two[1] < three[1]


def test_curves_of_one_epoch_of_zeros_and_with_odd_labels():
    runs = [("_hidden", {"loss": [(1, 0.0)]}), ("$x^{", {"loss": [(1, -1.0)]}), ("l" * 300, {"loss": []})]
    assert size(overlaid_plot(runs, ["loss"]))[0] < 2000


def test_more_runs_than_colours():
    runs = [(f"run {number}", {"loss": [(1, 1.0 + number), (2, 1e6)]}) for number in range(40)]
    size(overlaid_plot(runs, ["loss"]))
