"""The code that a run calls and that its key has: modules of this repository, with those that they import and the data
files beside them; and Surefoot's own networks, wherever they are.
"""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from surefoot.base import reading
from surefoot.base.digests import sha256, sha256_file
from surefoot.base.user_code import FUNCTION

NO_DATA = (".py", ".pyc", ".md", "~")  # what lies beside modules and decides nothing


def modules_behind(functions: Iterable[str]) -> tuple[dict[str, Path], set[str]]:
    """The project's modules behind `module:function`s and all that they import, with their files; and the packages from
    elsewhere that they import. Surefoot's modules count as the project's where it is installed, too: by its version,
    each update of it would train anew.
    """
    own: dict[str, Path] = {}
    packages: set[str] = set()
    todo = [function.partition(":")[0] for function in functions]
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in own or top in packages or top in sys.stdlib_module_names:
            continue
        path = module_file(name)
        if path is None:
            continue
        if not in_project(path) and top != "surefoot":
            packages.add(top)
            continue
        if name == "surefoot":  # the package around Surefoot's modules decides nothing
            continue
        own[name] = path
        # `import a.b` runs a as well.
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += _imports(name, path)
    return own, packages


def in_project(path: Path) -> bool:
    """Whether a module's file is of this repository, and isn't installed in it."""
    return path.resolve().is_relative_to(Path.cwd()) and "site-packages" not in path.parts


def module_digests(own: dict[str, Path]) -> dict[str, str]:
    """The digests of modules, by name, and of the data files beside them, by path."""
    found = {name: module_digest(path) for name, path in own.items()}
    found |= {name: sha256_file(path) for name, path in _data(own)}
    return dict(sorted(found.items()))


def module_digest(path: Path) -> str:
    """The digest of what a module does: comments, layout and docstrings don't count."""
    return sha256(ast.unparse(_PlainTexts().visit(_without_docstrings(path))).encode())


def arithmetic_source(path: Path, package: str) -> str:
    """The source of a module without what decides no result.

    Beside comments, layout and docstrings that is what it says where it raises, as no result comes of that;
    annotations; and where in its own package it imports names from: a module may be moved or renamed.
    """
    return ast.unparse(_Arithmetic(package).visit(_without_docstrings(path)))


class _PlainTexts(ast.NodeTransformer):
    """Makes lists of f-strings: Python 3.12 and later write them with other quotes, and digests must be the same."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.List:
        self.generic_visit(node)
        # Python 3.12, and no other, ends a format that ends in a value, as in f"{a:{width}}", with an empty text.
        values = [value for value in node.values if not (isinstance(value, ast.Constant) and value.value == "")]
        return ast.List(values, ast.Load())

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.List:
        self.generic_visit(node)
        form = [node.format_spec] if node.format_spec else []
        return ast.List([node.value, ast.Constant(node.conversion), *form], ast.Load())


class _Arithmetic(_PlainTexts):
    """Leaves what decides a result."""

    def __init__(self, package: str) -> None:
        self._package = package

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:  # noqa: ARG002
        return ast.Raise()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.level or (node.module or "").partition(".")[0] == self._package else node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node  # a text beside a field, say

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def _without_docstrings(path: Path) -> ast.Module:
    tree = ast.parse(reading.read_file(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def functions_in(values: object) -> list[str]:
    """Every `module:function` among the values of a schedule, a loss or the like."""
    if isinstance(values, str):
        return [values] if re.fullmatch(FUNCTION, values) else []
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ()
    return [function for value in inner for function in functions_in(value)]


def module_file(name: str) -> Path | None:
    """The source file of a module, or None if there is no such module or no source.

    Nothing is imported, as Python's `find_spec` would import the package around a module: that may be torch, which
    takes seconds.
    """
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    places = [Path(place, *inner) for place in spec.submodule_search_locations or ()]
    files_of = (file for place in places for file in (place / "__init__.py", place.with_name(f"{place.name}.py")))
    return next((file for file in files_of if file.is_file()), None)


def _data(own: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Data files of packages: a network, a loss or a schedule may read them."""
    for name, path in own.items():
        # At the root lies all that a repository has; an installed Surefoot's networks have no data.
        if path.parent == Path.cwd() or not in_project(path):
            continue
        depth = name.count(".") + (path.name == "__init__.py")
        for file in path.parent.rglob("*") if depth else path.parent.iterdir():
            within = file.relative_to(path.parents[depth])
            if (
                file.is_file()
                and not file.name.endswith(NO_DATA)
                and not any(part.startswith((".", "__pycache__")) for part in within.parts)
            ):
                yield within.as_posix(), file


def _imports(name: str, path: Path) -> list[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    try:
        tree = ast.parse(reading.read_file(path))
    except (SyntaxError, ValueError):  # the stage that imports it says so
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else (node.module or "")
            )
            # `from a import b`: b may be a module, too.
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif (
            isinstance(node, ast.Call)
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else node.func.id
                if isinstance(node.func, ast.Name)
                else ""
            )
            if called in ("import_module", "__import__"):
                found.append(node.args[0].value)
    return found
