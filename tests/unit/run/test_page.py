"""What a run's page in MLflow opens on."""

from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import Params
from surefoot.run import page
from surefoot.run.record import RunNetwork
from surefoot.tracking.description import DescribedData, Description, RowCounts
from tests.helpers import some_run

PARAMS = {
    "prepare": {"source": "raw|1.csv", "target": "kind"},
    "train": {"model": {"factory": "networks.mlp:mlp"}, "epochs": 3, "lr": 0.1},
}


def params(**more):
    return flatten(Params.model_validate(PARAMS | more).model_dump(mode="json"))


def run(given=None, **more):
    said = Description(
        name="a run",
        params=given or params(),
        dataset=DescribedData(rows=RowCounts(train=1000, validation=20, test=30)),
    )
    network = RunNetwork(factory="networks.mlp:mlp", task="classification", classes=["a", "b"])
    known = {
        "description": said,
        "model": network,
        "epochs": 3,
        "epoch_keys": ["1" * 64, "2" * 64, "3" * 64],
        "last": "3" * 64,
    }
    return some_run("a" * 64, **known | more)


def test_the_first_lines_say_what_it_is():
    results = {
        "test/accuracy": 0.9665,
        "test_interval/accuracy_low": 0.9379,
        "test_interval/accuracy_high": 0.9833,
        "test/loss": 0.13613,
    }
    first = page.page_markdown(run(results=results), "abc", "Goes on from [x](y).").split("\n\n")[0].splitlines()
    assert "networks.mlp:mlp" in first[0]
    assert "rows: 1,000 train, 20 validation, 30 test); 3 epochs." in first[0]
    assert "accuracy **0.9665 [0.9379, 0.9833]**, loss **0.1361**" in first[1]
    assert "`surefoot verify abc`" in first[2]
    assert first[3] == "Goes on from [x](y)."


def test_a_run_that_is_not_evaluated_or_not_finished():
    text = page.page_markdown(run(last=None), "abc")
    assert "Not evaluated yet." in text
    assert "of 3 epochs, not all are trained" in text
    assert "Test figure" not in text


def test_a_run_whose_model_came_from_elsewhere_was_trained():
    text = page.page_markdown(run(last=None, results={"test/accuracy": 0.9}), "abc")
    assert "test); 3 epochs." in text
    assert "not all are trained" not in text


def test_params_that_matter():
    shown = page.params_that_matter(params(seed=0, batch={"size": 7, "drop_last": True}))
    assert shown["train.lr"] == 0.1
    assert shown["seed"] == 0, "it is the default, but everybody asks"
    assert (shown["batch.size"], shown["batch.drop_last"]) == (7, True)
    assert "train.nesterov" not in shown
    assert "prepare.csv.delimiter" not in shown


def test_a_value_is_no_markdown():
    assert "`raw\\|1.csv`" in page.page_markdown(run(), "abc")
    table = page.page_markdown(run({"train.lr": "a`b|c\nd"}), "abc")
    assert "| train.lr | `a'b\\|c d` |" in table
