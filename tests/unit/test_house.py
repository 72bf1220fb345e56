"""The rooms of src/surefoot stay as they were built: what lies at the top, how long a function is, one name a thing."""

import ast
from collections import defaultdict

from tests.helpers import PROJECT

HOUSE = PROJECT / "src/surefoot"
LONGEST = 50  # lines of a function
SAME_NAMES = {
    "main": "each stage, and each module that runs as a process of its own, begins there",
}
SAYS_NOTHING = {"utils", "util", "helpers", "common", "misc"}


def modules():
    return {path.relative_to(HOUSE).as_posix(): ast.parse(path.read_text()) for path in sorted(HOUSE.rglob("*.py"))}


def test_at_the_top_lie_the_command_line_and_folders():
    top = {path.name for path in HOUSE.iterdir() if path.is_file()}
    assert top == {"__init__.py", "__main__.py", "cli.py"}


def test_no_function_is_longer_than_fits_on_a_screen():
    functions = [
        (name, node)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 500
    assert [
        f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, node in functions
        if node.end_lineno - node.lineno + 1 > LONGEST
    ] == []


def test_no_two_things_have_one_name():
    where = defaultdict(list)
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name)
    same = {name: places for name, places in where.items() if len(places) > 1}
    assert {name: places for name, places in same.items() if name not in SAME_NAMES} == {}
    assert same.keys() == SAME_NAMES.keys(), "a name that is no longer allowed twice needs no reason"


def test_each_module_says_what_it_is_for():
    assert [name for name in modules() if set(name.removesuffix(".py").split("/")) & SAYS_NOTHING] == []
    assert [name for name, tree in modules().items() if name != "__main__.py" and not ast.get_docstring(tree)] == []
