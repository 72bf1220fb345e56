"""What a run's page in MLflow opens on."""

from surefoot.base import locks
from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import Params
from surefoot.tracking import page
from surefoot.tracking.tracker import Description, Point, Tracker

PARAMS = {
    "prepare": {"source": "raw|1.csv", "target": "kind"},
    "train": {"model": {"factory": "networks.mlp:mlp"}, "epochs": 3, "lr": 0.1},
}


def mark(**more):
    params = flatten(Params.model_validate(PARAMS | more).model_dump(mode="json"))
    return {
        "description": {
            "name": "a run",
            "params": params,
            "dataset": {"rows": {"train": 1000, "validation": 20, "test": 30}},
        },
        "model": {"factory": "networks.mlp:mlp", "task": "classification", "classes": ["a", "b"]},
        "epochs": 3,
        "incomplete": None,
        "epoch_keys": ["1", "2", "3"],
        "last": "3",
    }


def test_the_first_lines_say_what_it_is():
    run = mark() | {
        "results": {
            "test/accuracy": 0.9665,
            "test_interval/accuracy_low": 0.9379,
            "test_interval/accuracy_high": 0.9833,
            "test/loss": 0.13613,
        }
    }
    first = page.markdown(run, "abc", "Goes on from [x](y).").split("\n\n")[0].splitlines()
    assert "networks.mlp:mlp" in first[0]
    assert "rows: 1,000 train, 20 validation, 30 test); 3 epochs." in first[0]
    assert "accuracy **0.9665 [0.9379, 0.9833]**, loss **0.1361**" in first[1]
    assert "`surefoot verify abc`" in first[2]
    assert first[3] == "Goes on from [x](y)."


def test_a_run_that_is_not_evaluated_or_not_finished():
    text = page.markdown(mark() | {"last": None}, "abc")
    assert "Not evaluated yet." in text
    assert "of 3 epochs, not all are trained" in text
    assert "Test figure" not in text


def test_params_that_matter():
    params = page.params_that_matter(mark(seed=0, batch={"size": 7, "drop_last": True})["description"]["params"])
    assert params["train.lr"] == 0.1
    assert params["seed"] == 0, "it is the default, but everybody asks"
    assert (params["batch.size"], params["batch.drop_last"]) == (7, True)
    assert "train.nesterov" not in params
    assert "prepare.csv.delimiter" not in params


def test_a_value_is_no_markdown():
    assert "`raw\\|1.csv`" in page.markdown(mark(), "abc")
    table = page.markdown(mark() | {"description": mark()["description"] | {"params": {"train.lr": "a`b|c\nd"}}}, "abc")
    assert "| train.lr | `a'b\\|c d` |" in table


def tracker(here):
    return Tracker(
        "identity", Description("a run", {}, {"path": "raw.csv", "digest": "0" * 64}), locks.Locks(here / "lock")
    )


def test_a_description_that_a_person_wrote_stays(tracked):
    first = tracker(tracked)
    first.open()
    for text in ("one\n", "two\n"):
        first.note(text)
        note = tracked.runs()[0].data.tags["mlflow.note.content"]
        assert note.startswith(f"{text}\n<!-- written by surefoot")
    tracked.client().set_tag(first.run_id, "mlflow.note.content", note.replace("two", "mine"))
    first.note("three\n")
    assert "mine" in tracked.runs()[0].data.tags["mlflow.note.content"]
    tracked.client().set_tag(first.run_id, "mlflow.note.content", "")
    first.note("three\n")
    assert "three" in tracked.runs()[0].data.tags["mlflow.note.content"]


def test_metrics_are_shown_with_the_model_once(tracked):
    first = tracker(tracked)
    first.open()
    client = tracked.client()
    epochs = [Point("validation/loss", 0.5, epoch, 1_700_000_000.1237) for epoch in (1, 2)]
    first.add(epochs)
    first.results({"test/loss": 0.25})
    first.link(epochs)  # without a model: nothing
    model = client.create_logged_model(tracked.runs()[0].info.experiment_id, source_run_id=first.run_id).model_id
    client.set_tag(first.run_id, "surefoot.model_id", model)
    for _ in range(2):
        first.link(epochs[1:])
        first.results({"test/loss": 0.25, "test/accuracy": 0.9})
    linked = client.get_logged_model(model).metrics
    assert sorted((metric.key, metric.step, metric.value, metric.dataset_name) for metric in linked) == [
        ("test/accuracy", 0, 0.9, "raw.csv"),
        ("test/loss", 0, 0.25, "raw.csv"),
        ("validation/loss", 2, 0.5, "raw.csv"),
    ]
    assert len(client.get_metric_history(first.run_id, "test/loss")) == 1, "the run has it once"
    assert len(client.get_metric_history(first.run_id, "validation/loss")) == 2


def test_a_model_that_somebody_deleted_holds_nothing_up(tracked, capfd):
    first = tracker(tracked)
    first.open()
    tracked.client().set_tag(first.run_id, "surefoot.model_id", "m-gone")
    first.results({"test/loss": 0.25})
    first.link([Point("validation/loss", 0.5, 1, 1_700_000_000.0)])
    assert first.run_id, capfd.readouterr()
    assert tracked.runs()[0].data.metrics == {"test/loss": 0.25}
