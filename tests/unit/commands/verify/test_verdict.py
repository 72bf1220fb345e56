"""What differs, why, and the verdict: from plain values."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from surefoot.commands.verify import verdict
from surefoot.commands.verify.verdict import CANNOT_SAY, DIFFERS, EXIT_CODES, IDENTICAL, Row, give_verdict
from surefoot.run.record import Epoch

ORIGIN = {
    "format": 1,
    "seed": 0,
    "numerics": {"profile": "portable", "threads": 1, "fingerprint": "a" * 64},
    "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    "code": {"loop": "b" * 64},
    "model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [5]}, "source": {"networks.mlp": "c" * 64}},
    "first_state": "d" * 64,
    "loss": {"name": "losses.mine:loss", "arguments": {}, "source": {"losses.mine": "c" * 64}},
    "optimizer": {"name": "torch.optim.SGD", "momentum": 0.9},
    "data": {"train": {"inputs": {"sha256": "e" * 64}}, "batch_size": 64},
}


def changed(**changes):
    """ORIGIN with other values; `__` parts the keys, `_` stands for a dot in the last."""
    origin = {key: dict(value) if isinstance(value, dict) else value for key, value in ORIGIN.items()}
    for path, value in changes.items():
        *parts, last = path.split("__")
        node = origin
        for part in parts:
            node[part] = dict(node[part])
            node = node[part]
        node[last] = value
    return origin


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 1}, "the seed (recorded 0, now 1)"),
        ({"numerics__profile": "native"}, "the numerics profile (recorded portable, now native)"),
        ({"numerics__threads": 2}, "the number of threads (recorded 1, now 2)"),
        (
            {"numerics__fingerprint": "f" * 64},
            f"the numerics fingerprint: this machine rounds differently (recorded {'a' * 12}, now {'f' * 12})",
        ),
        ({"versions__torch": "2.12.0"}, "the version of torch (recorded 2.13.0, now 2.12.0)"),
        (
            {"code__loop": "f" * 64},
            f"Surefoot's own code, loop (recorded {'b' * 12}, now {'f' * 12})",
        ),
        (
            {"model__source__networks.mlp": "f" * 64},
            f"the model's code, networks.mlp (recorded {'c' * 12}, now {'f' * 12})",
        ),
        (
            {"model__source__networks.more": "f" * 64},
            f"the model's code, networks.more (recorded missing, now {'f' * 12})",
        ),
        (
            {"model__factory": "networks.cnn:cnn"},
            "the model's factory (recorded networks.mlp:mlp, now networks.cnn:cnn)",
        ),
        ({"model__arguments__hidden": [6]}, "the model's arguments.hidden (recorded [5], now [6])"),
        ({"first_state": "f" * 64}, f"the weights that training starts from (recorded {'d' * 12}, now {'f' * 12})"),
        ({"loss__name": "auto"}, "the loss's name (recorded losses.mine:loss, now auto)"),
        (
            {"loss__source__losses.mine": "f" * 64},
            f"the loss's code, losses.mine (recorded {'c' * 12}, now {'f' * 12})",
        ),
        ({"optimizer__momentum": 0.8}, "the optimizer's momentum (recorded 0.9, now 0.8)"),
        ({"data__batch_size": 32}, "the data that is trained on, batch_size (recorded 64, now 32)"),
        ({"format": 2}, "format (recorded 1, now 2)"),
    ],
)
def test_each_cause_is_named_with_both_values(changes, line):
    assert list(verdict.differing_origins(ORIGIN, changed(**changes)).values()) == [line]


def test_the_same_origin_has_no_causes():
    assert verdict.differing_origins(ORIGIN, changed()) == {}


def test_another_fingerprint_follows_from_other_threads():
    causes = verdict.differing_origins(ORIGIN, changed(numerics__threads=2, numerics__fingerprint="f" * 64))
    assert list(causes) == ["numerics.threads"]
    assert verdict.give_verdict([Row("model", "1", "2", False)], causes) == DIFFERS


def test_causes_come_without_what_follows_from_them():
    source = changed(model__source__networks_mlp="f" * 64, first_state="f" * 64)
    data = changed(data__train={"inputs": {"sha256": "f" * 64}}, first_state="f" * 64)
    assert [
        line.split(" (")[0] for line in verdict.causes_to_tell(verdict.differing_origins(ORIGIN, source), False, [])
    ] == ["the model's code, networks_mlp"]
    assert [
        line.split(" (")[0] for line in verdict.causes_to_tell(verdict.differing_origins(ORIGIN, data), False, [])
    ] == ["the data that is trained on, train.inputs.sha256"]
    assert verdict.causes_to_tell(verdict.differing_origins(ORIGIN, data), False, ["the raw data"]) == []
    assert verdict.causes_to_tell(verdict.differing_origins(ORIGIN, changed(numerics__threads=2)), True, []) == []
    assert (
        verdict.causes_to_tell(
            verdict.differing_origins(ORIGIN, changed(loss__name="auto", numerics__deterministic=False)), True, []
        )
        == []
    )
    loss = verdict.differing_origins(ORIGIN, changed(loss__source={"losses.mine": "f" * 64}))
    assert [line.split(" (")[0] for line in verdict.causes_to_tell(loss, True, [])] == ["the loss's code, losses.mine"]
    both = verdict.differing_origins(ORIGIN, changed(numerics__threads=2, code__more="f" * 64))
    assert [line.split(" (")[0] for line in verdict.causes_to_tell(both, True, [])] == ["Surefoot's own code, more"]
    only = verdict.differing_origins(ORIGIN, changed(first_state="f" * 64))
    assert verdict.causes_to_tell(only, False, []) == list(only.values()), "the last thing that is known isn't dropped"


@pytest.mark.parametrize(
    ("same", "origin", "verdict"),
    [
        ([True, True], {}, IDENTICAL),
        ([True, None], {}, IDENTICAL),
        ([None, None], {}, DIFFERS),
        ([], {}, DIFFERS),
        ([True, False], {}, DIFFERS),
        ([True, False], {"seed": "..."}, DIFFERS),
        ([True, False], {"numerics.fingerprint": "..."}, CANNOT_SAY),
        ([True, False], {"versions.torch": "..."}, CANNOT_SAY),
        ([True, True], {"versions.torch": "..."}, IDENTICAL),
    ],
)
def test_verdict(same, origin, verdict):
    assert give_verdict([Row("x", "", "", one) for one in same], origin) == verdict
    assert set(EXIT_CODES) == {IDENTICAL, DIFFERS, CANNOT_SAY}


def test_params_are_compared_by_value():
    recorded = {
        "train.lr": "1e-05",
        "train.epochs": "3",
        "batch.shape": "[1, 8, 8]",
        "seed": "0",
        "train.nesterov": "False",
        "x": "None",
        "gone": "1",
    }
    same = {
        "train.lr": 0.00001,
        "train.epochs": 3,
        "batch.shape": [1, 8, 8],
        "seed": 0,
        "train.nesterov": False,
        "x": None,
        "new": 2,
    }
    row, lines = verdict.params_row(recorded, same)
    assert (row, lines) == (Row("params", "6 params", "6 params", True), [])
    row, lines = verdict.params_row(recorded, same | {"train.lr": 0.1, "batch.shape": None})
    assert row == Row("params", "6 params", "2 others", False)
    assert lines == ["train.lr (recorded 1e-05, now 0.1)", "batch.shape (recorded [1, 8, 8], now None)"]


def test_a_long_param_is_compared_whole_where_it_was_recorded_so():
    names = [f"pixel_{number:04}" for number in range(1000)]
    other = [*names[:-1], "another"]
    assert verdict.params_row({"prepare.columns": names}, {"prepare.columns": list(names)})[0].same
    row, (line,) = verdict.params_row({"prepare.columns": names}, {"prepare.columns": other})
    assert row.same is False
    assert "'pixel_0999']" in line and "'another']" in line, "what differs is shown"
    assert len(line) < 600
    # MLflow keeps 6,000 characters of a text.
    cut = str(names)[: verdict.PARAM_LENGTH]
    assert verdict.params_row({"prepare.columns": cut}, {"prepare.columns": names})[0].same
    assert not verdict.params_row({"prepare.columns": cut}, {"prepare.columns": ["another", *names]})[0].same
    assert not verdict.params_row({"prepare.columns": cut[:-1]}, {"prepare.columns": names})[0].same


def test_params_that_change_no_bit_dont_count():
    row, lines = verdict.params_row(
        {"train.save_every": "1", "train.keep_states": "1", "seed": "0"},
        {"train.save_every": 2, "train.keep_states": 2, "seed": 0},
    )
    assert (row.same, lines) == (True, [])
    assert verdict.params_row({}, {"seed": 0})[0].same is None


def data(**changes):
    rows = {
        split: {"inputs": f"{split}i" + "0" * 60, "targets": f"{split}t" + "0" * 60}
        for split in ("train", "validation", "test")
    }
    return {"source": {"path": "data/raw/x.csv", "md5": "0" * 32}, "digest": "0" * 64, **rows} | changes


def test_data():
    assert verdict.data_row(data(), data()) == (Row("data", "0" * 12, "0" * 12, True), [])
    other = data(
        source={"path": "data/raw/x.csv", "md5": "1" * 32},
        digest="1" * 64,
        test={"inputs": "x", "targets": data()["test"]["targets"]},
    )
    row, found = verdict.data_row(data(), other)
    assert row.same is False
    assert found == [
        "the raw data, data/raw/x.csv (recorded MD5 000000000000, now 111111111111)",
        "the test rows' inputs",
    ]
    row, found = verdict.data_row(data(source={"path": "x", "md5": None}), other | {"train": {}})
    assert found == ["the train rows' inputs and targets", "the test rows' inputs"]
    row, found = verdict.data_row(data(), data(digest="1" * 64))
    assert (row.same, found) == (
        False,
        ["how the data is described: names, classes or scaling in data/batches/index.json"],
    )


def epochs(*states, **metrics):
    return [
        Epoch(epoch=epoch, step=epoch, key="0" * 64, state=state * 64, metrics={"train/loss": 1.0, **metrics})
        for epoch, state in enumerate(states, 1)
    ]


def test_epochs():
    assert verdict.epochs_row(epochs(*"abc"), epochs(*"abc"), 1, 3) == (
        Row("epochs 1-3", "3 states", "3 states", True),
        None,
    )
    assert verdict.epochs_row(epochs(*"abc"), epochs(*"fbc"), 2, 2) == (
        Row("epoch 2", "1 state", "1 state", True),
        None,
    )
    assert verdict.epochs_row(epochs(*"abc"), epochs(*"aef"), 1, 3) == (
        Row("epochs 1-3", "2: " + "b" * 12, "2: " + "e" * 12, False),
        2,
    )
    assert verdict.epochs_row(epochs(*"abc"), [], 3, 3) == (Row("epoch 3", "3: " + "c" * 12, "3: missing", False), 3)
    assert verdict.epochs_row(epochs(*"ab"), epochs(*"abc"), 1, 3)[1] == 3, "more than were recorded"
    row, first = verdict.epochs_row(epochs("a"), epochs("a", **{"train/loss": np.nextafter(1.0, 2.0)}), 1, 1)
    assert (row.same, first) == (False, 1), "the last bit of a metric counts"


def test_curves():
    said = epochs(*"ab")
    shown = [{"train/loss": 1.0}, {"train/loss": 1.0}]
    assert verdict.curves_row(said, shown) == (Row("curves in MLflow", "2 points", "2 points", True), None)
    row, line = verdict.curves_row(said, [{"train/loss": 1.0}, {"train/loss": 0.5}])
    assert row == Row("curves in MLflow", "train/loss, epoch 2: 1", "0.5", False)
    assert line == "MLflow shows another train/loss in epoch 2 (0.5) than was recorded (1)"
    assert verdict.curves_row(said, shown[:1])[0].same is False
    assert verdict.curves_row(said, [*shown, {"train/loss": 1.0}])[0].same is False
    assert (
        verdict.curves_row(said, [{}, {}])[1]
        == "MLflow shows another train/loss in epoch 1 (missing) than was recorded (1)"
    )


def test_metrics():
    rows = verdict.metric_rows(
        {"test/a": 0.5, "test/b": 1.0, "test/gone": 1.0, "test/nan": float("nan")},
        {"test/a": 0.75, "test/b": 1.0, "test/new": 1.0, "test/nan": float("nan")},
    )
    assert {row.what: row.same for row in rows} == {
        "test/a": False,
        "test/b": True,
        "test/gone": False,
        "test/nan": True,
        "test/new": None,
    }
    assert rows[0].again == "0.75 (+0.25)"
    assert next(row.again for row in rows if row.what == "test/gone") == "missing"


def test_models():
    assert verdict.model_row("model", "a" * 64, "a" * 64).same is True
    assert verdict.model_row("model", "a" * 64, "b" * 64) == Row("model", "a" * 12, "b" * 12, False)
    assert verdict.model_row("model", None, "b" * 64).same is None
    assert verdict.model_row("model", "a" * 64, None).same is False


def test_what_was_not_compared_is_said():
    rows = [Row("data", "", "", True), Row("test/loss", "missing", "1", None)]
    assert verdict.what_is_identical(rows, ["the seed (recorded 0, now 1)"]) == [
        "data; every bit of them",
        "not compared, as MLflow has none: test/loss",
        "though not the same: the seed (recorded 0, now 1)",
    ]
    assert verdict.unexplained([*rows, Row("model", "1", "2", False)]) == [
        "model: other bits, from the same code, data and params"
    ]


def test_mlflow_has_another_model_or_metric():
    rows = [Row("model", "1", "1", True), Row("model in MLflow", "2", "1", False), Row("test/loss", "2", "1", False)]
    assert verdict.unexplained(rows) == ["model in MLflow, test/loss: MLflow has others than come of the same model"]


def test_table():
    text = verdict.lines_of_rows(
        [Row("data", "a", "a", True), Row("epochs 1-3", "2: b", "2: c", False), Row("test/loss", "missing", "1", None)]
    )
    assert text == [
        "            recorded  made again",
        "data        a         a           same",
        "epochs 1-3  2: b      2: c        DIFFERS",
        "test/loss   missing   1           -",
    ]


def tensors(**named):
    return save({name.replace("__", "."): torch.as_tensor(value) for name, value in named.items()})


def test_the_first_tensor_that_differs():
    one = tensors(model__b=[1.0, 2.0, 3.0], model__a=[0.0], optimizer__a=[1.0])
    assert verdict.first_tensor(one, one) is None
    other = tensors(model__b=[1.0, 2.5, 4.0], model__a=[0.0], optimizer__a=[2.0])
    assert verdict.first_tensor(one, other) == "model.b differs in 2 of 3 values, by at most 1; 1 more tensors differ"
    assert (
        verdict.first_tensor(one, tensors(model__b=[1.0, 2.0, 3.0], model__a=[-0.0], optimizer__a=[1.0]))
        == "model.a differs in 1 of 1 values, by at most 0"
    )
    assert (
        verdict.first_tensor(one, tensors(model__b=[1.0], model__a=[0.0], optimizer__a=[1.0]))
        == "model.b is there in one of them only, or in another shape"
    )
    assert (
        verdict.first_tensor(one, tensors(model__a=[0.0], optimizer__a=[1.0]))
        == "model.b is there in one of them only, or in another shape"
    )
    assert (
        verdict.first_tensor(tensors(a=torch.ones(2)), tensors(a=torch.ones(2).double()))
        == "a is torch.float32 in one of them, torch.float64 in the other"
    )


def test_odd_tensors():
    assert verdict.first_tensor(b"damaged", tensors(a=[1.0])) is None
    nan = tensors(a=[float("nan"), 1.0], b=torch.zeros(0, 3), c=torch.tensor(3), d=torch.tensor([True, False]))
    assert verdict.first_tensor(nan, nan) is None
    assert (
        verdict.first_tensor(tensors(c=torch.tensor(3)), tensors(c=torch.tensor(5)))
        == "c differs in 1 of 1 values, by at most 2"
    )
    assert (
        verdict.first_tensor(tensors(d=torch.tensor([True, False])), tensors(d=torch.tensor([True, True])))
        == "d differs in 1 of 2 values, by at most 1"
    )
