"""What the terminal shows of an epoch, and of why one was chosen."""

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.run.choose_epoch import describe_choice
from surefoot.run.history import epoch_line
from surefoot.run.record import Record

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def record(epoch=1, seconds=0.02, **metrics):
    told = {"key": "a" * 64, "state": "b" * 64, "epoch": epoch, "step": 1, "seconds": seconds}
    return Record.model_validate(told | {"metrics": {"gradient_norm": 1.0, "lr": 0.1, **metrics}})


def losses(train=1.95321, validation=1.41321, **more):
    metrics = {"train/loss": train, "validation/loss": validation}
    return metrics | {f"validation/{name}": value for name, value in more.items()}


@pytest.mark.parametrize(
    ("given", "epochs", "line"),
    [
        (
            record(**losses(accuracy=0.80671)),
            30,
            "epoch  1/30  loss 1.9532  validation 1.4132  accuracy 0.8067  0.02 s",
        ),
        (
            record(1000, 86400.5, **losses(123456.78, 1e12, mae=1e-7)),
            1000,
            "epoch 1000/1000  loss 123,457  validation 1.000e+12  mae 1.000e-07  86400.50 s",
        ),
        (  # the seconds don't fit any more
            record(7, **losses(accuracy=0.5, average_loss=1.25, average_accuracy=0.75)),
            9,
            "epoch 7/9  loss 1.9532  validation 1.4132  accuracy 0.5000  average 1.2500",
        ),
    ],
)
def test_the_line_of_an_epoch(given, epochs, line):
    assert epoch_line(given, epochs) == line


@given(FINITE, FINITE, st.dictionaries(st.sampled_from(["mae", "average_loss", "average_mae"]), FINITE), POSITIVE)
def test_it_fits_a_terminal(train, validation, more, seconds):
    for epoch, epochs in ((1, 2), (99, 100), (5, 100_000), (100_000, 100_000)):
        line = epoch_line(record(epoch, seconds, **losses(train, validation, **more)), epochs)
        assert len(line) <= 80
        assert "loss" in line and "validation" in line


FALLING, BOTTOM, RISING = [3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0]


def columns(validation, average=()):
    found = {"epoch": [1.0, 2.0, 3.0][: len(validation)], "validation/loss": validation}
    return found | ({"validation/average_loss": list(average)} if average else {})


@pytest.mark.parametrize(
    ("select", "chosen", "history", "lines"),
    [
        ("best", 2, columns(BOTTOM), ["of epoch 2 of 3: least validation/loss"]),
        ("last", 3, columns(BOTTOM), ["of epoch 3 of 3: the last"]),
        ("best", 1, columns([1.0]), ["of epoch 1 of 1: least validation/loss"]),
        ("best", 3, columns(FALLING), ["of epoch 3 of 3: least validation/loss", "after the last epoch"]),
        ("best", 1, columns(RISING), ["of epoch 1 of 3: least validation/loss", "after epoch 1"]),
        ("last", 3, columns(RISING), ["of epoch 3 of 3: the last", "after epoch 1"]),
        (
            "best_average",
            2,
            columns(RISING, [nan, 1.0, 2.0]),
            ["averaged, of epoch 2 of 3: least validation/average_loss", "after epoch 2"],
        ),
        (
            "best_average",
            3,
            columns(RISING, [nan, nan, 2.0]),
            ["averaged, of epoch 3 of 3: least validation/average_loss"],
        ),
        # params.yaml was edited since, and evaluate run alone
        ("last_average", 3, columns(RISING), ["averaged, of epoch 3 of 3: the last"]),
    ],
)
def test_why_an_epoch_was_chosen(select, chosen, history, lines):
    first, *notes = describe_choice(select, chosen, history)
    assert first == lines[0]
    assert len(notes) == len(lines) - 1
    for note, part in zip(notes, lines[1:], strict=True):
        assert note.startswith("note: validation/")
        assert f"is least {part}: " in note
