"""docs/notebook.md, run as a notebook would: its blocks in order, in one process, the value of each last line shown."""

import ast
import re
import shutil

import pytest

import surefoot
from tests.helpers import PROJECT, make_workspace

PAGE = (PROJECT / "docs/notebook.md").read_text()
RUN = re.compile("[0-9a-f]{32}")


def cells():
    """Each block of code, with what is shown right after it."""
    found = re.findall(r"^```python\n(.*?)^```$(?:\n\n((?:    [^\n]*\n)+))?", PAGE, re.MULTILINE | re.DOTALL)
    return [(code, re.sub("^    ", "", shown, flags=re.MULTILINE)) for code, shown in found]


def run_cell(code, names):
    """Run a cell; the value of its last line, or the error that ends it."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    try:
        exec(compile(tree, "cell", "exec"), names)
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    except surefoot.UserError as error:
        return error


@pytest.fixture
def project(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path / "project")
    shutil.copy(PROJECT / "params.yaml", workspace.path)
    workspace.git("commit", "--quiet", "--all", "--message=all epochs")
    (workspace / "notebooks").mkdir()
    monkeypatch.chdir(workspace / "notebooks")
    return workspace


@pytest.mark.slow
def test_the_page(project, capfd, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    names, compared = {}, 0
    for code, shown in cells():
        capfd.readouterr()
        value = run_cell(code, names)
        out = capfd.readouterr().out
        if not shown:
            assert not isinstance(value, Exception), value
            continue
        if isinstance(value, surefoot.UserError):
            said = "\n".join(value._render_traceback_()) + "\n"
        else:
            said = f"{value!r}\n" if value is not None else out
        assert RUN.sub("RUN", said) == RUN.sub("RUN", shown)
        compared += 1
    assert compared == 3
    assert len(project.trainings()) == 4
    assert project.git("status", "--porcelain") == ""
