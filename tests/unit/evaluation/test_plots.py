import csv
import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from surefoot.evaluation import reports
from surefoot.evaluation.plots import classes, figures, mistakes, training_curves
from tests.unit.evaluation.test_metrics import binary, classified, numbers

RANDOM = np.random.default_rng(0)
HISTORY = {
    "epoch": [1.0, 2.0],
    "train/loss": [1.0, 0.5],
    "validation/loss": [0.9, 0.6],
    "validation/accuracy": [0.5, 0.7],
    "lr": [0.1, 0.1],
}
NO_IMAGES = {"inputs": np.zeros((1000, 3), np.float32), "features": []}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    printed = FigureCanvasAgg.print_png
    monkeypatch.setattr(
        FigureCanvasAgg,
        "print_png",
        lambda canvas, *given, **more: (printed(canvas, *given, **more), figures.append(canvas.figure)),
    )
    return figures


def savefig(figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def test_a_picture_is_as_savefig_writes_it(monkeypatch):
    """Which draws the figure twice."""

    actual, predicted = RANDOM.integers(0, 3, (2, 90))

    def drawn():
        return reports.draw_plots(classified(3, actual, predicted), HISTORY, 1, "best", "kind", **NO_IMAGES)

    once = drawn()
    monkeypatch.setattr(figures, "to_png", savefig)
    assert len(once) == 6
    assert drawn() == once


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def some(count, rows=200):
    actual = RANDOM.integers(count, size=rows)
    return classified(count, actual, np.where(RANDOM.random(rows) < 0.7, actual, RANDOM.integers(count, size=rows)))


@pytest.mark.parametrize("epochs", [1, 2, 5000])
def test_curves(drawn, epochs):
    history = {name: np.linspace(values[0], values[1], epochs) for name, values in HISTORY.items()} | {
        "epoch": np.arange(1, epochs + 1)
    }
    training_curves.training_plot(history, chosen=1, select="best")
    (figure,) = drawn
    assert titles(figure) == ["Loss", "Accuracy, validation", "Learning rate"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert len(figure.axes[0].lines) == 3  # training, validation, the chosen epoch
    assert len(figure.axes[0].lines[0].get_xdata()) == epochs


def test_columns_that_may_be_there(drawn):
    nan = float("nan")
    more = {
        "gradient_norm": [3.0, 2.0],
        "validation/average_loss": [nan, 0.55],
        "validation/average_accuracy": [nan, nan],
        "validation/mae": [nan, nan],
    }
    training_curves.training_plot(HISTORY | more, chosen=2, select="best_average")
    (figure,) = drawn
    assert titles(figure) == ["Loss", "Accuracy, validation", "Learning rate", "Gradient norm"]
    loss = figure.axes[0]
    assert [line.get_label() for line in loss.lines] == [
        "training",
        "validation",
        "validation, averaged weights",
        "the model: epoch 2",
    ]
    assert loss.lines[2].get_ydata().tolist() == [0.55]


def test_losses_below_zero_are_shown(drawn):
    """By a logarithmic axis they would not be."""
    training_curves.training_plot(HISTORY | {"train/loss": [100.0, -2.0]}, chosen=1, select="best")
    training_curves.training_plot(HISTORY | {"train/loss": [100.0, 0.5]}, chosen=1, select="best")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "log"]


@pytest.mark.parametrize(
    "names",
    [["0", "1"], ["a class with a very long name", "$b_$", "日本"], [f"class {number}" for number in range(40)]],
)
def test_classes_of_any_name_and_number(drawn, names):
    tested = some(len(names))
    tested = type(tested)(**{**vars(tested), "classes": names})
    found = reports.draw_plots(tested, HISTORY, 1, "best", "kind", **NO_IMAGES)
    assert found.keys() == {
        f"{name}.png" for name in ("training", "confusion", "classes", "calibration", "roc", "precision_recall")
    }
    assert all(Image.open(io.BytesIO(data)).format == "PNG" for data in found.values())


def test_labels():
    assert figures.short_label("a\nb  c") == "a b c"
    assert figures.short_label("$5") == r"\$5"
    assert figures.short_label("n01440764 tench, Tinca tinca", 12) == "n014407…inca"


def test_a_hundred_classes(drawn):
    tested = some(100, 1000)
    matrix = classes.confusion_matrix(tested.actual, tested.predicted, 100)
    np.fill_diagonal(matrix, 0)
    classes.confusion_plot(tested)
    pairs = drawn[0].axes[1]
    assert pairs.patches[0].get_width() == matrix.max()
    classes.precision_and_recall_plot(tested)
    assert drawn[1].get_suptitle() == "The 25 of 100 classes with the least F1"
    assert len(drawn[1].axes[0].get_yticklabels()) == 25


@pytest.mark.parametrize(
    "tested", [binary([2.0, -1, 0.5, -3], [1, 0, 0, 0]), binary([1.0, -1], [1, 1])], ids=["both", "one class"]
)
def test_binary(tested):
    found = reports.draw_plots(tested, HISTORY, 2, "last", "ill", **NO_IMAGES)
    assert ("roc.png" in found) == (len(set(tested.actual)) == 2)
    assert b"".join(found.values()) == b"".join(
        reports.draw_plots(tested, HISTORY, 2, "last", "ill", **NO_IMAGES).values()
    )


def test_regression(drawn):
    values = np.arange(3 * figures.POINTS)
    found = reports.draw_plots(numbers(values, values), HISTORY, 1, "best", "price", **NO_IMAGES)
    assert found.keys() == {"training.png", "predictions.png", "residuals.png"}
    predictions = next(figure.axes[0] for figure in drawn if figure.axes[0].get_xlabel() == "actual price")
    assert len(predictions.collections[0].get_offsets()) == figures.POINTS
    reports.draw_plots(numbers([1.0], [1.0]), HISTORY, 1, "best", "price", **NO_IMAGES)


def column(number):
    return {"column": f"pixel_{number}", "kind": "numeric", "width": 1, "subtract": [float(number)], "divide": [2.0]}


def test_images_are_the_raw_ones():
    raw = RANDOM.integers(0, 17, (5, 1, 4, 4)).astype(np.float64)
    features = [column(number) for number in range(16)]
    normalized = ((raw.reshape(5, 16) - np.arange(16)) / 2).reshape(raw.shape).astype(np.float32)
    assert np.allclose(mistakes.as_images(normalized, features), raw, atol=1e-5)
    array = [{"kind": "array", "width": 48, "subtract": None, "divide": None}]
    colours = RANDOM.integers(0, 256, (5, 3, 4, 4)).astype(np.uint8)
    assert np.array_equal(mistakes.as_images(colours, array), colours)
    assert np.array_equal(mistakes.as_images(colours.transpose(0, 2, 3, 1), array), colours)
    assert mistakes.as_images(colours[:, 0], array).shape == (5, 1, 4, 4)
    assert mistakes.as_images(np.zeros((5, 16), np.float32), features) is None
    assert mistakes.as_images(np.zeros((5, 7, 4), np.float32), features) is None  # a sequence
    assert mistakes.as_images(normalized, [*features[:-1], {**column(15), "kind": "category"}]) is None


def test_the_sheet_of_mistakes(drawn):
    tested = some(3)
    wrong = mistakes.worst_mistakes(tested)
    assert (tested.actual[wrong] != tested.predicted[wrong]).all()
    array = [{"kind": "array", "width": 48, "subtract": None, "divide": None}]
    pixels = RANDOM.integers(0, 256, (200, 3, 4, 4)).astype(np.uint8)
    found = reports.draw_plots(tested, HISTORY, 1, "best", "kind", pixels, array)
    assert "mistakes.png" in found
    row = wrong[0]
    (first,) = [axes for axes in drawn[-1].axes if axes.get_xlabel() == f"test row {row}"]
    one, other = (
        f"{tested.classes[at[row]]} ({tested.probabilities[row, at[row]]:.0%})"
        for at in (tested.actual, tested.predicted)
    )
    assert first.get_title() == f"actual: {one}\npredicted: {other}".replace("%", "%")
    right = classified(3, tested.actual, tested.actual)
    assert "mistakes.png" not in reports.draw_plots(right, HISTORY, 1, "best", "kind", pixels, array)


def test_the_table_of_classes():
    tested = classified(3, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    rows = list(csv.DictReader(io.StringIO(reports.class_table(tested).decode())))
    assert [row["class"] for row in rows] == ["class 0", "class 1", "class 2"]
    assert (rows[0]["rows"], rows[0]["predicted"], rows[0]["precision"], rows[0]["recall"]) == ("2", "1", "1.0", "0.5")
    assert float(rows[0]["recall_low"]) < 0.5 < float(rows[0]["recall_high"])
    assert set(rows[2].values()) == {"class 2", "0", ""}
    assert reports.class_table(numbers([1.0], [1.0])).count(b"\n") == 1


def test_a_constant_learning_rate_has_its_value_on_the_axis(drawn):
    for lr in (0.1, 3e-5, 0.0):
        training_curves.training_plot(HISTORY | {"lr": [lr, lr]}, chosen=1, select="best")
        axes = drawn[-1].axes[2]
        ticks, (low, high) = [text.get_text() for text in axes.get_yticklabels()], axes.get_ylim()
        assert f"{lr:.4g}" in ticks
        assert len(ticks) <= 3
        assert low <= 0 <= lr < high


@pytest.mark.parametrize(("right", "limits"), [(0.97, (0.6, 1.0)), (0.3, (0.0, 1.0))])
def test_the_axis_of_shares_begins_where_there_is_something(drawn, right, limits):
    actual = np.arange(400) % 4
    tested = classified(4, actual, np.where(RANDOM.random(400) < right, actual, (actual + 1) % 4))
    classes.precision_and_recall_plot(tested)
    low, high = drawn[-1].axes[0].get_xlim()
    shown = [line.get_xdata() for line in drawn[-1].axes[0].lines]
    assert low <= min(map(min, shown))
    assert high >= max(map(max, shown))
    assert low >= limits[0] - 0.03, "the width isn't wasted"
    assert high <= limits[1] + 0.03


def test_curves_in_a_corner_are_enlarged(drawn):
    actual = RANDOM.integers(2, size=300)
    for noise, panels in ((0.4, 2), (3.0, 1), (0.0, 1)):
        tested = binary(np.where(actual, 1.0, -1.0) + noise * RANDOM.normal(size=300), actual)
        for draw in (classes.roc_plot, classes.precision_recall_plot):
            draw(tested)
            assert len(drawn[-1].axes) == panels, (draw, noise)
    classes.roc_plot(binary(np.where(actual, 1.0, -1.0) + 0.4 * RANDOM.normal(size=300), actual))
    corner = drawn[-1].axes[1]
    assert corner.get_xlim()[1] < 0.5 < corner.get_ylim()[0]
