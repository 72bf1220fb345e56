"""What is installed by itself, and what by an extra, is what the code imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from surefoot.base import installation, user_code
from surefoot.run.processes import same_work
from tests.helpers import PROJECT

DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
# What one use alone imports: by package, the extra that brings it.
BY_EXTRA = {"onnx": "onnx", "onnxruntime": "onnx", "optuna": "search", "scikit-learn": "sklearn"}
# Used for what the other gives or takes.
COME_WITH = {"configobj": "dvc", "pydantic-core": "pydantic", "requests": "mlflow-skinny"}
PACKAGED = "/x/.venv/lib/python3.12/site-packages/surefoot/base/installation.py"
OURS = {"surefoot", "networks", "sources"}


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported():
    """The top packages that code in src imports, and the files that do."""
    found = {}
    for path in (PROJECT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            for module in modules:
                found.setdefault(module.partition(".")[0], set()).add(path.relative_to(PROJECT).as_posix())
    return {top: files for top, files in found.items() if top not in OURS | sys.stdlib_module_names}


def test_what_the_code_imports_is_a_direct_dependency_or_an_extra():
    of_top, direct = packages_distributions(), names(DECLARED["dependencies"])
    found = imported()
    assert {"torch", "mlflow", "dvc", "sklearn"} <= found.keys()
    for top, files in found.items():
        brought = {COME_WITH.get(name, name) for name in map(canonicalize_name, of_top[top])}
        by_extra = {BY_EXTRA[name] for name in brought & BY_EXTRA.keys()}
        assert brought & direct or by_extra, f"{top}, which {', '.join(sorted(files))} imports, is no dependency"
        for extra in by_extra:
            assert brought & names(DECLARED["optional-dependencies"][extra])


def test_each_extra_that_a_message_names_is_there():
    texts = [path.read_text() for path in (PROJECT / "src").rglob("*.py")]
    named = {extra for text in texts for extra in re.findall(r"install_command\(['\"](\w+)", text)}
    assert {"onnx", "search", "sklearn", "ui"} <= named
    assert named <= DECLARED["optional-dependencies"].keys()
    everything = Requirement(DECLARED["optional-dependencies"]["dev"][-1])
    assert named <= everything.extras, "who develops has them all"


def test_without_pip_it_is_uvs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    monkeypatch.setattr(installation, "__file__", PACKAGED)
    assert installation.install_command("s3") == "uv pip install --python '/my env/bin/python' 'surefoot[s3]'"


def test_what_is_ours_is_named_by_its_file_in_a_clone_and_by_its_module_in_a_package(monkeypatch):
    name = "surefoot.stages.train"
    assert installation.source_name(name) == "src/surefoot/stages/train.py"
    monkeypatch.setattr(installation, "__file__", PACKAGED)
    assert installation.source_name(name) == name


def test_a_package_has_no_makefile(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (installation.command("ui"), installation.script("mlflow")) == ("make ui", ".venv/bin/mlflow")
    monkeypatch.setattr(installation, "__file__", PACKAGED)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python"))
    assert (installation.command("ui"), installation.script("mlflow")) == ("surefoot ui", "env/bin/mlflow")


def test_an_error_in_a_network_that_comes_along_names_its_line(monkeypatch):
    """In a package, too, where no other line of ours is shown."""
    package = str(Path(PACKAGED).parents[1])
    monkeypatch.setattr(user_code, "HERE", package)
    monkeypatch.setattr(user_code, "NETWORKS", f"{package}/networks")
    assert user_code._is_shown(f"{package}/networks/cnn.py")
    assert user_code._is_shown("/home/me/src/networks/mine.py")
    assert not user_code._is_shown(f"{package}/training/step.py")
    assert not user_code._is_shown("/x/.venv/lib/python3.12/site-packages/torch/nn/modules/module.py")


def test_machines_compare_an_installed_surefoot_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = ("src/mine.py", "site/surefoot/training/step.py", "site/surefoot/__pycache__/step.pyc")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    assert list(same_work._source_digests()) == ["src/mine.py"]
    monkeypatch.setattr(installation, "package_folder", lambda: tmp_path / "site/surefoot")
    assert list(same_work._source_digests()) == ["src/mine.py", "surefoot/training/step.py"]


def test_the_versions_of_a_clone_are_within_the_ranges_of_the_package():
    locked = dict(line.split("==") for line in (PROJECT / "requirements.txt").read_text().splitlines())
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    asked = [*DECLARED["dependencies"], *(line for some in DECLARED["optional-dependencies"].values() for line in some)]
    for requirement in map(Requirement, asked):
        if requirement.name != "surefoot":
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "/clone/src/surefoot/base/installation.py",
            ".venv/bin/python -m pip install --constraint requirements.txt -e '.[ui]'",
        ),
        (PACKAGED, ".venv/bin/python -m pip install 'surefoot[ui]'"),
    ],
)
def test_the_command_is_that_of_a_clone_or_of_a_package(monkeypatch, tmp_path, place, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setattr(installation, "__file__", place)
    assert installation.install_command("ui") == told
