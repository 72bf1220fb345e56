import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from surefoot.base.errors import UserError
from surefoot.params.given_values import given_values, put_values
from tests.helpers import PROJECT

TEXT = (PROJECT / "params.yaml").read_text()
VALUES = {
    "seed": 3,
    "train.lr": 0.1,
    "train.optimizer.name": "Adam",
    "train.model.arguments": {"hidden": [64, 32]},
    "prepare.missing.numeric": "mean",
    "prepare.kinds": {"zip": "category"},
}


def test_values_are_put_in_and_the_rest_stays():
    changed = put_values(
        TEXT,
        {
            "train.lr": 0.0123,
            "train.schedule.arguments.gamma": 0.5,
            "batch.size": 32,
            "train.model.arguments.hidden": [128, 64],
        },
    )
    before, after = (YAML(typ="safe").load(text) for text in (TEXT, changed))
    assert after["train"].pop("lr") == 0.0123
    assert after["train"]["schedule"]["arguments"].pop("gamma") == 0.5
    assert after["batch"].pop("size") == 32
    assert after["train"]["model"]["arguments"].pop("hidden") == [128, 64]
    del before["train"]["lr"], before["batch"]["size"], before["train"]["model"]["arguments"]["hidden"]
    assert after == before
    lines = set(TEXT.splitlines())
    assert len([line for line in changed.splitlines() if line not in lines]) == 5


def test_a_key_below_a_value_is_refused():
    with pytest.raises(UserError, match=r"^train\.lr\.x: lr in params\.yaml isn't a section"):
        put_values(TEXT, {"train.lr.x": 1})


@given(st.dictionaries(st.sampled_from(sorted(VALUES)), st.booleans()))
def test_keys_are_dotted_or_in_sections_and_both_mean_the_same(nested):
    """A mapping that is a value itself is taken whole: arguments of another network don't join those that are there."""
    told = {}
    for key, in_sections in nested.items():
        place, *sections, name = told, *(key.split(".") if in_sections else [key])
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = VALUES[key]
    assert given_values(told) == {key: VALUES[key] for key in nested}


def test_numbers_of_numpy_and_tuples():
    found = given_values({"train": {"lr": np.float32(0.5)}, "train.epochs": np.int64(3), "batch.shape": (1, 8, 8)})
    assert json.dumps(found) == '{"train.lr": 0.5, "train.epochs": 3, "batch.shape": [1, 8, 8]}'


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"train.lr": 0.1, "train": {"lr": 0.2}}, "train.lr: given twice; keep one"),
        ({"train": {1: 2}}, "train.1: a key is text, as 'train.lr'"),
        ({"train.lr": {0.1}}, "train.lr: a set can't stand in params.yaml; numbers, texts, "),
        ({"train.lr": np.ones(2)}, "train.lr: a ndarray can't stand in params.yaml; "),
    ],
)
def test_mistakes(told, error):
    with pytest.raises(UserError) as refused:
        given_values(told)
    assert str(refused.value).startswith(error)
