"""dvc.yaml says what each stage depends on; here the same is derived from the source, and compared."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from dvc.utils.serialize import parse_yaml
from ruamel.yaml import YAML

from surefoot.base import installation
from surefoot.base.errors import UserError
from surefoot.params import dvc_yaml
from surefoot.params.sections import Params
from tests.helpers import PROJECT

DVC = YAML(typ="safe").load(PROJECT / "dvc.yaml")
SRC = PROJECT / "src"
STAGES = ("start_from", "prepare", "batch", "train", "evaluate")


def module_file(name):
    """The source file of a module of surefoot's; None for a package, which must hold nothing."""
    path = SRC.joinpath(*name.split("."))
    if (path / "__init__.py").is_file():
        return None
    file = path.with_suffix(".py")
    return file if file.is_file() else None


def trees(stage):
    """The syntax tree of each source file that a stage needs, itself included, by path."""
    found = {}

    def visit(file):
        name = file.relative_to(PROJECT).as_posix()
        if name in found:
            return
        found[name] = ast.parse(file.read_text())
        for node in ast.walk(found[name]):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}:{node.lineno}: a relative import, which this does not follow"
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for imported in names:
                if imported.split(".")[0] == "surefoot" and (needed := module_file(imported)):
                    visit(needed)

    visit(SRC / "surefoot" / "stages" / f"{stage}.py")
    return found


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
        if name.startswith("src/surefoot/params/"):  # which looks at the params of all stages
            continue
        for node in ast.walk(tree):
            chain = attribute_chain(node) if isinstance(node, ast.Attribute) else None
            if chain and chain[0] == "params" and chain[1] in Params.model_fields:
                used.add(chain[1])
    return used


