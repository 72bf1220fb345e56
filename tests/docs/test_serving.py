"""The examples of docs/serving.md, run as they stand there."""

import json
import re
import shlex
import sys

import pytest
from ruamel.yaml import YAML

from surefoot import cli
from surefoot.params.params_yaml import load_params
from tests.docs.test_data import ran, set_up
from tests.helpers import PROJECT
from tests.unit.serving.test_mlflow_model import app

PAGE = (PROJECT / "docs/serving.md").read_text()
FLOWERS = "prepare: {source: data/raw/flowers.csv, target: species}\n"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def flowers(tracked, monkeypatch):
    """A run on the flowers, registered as the page says."""
    set_up(tracked, monkeypatch, FLOWERS)
    text = (tracked / "params.yaml").read_text()
    (registered,) = (YAML(typ="safe").load(block)["train"] for block in blocks("yaml") if "register" in block)
    with (tracked / "params.yaml").open("w") as file:
        params = YAML(typ="safe").load(text)
        params["train"] |= registered
        YAML().dump(params, file)
    for stage in ("prepare", "batch", "train"):
        ran(tracked, stage)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")
    return tracked


def test_the_examples(flowers, monkeypatch, capfd):
    (run,) = flowers.runs()
    assert run.data.tags["surefoot.registered"] == f"flowers@newest {run.data.tags['surefoot.model_id']}"
    (code,) = blocks("python")
    names = {"model_id": run.data.tags["surefoot.model_id"]}
    exec(code, names)
    assert list(names["predictions"]) == ["prediction", "probability_daisy", "probability_rose", "probability_tulip"]

    (flowers / "new.csv").write_text((flowers / "data/raw/flowers.csv").read_text())
    commands = re.findall(r"^    (surefoot predict [^#\n]*)", PAGE, re.MULTILINE)
    assert len(commands) == 4
    printed = set()
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(re.sub("[0-9a-f]{32}", run.info.run_id, command)))
        cli.main()
        for out in (flowers / "predictions.csv", flowers / "predictions.parquet"):
            if out.exists():
                printed |= {out.read_text()} if out.suffix == ".csv" else set()
                out.unlink()
        printed |= {out for out in [capfd.readouterr().out] if out.startswith("length")}
    (same,) = printed
    lines = same.splitlines()
    shown = re.search(r"^    (length,.*)\n    (.*)$", PAGE, re.MULTILINE)
    assert lines[:2] == [shown[1], shown[2]]

    (curl,), (answer,) = blocks("sh"), blocks("json")
    arguments = shlex.split(curl)
    with app(names["model"]) as server:
        (given,) = server.predictions(json.loads(arguments[arguments.index("-d") + 1]))
    assert given == pytest.approx(json.loads(answer)["predictions"][0])


def test_its_params_are_right(flowers):
    for block in blocks("yaml"):
        params = YAML(typ="safe").load((flowers / "params.yaml").read_text())
        params["train"] |= YAML(typ="safe").load(block)["train"]
        with (flowers / "params.yaml").open("w") as file:
            YAML().dump(params, file)
        load_params(flowers / "params.yaml")
