"""DVC looks at what dvc.yaml names: here it is all code of the user's that a stage calls, and every params.yaml that is
right.
"""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from surefoot.base import paths
from surefoot.params import dvc_yaml
from surefoot.params.params_yaml import load_params
from tests.helpers import PROJECT, make_workspace

PREPARED = """\
prepare:
  source: sources.readers:rows
  target: digit
batch: {shape: [1, 8, 8]}
train:
  model: {factory: "networks.mine:build"}
  loss: {name: "sources.losses:softly"}
  schedule: {name: "sources.schedules:falls"}
  epochs: 2
  lr: 0.05
"""
CODE = {
    "src/sources/readers.py": (
        "from pyarrow import csv\n\nfrom reading import OPTIONS\n\n\n"
        "def rows():\n    return csv.read_csv('data/raw/digits.csv', **OPTIONS)\n"
    ),
    "src/reading.py": "OPTIONS = {}\n",
    "src/sources/losses.py": (
        "from torch import nn\n\nfrom .smoothing import SMOOTHING\n\n\n"
        "def softly():\n    return nn.CrossEntropyLoss(label_smoothing=SMOOTHING)\n"
    ),
    "src/sources/smoothing.py": "SMOOTHING = 0.1\n",
    "src/sources/schedules.py": "def falls(n):\n    from helpers import halved\n    return halved(n)\n",
    "src/helpers.py": (
        "import shapes.sizes\n\n\ndef halved(n):\n    return 0.5**n\n\n\ndef width():\n    return shapes.sizes.WIDTH\n"
    ),
    "src/shapes/__init__.py": "",
    "src/shapes/sizes.py": (
        "import json\nfrom pathlib import Path\n\nWIDTH ="
        " json.loads(Path(__file__).with_name('width.json').read_text())\n"
    ),
    "src/shapes/width.json": "16",
    "src/networks/mine.py": (
        "from torch import nn\n\nimport helpers\n\n\ndef build(input_shape, outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, helpers.width()), nn.Linear(helpers.width(), outputs))\n"
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A workspace with code of the user's in all places, and a short params.yaml; the pipeline was run."""
    workspace = make_workspace(tmp_path_factory.mktemp("watched") / "project")
    for name, text in CODE.items():
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text(text)
    (workspace / "params.yaml").write_text(PREPARED)
    workspace.refused = workspace.stage("prepare", check=False).refused()
    workspace.checked = workspace.run(".venv/bin/python", "-m", "surefoot", "check", PYTHONPATH="src").out
    workspace.dvc("repro")
    return workspace


def identities(project):
    return {path.stem for path in (project / ".surefoot/runs").glob("*.json")}


def test_a_reader_from_elsewhere_is_refused_until_dvc_is_told_of_it(project):
    assert project.refused.startswith(
        "error: src/reading.py: prepare calls this code, but doesn't depend on it in dvc.yaml"
    )
    assert "dvc.yaml: src/reading.py: added to what prepare depends on" in project.checked.splitlines()
    lines, before = (project / "dvc.yaml").read_text().splitlines(), (PROJECT / "dvc.yaml").read_text().splitlines()
    (changed,) = [(old, new) for old, new in zip(before, lines, strict=True) if old != new]
    assert changed[1] == changed[0].replace("prepare.py]", "prepare.py, src/reading.py]")


def test_what_has_a_default_and_dvc_must_find_is_added(project):
    assert (
        "params.yaml: added seed: 0, batch.size: 64, train.start_from: null: the default, which DVC needs to find there"
        in project.checked.splitlines()
    )
    added = PREPARED.replace("{shape", "{size: 64, shape").replace("train:\n", "train:\n  start_from: null\n")
    assert (project / "params.yaml").read_text() == "seed: 0\n" + added


def test_an_edit_of_each_is_seen_by_the_stages_that_call_it(project):
    readers, all_three = {"prepare", "train", "evaluate"}, {"train", "evaluate"}
    repo = Repo(str(project.path))
    assert repo.status() == {}
    for name, text in CODE.items():
        path = project / name
        path.write_text(f"{text}\n")
        wanted = readers if name.startswith("src/sources/") or name == "src/reading.py" else all_three
        wanted = wanted | {"start_from"} if name.startswith("src/sources/") else wanted  # other rows may come of it
        assert {stage.rpartition(":")[2] for stage in repo.status()} == wanted, name
        path.write_text(text)
    assert repo.status() == {}
    (project / "src/networks/.mine.py.swp").write_text("what an editor leaves")
    assert Repo(str(project.path)).status() == {}


def test_an_edited_schedule_is_another_run(project):
    before, model = identities(project), (project / "models/model.safetensors").read_bytes()
    (project / "src/helpers.py").write_text(CODE["src/helpers.py"].replace("0.5", "0.9"))
    done = project.dvc("repro", "train")
    (project / "src/helpers.py").write_text(CODE["src/helpers.py"])
    assert "Running stage 'train'" in done.out and "Running stage 'prepare'" not in done.out
    assert (project / "models/model.safetensors").read_bytes() != model
    assert len(identities(project) - before) == 1


def test_the_model_in_mlflow_carries_all_of_its_code(project):
    models = list((project / "mlartifacts").rglob("MLmodel"))
    assert models
    for model in models:
        assert {path.name for path in (model.parent / "code").iterdir()} == {
            "networks",
            "helpers.py",
            "shapes",
            "surefoot",
        }


# --- What `check` takes, DVC takes ---------------------------------------------------------------

LEAST = {
    "prepare": {"source": "sklearn:wine", "target": "target"},
    "train": {"model": {"factory": "networks.mlp:mlp"}, "epochs": 1, "lr": 0.1},
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    path = tmp_path_factory.mktemp("repo")
    (path / "dvc.yaml").write_text((PROJECT / "dvc.yaml").read_text())
    Repo.init(str(path), no_scm=True).close()
    return path


def dvc_takes(path, text):
    """Whether every stage finds its params, as `dvc repro` looks for them."""
    (path / "params.yaml").write_text(text)
    dvc_yaml.add_what_dvc_needs()
    params = load_params(paths.PARAMS)
    for stage in Repo(str(path)).index.stages:
        for dep in stage.deps:
            if hasattr(dep, "params"):
                dep.save()
    return params


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "batch: {}",
        "batch:\n  shape: [13]",
        "batch:\n    # a comment\n    shape: [13]  # another",
        "seed: 3",
        "batch: {size: 5}",
        "threads: 2\nbatch:\n  window: 3",
        "# first\n\n\nnumerics: native",
    ],
)
def test_a_params_file_without_what_has_a_default(repo, monkeypatch, text):
    monkeypatch.chdir(repo)
    rest = "".join(f"{key}: {json.dumps(value)}\n" for key, value in LEAST.items())
    text = rest if text == "{}" else f"{text}\n{rest}"
    params = dvc_takes(repo, text)
    given = YAML(typ="safe").load(text)
    assert (params.seed, params.batch.size) == (given.get("seed", 0), given.get("batch", {}).get("size", 64))
    written = (repo / "params.yaml").read_text()
    assert set(text.splitlines()) - set(written.splitlines()) <= {"batch: {}", f"train: {json.dumps(LEAST['train'])}"}
    assert dvc_yaml.add_what_dvc_needs() == []


def test_a_params_file_in_one_line(repo, monkeypatch):
    monkeypatch.chdir(repo)
    assert dvc_takes(repo, json.dumps(LEAST)).batch.size == 64


def test_a_section_that_is_an_alias(repo, monkeypatch):
    monkeypatch.chdir(repo)
    rest = "".join(f"{key}: {json.dumps(value)}\n" for key, value in LEAST.items())
    assert dvc_takes(repo, f"{rest}batch: &b {{block: 5}}\n").batch.size == 64


@pytest.mark.parametrize("page", ["data.md", "learning-rate.md"])
def test_the_examples_of_a_page(repo, monkeypatch, page):
    """A block on a page is what it says and defaults; the rest of what must be there comes from params.yaml."""
    monkeypatch.chdir(repo)
    lines = (PROJECT / "docs" / page).read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    blocks = ["\n".join(lines[begin + 1 : end]) for begin, end in pairwise(fences) if lines[begin] == "```yaml"]
    assert blocks
    for block in blocks:
        given = YAML(typ="safe").load(block)
        rest = "".join(f"{key}: {json.dumps(value)}\n" for key, value in LEAST.items() if key not in given)
        if "train" in given:
            given["train"] = LEAST["train"] | given["train"]
            block = json.dumps(given)
            rest = "" if "prepare" in given else f"prepare: {json.dumps(LEAST['prepare'])}"
            block, rest = json.dumps(given | YAML(typ="safe").load(rest or "{}")), ""
        try:
            dvc_takes(repo, f"{block}\n{rest}")
        except ModuleNotFoundError:
            pytest.fail(block)
    assert Path("dvc.yaml").read_text() == (PROJECT / "dvc.yaml").read_text()