def test_the_stages():
    assert tuple(DVC["stages"]) == STAGES
    assert {file.stem for file in (SRC / "surefoot" / "stages").glob("*.py")} == {"__init__", *STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_the_code_that_it_runs(stage):
    """On the folders of it, and on no file or folder of Surefoot's that it runs nothing of."""
    deps = [PurePosixPath(dep) for dep in DVC["stages"][stage]["deps"]]
    needed = [PurePosixPath(name) for name in trees(stage)]
    assert [str(name) for name in needed if not any(name.is_relative_to(dep) for dep in deps)] == []
    assert [
        str(dep) for dep in deps if "surefoot" in dep.parts and not any(name.is_relative_to(dep) for name in needed)
    ] == []


def test_user_code_is_watched_where_it_is_called():
    """prepare calls readers; train and evaluate networks, losses and schedules, and whatever these import from src."""
    src = {
        stage: {dep for dep in what["deps"] if dep.startswith("src") and "surefoot" not in dep}
        for stage, what in DVC["stages"].items()
    }
    assert src == {
        "start_from": {"src/sources"},
        "prepare": {"src/sources"},
        "batch": set(),
        "train": {"src"},
        "evaluate": {"src"},
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_params_that_it_uses(stage):
    named = DVC["stages"][stage]["params"]
    if named == [{"params.yaml": None}]:  # all of them
        return
    # prepare looks at batch.shape to refuse one that can't fit, and at nothing else of that section: what it writes
    # doesn't depend on it.
    used = sections_used(stage) - ({"batch"} if stage == "prepare" else set())
    assert {name.partition(".")[0] for name in named} == used
    # A section is named whole, so that a key that is left out does no harm.
    assert used <= set(named) | {name.partition(".")[0] for name in dvc_yaml.BY_NAME if name in named}


def test_what_a_stage_names_is_always_there():
    named = {name for stage in DVC["stages"].values() for name in stage["params"] if isinstance(name, str)}
    required = {name for name, field in Params.model_fields.items() if field.is_required()}
    assert named - required - set(dvc_yaml.BY_NAME) == {"batch"}
    assert "batch.size" in dvc_yaml.BY_NAME, "which brings batch along"


def test_a_key_named_size_or_nfiles_is_named_by_itself():
    """DVC's run cache overlooks keys of these names in a section (dvc issue 10296)."""
    assert {name for name in Params.model_fields["batch"].annotation.model_fields if name in ("size", "nfiles")} == {
        "size"
    }
    assert "batch.size" in DVC["stages"]["batch"]["params"]


def outputs(stage):
    return [
        path
        for out in (*stage["outs"], *stage.get("metrics", []))
        for path in (out if isinstance(out, dict) else [out])
    ]


def test_data_flows_one_way():
    outs = {}
    for stage, what in DVC["stages"].items():
        for dep in what["deps"]:
            if dep != "src" and not dep.startswith(("src/", "data/raw")):
                assert any(PurePosixPath(dep).is_relative_to(out) for out in outs), (
                    f"{stage} depends on {dep}, which no earlier stage makes"
                )
        outs |= dict.fromkeys(outputs(what), stage)
    used = {dep for what in DVC["stages"].values() for dep in what["deps"]}
    assert "data/raw" in DVC["stages"]["prepare"]["deps"]
    assert {out for out, stage in outs.items() if out not in used and stage != "evaluate"} == set()


def test_packages_hold_nothing_but_a_docstring():
    """So that importing a module runs no code of a file that dvc.yaml does not name."""
    for file in SRC.rglob("__init__.py"):
        body = ast.parse(file.read_text()).body
        # How a stage's process ends is settled before its imports, by base; MLflow's models name `surefoot.serving`;
        # no stage calls `surefoot.run`.
        if file.parent.name in ("stages", "serving", "surefoot"):
            continue
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
    keys = {
        "seed",
        "numerics",
        "prepare.source",
        "prepare.target",
        "batch.size",
        "train.lr",
        "train.epochs",
        "train.momentum",
        "train.model",
    }
    for key in keys:
        section = Params
        for part in key.split("."):
            assert part in section.model_fields, key
            section = section.model_fields[part].annotation
    outs = {name: outputs(stage) for name, stage in DVC["stages"].items()}
    assert outs["prepare"] == ["data/prepared"]
    assert outs["batch"] == ["data/batches"]
    assert {"models/model.safetensors", "models/run.json", "reports/history.csv"} <= set(outs["train"])
    assert "reports/metrics.json" in outs["evaluate"]
    assert DVC["stages"]["evaluate"]["metrics"] == ["reports/metrics.json"]
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {"repro", "test", "check", "ui", "bench"} <= targets


def test_prepare_and_batch_import_nothing_slow(here):
    here.csv()
    code = "import sys; from surefoot.stages.{0} import main; main(); print(*sys.modules, file=sys.stderr)"
    for stage in ("start_from", "prepare", "batch"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(stage)],
            env={**os.environ, "PYTHONPATH": str(SRC)},
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(done.stderr.split())
        assert "numpy" in loaded
        assert not loaded & {"torch", "mlflow", "pandas", "matplotlib", "dvc"}, stage


@pytest.mark.parametrize(
    ("deps", "after"),
    [
        ("[a, b] # c", "[a, b, src/x.py] # c"),
        ("[a,\n      'b', # c\n    ]", "[a,\n      'b', src/x.py, # c\n    ]"),
        ("\n    - a # c\n    - b", "\n    - src/x.py\n    - a # c\n    - b"),
        ("\n      # c\n      -   a", "\n      # c\n      - src/x.py\n      -   a"),
        ("&deps\n    - a", "&deps\n    - src/x.py\n    - a"),
        ("[a]\n    <<: {frozen: true}", "[a, src/x.py]\n    <<: {frozen: true}"),
    ],
)
def test_a_dependency_is_added_where_the_others_are(tmp_path, monkeypatch, deps, after):
    monkeypatch.chdir(tmp_path)
    text = "# é\nstages:\n  train: # b\n    cmd: x\n    deps: {}\n    outs: [c]\n  evaluate: {{cmd: y, deps: [z]}}\n"
    Path("dvc.yaml").write_text(text.format(deps))
    dvc_yaml._add_dependencies({"train": ["src/x.py"], "evaluate": ["src/x.py", "src/y, z.py"]})
    expected = text.format(after).replace("[z]", '[z, src/x.py, "src/y, z.py"]')
    assert Path("dvc.yaml").read_text() == expected
    assert parse_yaml(expected, "dvc.yaml")["stages"]["evaluate"]["deps"] == ["z", "src/x.py", "src/y, z.py"]


def test_a_byte_order_mark_stays_and_moves_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("\ufeffstages:\n  train: {deps: [a]}\n")
    dvc_yaml._add_dependencies({"train": ["src/x.py"]})
    assert Path("dvc.yaml").read_text() == "\ufeffstages:\n  train: {deps: [a, src/x.py]}\n"
    text = (PROJECT / "params.yaml").read_text()
    Path("params.yaml").write_text("\ufeff" + re.sub(r"(?m)^seed:.*\n", "", text))
    assert dvc_yaml.add_what_dvc_needs() == ["params.yaml: added seed: 0: the default, which DVC needs to find there"]
    assert Path("params.yaml").read_text().startswith("\ufeff")


def test_the_version_is_added_where_a_stage_depends_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "installed_version", lambda: "2.3.0")
    text = (PROJECT / "params.yaml").read_text()
    Path("params.yaml").write_text(text)
    Path("dvc.yaml").write_text("stages:\n  batch: {cmd: x, params: [seed, batch]}\n  train: {cmd: y}\n")
    assert dvc_yaml.add_what_dvc_needs() == []
    Path("dvc.yaml").write_text("stages:\n  batch: {cmd: x, params: [surefoot, seed, batch]}\n")
    (said,) = dvc_yaml.add_what_dvc_needs()
    assert said == "params.yaml: added surefoot: 2.3.0: the default, which DVC needs to find there"
    assert Path("params.yaml").read_text() == text.replace("seed: 0", "surefoot: 2.3.0\nseed: 0")
    assert dvc_yaml.add_what_dvc_needs() == []


def test_a_list_that_two_stages_share_gets_it_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages:\n  train: {deps: &deps [a]}\n  evaluate: {deps: *deps}\n")
    dvc_yaml._add_dependencies({"train": ["src/x.py"], "evaluate": ["src/x.py"]})
    assert Path("dvc.yaml").read_text() == "stages:\n  train: {deps: &deps [a, src/x.py]}\n  evaluate: {deps: *deps}\n"


def test_a_list_that_nothing_can_be_put_into_is_for_the_user_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "stages:\n  train:\n    deps: []\n    cmd: x\n"
    Path("dvc.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^dvc.yaml: train must depend on src/x.py; name it in its deps$"):
        dvc_yaml._add_dependencies({"train": ["src/x.py"]})
    assert Path("dvc.yaml").read_text() == text
