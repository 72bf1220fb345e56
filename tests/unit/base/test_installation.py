"""What is installed by itself, and what by an extra, is what the code imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from surefoot.base import installation
from tests.helpers import PROJECT

DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
# What one use alone imports: by package, the extra that brings it.
BY_EXTRA = {"onnx": "onnx", "onnxruntime": "onnx", "optuna": "search", "scikit-learn": "sklearn"}
COME_WITH = {"pydantic-core": "pydantic", "requests": "mlflow-skinny"}  # used for what the other gives or takes
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


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "/clone/src/surefoot/base/installation.py",
            ".venv/bin/python -m pip install --constraint requirements.txt -e '.[ui]'",
        ),
        ("/x/.venv/lib/python3.12/site-packages/surefoot/base/installation.py", "pip install 'surefoot[ui]'"),
    ],
)
def test_the_command_is_that_of_a_clone_or_of_a_package(monkeypatch, place, told):
    monkeypatch.setattr(installation, "__file__", place)
    assert installation.install_command("ui") == told
