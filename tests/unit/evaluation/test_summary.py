import pytest

from surefoot.evaluation.summary import format_change, format_number, summary_table


def test_the_table():
    metrics, intervals = {"loss": 0.13613, "accuracy": 0.96654, "ece": 0.02}, {"accuracy": (0.93762, 0.98227)}
    assert summary_table(269, metrics, intervals, None) == [
        "269 test rows             95 % interval",
        "loss           0.1361                 -",
        "accuracy       0.9665  0.9376 to 0.9823",
        "ece            0.0200                 -",
    ]
    compared = summary_table(1, metrics, intervals, ("abc1234", {"loss": 0.1, "accuracy": 0.96654}))
    assert [line.split()[-1] for line in compared] == ["abc1234", "+0.0361", "same", "new"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0000"),
        (0.96654, "0.9665"),
        (-1.5, "-1.5000"),
        (54.1234, "54.123"),
        (12345.6, "12,346"),
        (2564.16, "2,564.2"),
        (1e-7, "1.000e-07"),
        (3e12, "3.000e+12"),
    ],
)
def test_numbers(value, text):
    assert format_number(value) == text


def test_changes():
    assert [format_change(value) for value in (0.5, -0.5, 0.0)] == ["+0.5000", "-0.5000", "same"]
