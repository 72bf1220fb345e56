"""`surefoot check`: what can be known of params.yaml before anything runs.

Names in it that stand for code are looked up without running any: torch takes seconds to import, and a typing error
should cost none.
"""

import ast
import importlib.util
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from surefoot.base import code_digests, paths, reading, terminal
from surefoot.base.errors import UserError
from surefoot.base.installation import included_network
from surefoot.base.user_code import FUNCTION, nearest_name
from surefoot.data import source_formats
from surefoot.params import dvc_yaml
from surefoot.params.params_yaml import lines_of, load_params
from surefoot.params.sections import Params
from surefoot.reproduction import git
from surefoot.training.machine_limits import too_many_threads

LISTS = {
    "optim": "optim/__init__.py",
    "optim.lr_scheduler": "optim/lr_scheduler.py",
    "nn": "nn/modules/__init__.py",
}


def main() -> None:
    """Check params.yaml; bring what DVC must know to it and to dvc.yaml."""
    check_names(load_params(paths.PARAMS))
    for directory, directories, files in os.walk(paths.RAW):
        reading.check_file_names(Path(directory), sorted(directories + files))
    for line in dvc_yaml.add_what_dvc_needs():
        terminal.print_lines(line)
    if dvc_yaml.PIPELINE.is_file() and (why := git.out_of_reach()):
        terminal.warn(
            "Git is out of reach, so a run would be recorded without its commit, and `surefoot verify` couldn't make"
            f" it again: {why}",
        )


def check_names(params: Params) -> None:
    """See whether there are the optimizer, schedules, loss, network, readers and threads that params.yaml names, and
    whether each name has a use.

    Raises:
        UserError: for each of the first two that there aren't a line `file:line: dotted.key: what is wrong`.
    """
    faults = list(_faults(params))[:2]
    if not faults:
        return
    lines, told = lines_of(paths.PARAMS), []
    for key, wrong in faults:
        parts = key.split(".")
        near = next((name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in lines), "")
        told.append(f"{paths.PARAMS}:{lines.get(near, 1)}: {key}: {wrong}")
    raise UserError(*told)


def _faults(params: Params) -> Iterator[tuple[str, str]]:
    train, prepare = params.train, params.prepare
    several = len(train.schedule) > 1
    named = {"train.model.factory": (train.model.factory, "", "")}
    named |= {
        f"train.schedule{f'.{n}' if several else ''}.name": (one.name, "optim.lr_scheduler", "schedule")
        for n, one in enumerate(train.schedule)
    }
    named |= {
        "train.optimizer.name": (train.optimizer.name, "optim", "optimizer"),
        "train.loss.name": (train.loss.name, "nn", "loss"),
    }
    for each in prepare.sources:
        if re.fullmatch(FUNCTION, each.source) and not each.source.startswith("sklearn:"):
            named[each.key] = (each.source, "", "")
    for key, (name, module, what) in named.items():
        if ":" in name:
            wrong = _no_function(name)
        elif name in ("constant", "auto"):
            wrong = ""
        else:
            known = [found for found in _torchs(module) if module != "nn" or found.endswith("Loss")]
            wrong = (
                f"torch.{module} has no {what} {name!r}; {nearest_name(name, known)}"
                if known and name not in known
                else ""
            )
        if wrong:
            yield key, wrong
    if wrong := too_many_threads(params.threads, params.numerics, params.device):
        yield "threads", wrong
    yield from source_formats.useless_keys(prepare)


def _included(path: str) -> str:
    """A hint where a network of Surefoot's is named as a clone has it, or as a package does."""
    found = re.fullmatch(r"(?:surefoot\.)?networks\.(\w+:\w+)", path)
    other = included_network(found[1]) if found else path
    known = other != path and code_digests.module_file(other.partition(":")[0])
    return f"; did you mean {other}?" if known else ""


def _no_function(path: str) -> str:
    """What is wrong with a `module:function`, as far as its source shows it."""
    module, _, name = path.partition(":")
    try:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return f"{path}: there is no module {module.partition('.')[0]}{_included(path)}"
    except (ImportError, AttributeError, ValueError):
        return ""
    own, _ = code_digests.modules_behind([path])
    top = module.partition(".")[0]
    if module not in own:
        ours = top == "surefoot" or top in own or (Path("src") / top).is_dir()
        return f"{path}: there is no module {module}{_included(path)}" if ours else ""
    try:
        body = ast.parse(reading.read_file(own[module])).body
    except (SyntaxError, ValueError) as error:
        return f"{path}: {own[module]} is no Python: {error}"
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    # What comes about in another way, by an import or under an `if`, is looked at by the stage that calls it.
    plain = all(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Expr)
        for node in body
    )
    imported = {
        (alias.asname or alias.name)
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if name in defined | imported or "*" in imported or not plain:
        return ""
    return f"{path}: module {module} has no {name!r}; {nearest_name(name, sorted(defined))}"


@cache
def _torchs(module: str) -> list[str]:
    """What a module of torch's offers, from its `__all__`."""
    spec = importlib.util.find_spec("torch")
    places = spec.submodule_search_locations if spec else None
    try:
        text = (Path(next(iter(places or []))) / LISTS[module]).read_text(encoding="utf-8")
    except (StopIteration, OSError):
        return []
    found = re.search(r"^__all__ = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    return re.findall(r'"(\w+)"', found[1]) if found else []
