"""dvc.yaml says what each stage depends on; here the same is derived from the source, and compared."""

import ast
import os
import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from surefoot.params import Params
from tests.deps import PROJECT, SRC, STAGES, trees

DVC = YAML(typ="safe").load(PROJECT / "dvc.yaml")


def attribute_chain(node):
    """`params.train.lr` as ["params", "train", "lr"]; None for what isn't names joined by dots."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else None


def sections_used(stage):
    """The top-level keys of params.yaml that the code of a stage reads, by `params.X`."""
    used = set()
    for name, tree in trees(stage).items():
        if name == "src/surefoot/params.py":
            continue
        for node in ast.walk(tree):
            chain = attribute_chain(node) if isinstance(node, ast.Attribute) else None
            if chain and chain[0] == "params" and chain[1] in Params.model_fields:
                used.add(chain[1])
    return used


def test_there_are_four_stages():
    assert tuple(DVC["stages"]) == STAGES
    assert {file.stem for file in (SRC / "surefoot" / "stages").glob("*.py")} == {"__init__", *STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_source_files_that_it_uses(stage):
    named = [dep for dep in DVC["stages"][stage]["deps"] if dep.startswith("src/surefoot/")]
    assert named == sorted(trees(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_networks_where_it_builds_one(stage):
    assert ("src/networks" in DVC["stages"][stage]["deps"]) == (stage in ("train", "evaluate"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_params_that_it_uses(stage):
    named = set(DVC["stages"][stage]["params"])
    assert {name.partition(".")[0] for name in named} == sections_used(stage)
    # A section whose keys are named one by one is named whole.
    for section in {name.partition(".")[0] for name in named if "." in name}:
        keys = Params.model_fields[section].annotation.model_fields
        assert {name for name in named if name.startswith(f"{section}.")} == {f"{section}.{key}" for key in keys}


def test_data_flows_one_way():
    outs = {}
    for stage, what in DVC["stages"].items():
        for dep in what["deps"]:
            if not dep.startswith(("src/", "data/raw")):
                assert dep in outs, f"{stage} depends on {dep}, which no earlier stage makes"
        outs |= dict.fromkeys([*what["outs"], *what.get("metrics", [])], stage)
    used = {dep for what in DVC["stages"].values() for dep in what["deps"]}
    assert "data/raw" in DVC["stages"]["prepare"]["deps"]
    assert {out for out, stage in outs.items() if out not in used and stage != "evaluate"} == set()


def test_packages_hold_nothing_but_a_docstring():
    """So that importing a module runs no code of a file that dvc.yaml does not name."""
    for file in SRC.rglob("__init__.py"):
        body = ast.parse(file.read_text()).body
        assert len(body) == 1, file
        assert isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant), file


def test_no_value_goes_into_a_command():
    """DVC does not quote what it puts there."""
    for stage in DVC["stages"].values():
        assert not re.search(r"\$\{", stage["cmd"])


def test_commands_run_the_python_of_the_environment():
    for name, stage in DVC["stages"].items():
        assert stage["cmd"] == f'exec env PYTHONPATH=src "$DVC_ROOT"/.venv/bin/python -m surefoot.stages.{name}'


def test_the_names_that_the_outside_relies_on():
    keys = {"seed", "numerics", "prepare.source", "prepare.target", "batch.size", "train.lr", "train.epochs", "train.momentum", "train.model"}
    for key in keys:
        section = Params
        for part in key.split("."):
            assert part in section.model_fields, key
            section = section.model_fields[part].annotation
    outs = {name: [*stage["outs"], *stage.get("metrics", [])] for name, stage in DVC["stages"].items()}
    assert outs["prepare"] == ["data/prepared"]
    assert outs["batch"] == ["data/batches"]
    assert {"models/model.safetensors", "reports/history.csv"} <= set(outs["train"])
    assert "reports/metrics.json" in outs["evaluate"]
    assert DVC["stages"]["evaluate"]["metrics"] == ["reports/metrics.json"]
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {"repro", "test", "check", "ui", "bench"} <= targets


def test_prepare_and_batch_import_nothing_slow(here):
    here.csv()
    code = "import sys; from surefoot.stages.{0} import main; main(); print(*sys.modules, file=sys.stderr)"
    for stage in ("prepare", "batch"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(stage)], env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True
        )
        loaded = set(done.stderr.split())
        assert "numpy" in loaded
        assert not loaded & {"torch", "mlflow", "pandas", "matplotlib", "dvc"}, stage
