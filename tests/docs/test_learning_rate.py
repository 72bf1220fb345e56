"""The examples of docs/learning-rate.md, run as they stand there on small data."""

import re
import sys
import types

import pytest
from ruamel.yaml import YAML

from surefoot.base import errors, writing
from surefoot.commands.schedule import main
from tests.helpers import PROJECT

PAGE = (PROJECT / "docs/learning-rate.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def given(example):
    return YAML(typ="safe").load(example)


@pytest.fixture
def drawn(here, monkeypatch, capfd):
    """Draw the schedule of an example; returns what is printed."""
    for name in ("sources", "sources.schedules"):
        module = types.ModuleType(name)
        exec("\n".join(CODE), module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)

    def draw_it(example):
        params = {"prepare": {"source": "raw.csv", "target": "kind"}, "batch": {"size": 4}}
        params["train"] = {"model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [5]}}, "lr": 0.01}
        for section, values in given(example).items():
            params[section] |= values
        with (here / "params.yaml").open("w") as file:
            YAML().dump(params, file)
        here.csv()
        for stage in ("prepare", "batch"):
            done = here.stage(stage)
            assert done.code == 0, done
        errors.run_process(lambda: main(None))
        assert (here / ".surefoot/schedule.png").stat().st_size > 1000
        return capfd.readouterr().out

    return draw_it


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=[f"{number}-{' '.join(example.split()[-3:])}" for number, example in enumerate(EXAMPLES)]
)
def test_an_example(drawn, example):
    """Its network, optimizer, schedule and step are made, and the schedule is drawn."""
    params = given(example)
    assert params.keys() <= {"batch", "train"}
    out = drawn(example)
    follows = "ReduceLROnPlateau" in example
    assert ("isn't known before" in out) == follows
    epochs = 1 if follows else params["train"]["epochs"]
    assert f" steps in {epochs} epochs of " in out


def test_what_the_page_says_of_them(drawn):
    found = {}
    for example in EXAMPLES:
        found |= {
            name: drawn(example)
            for name in ("StepLR", "LinearLR", "OneCycleLR", "inverse_root", "lr_reference_batch", "1.weight")
            if name in example
        }
    assert "lr: first 0.01, highest 0.01 (step 1), last 0.0001\n" in found["StepLR"]
    assert "lr: first 0.001, highest 0.1 (step 101), last " in found["LinearLR"]
    assert "momentum: " in found["OneCycleLR"]
    assert f"last {0.01 * (5 / 29) ** 0.5:.4g}\n" in found["inverse_root"]
    assert "lr: first 0.01, highest 0.01 (step 1), last 0.01\n" in found["lr_reference_batch"]
    assert "lr of *.bias: first 0.01," in found["1.weight"]
    assert "lr of 1.weight: first 0.001," in found["1.weight"]


def test_the_readme_leads_here():
    assert "(docs/learning-rate.md)" in (PROJECT / "README.md").read_text()
    for picture in re.findall(r"\((images/[^)]+)\)", PAGE):
        assert (PROJECT / writing.Path("docs") / picture).is_file()
