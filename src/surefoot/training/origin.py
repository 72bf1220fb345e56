"""What determines a run, but for the schedule: all of it in one place, and nothing else."""

import ast
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from surefoot import files

# A change to these can change a bit of a state. A change to any other module of Surefoot can't.
TRAINING_CODE = (
    *("surefoot.training.sgd", "surefoot.training.model", "surefoot.training.objective", "surefoot.training.optimizer", "surefoot.training.average"),
    *("surefoot.training.rows", "surefoot.training.numerics", "surefoot.training.products", "surefoot.data.order"),
)
FORMAT = 2


def origin(
    *,
    seed: int,
    numerics: str,
    threads: int,
    device: str,
    deterministic: bool,
    fingerprint: str,
    factory: str,
    arguments: dict[str, Any],
    first_state: bytes,
    loss: dict[str, Any],
    optimizer: dict[str, Any],
    step: dict[str, Any],
    average: dict[str, Any],
    schedule: dict[str, Any],
    data: dict[str, Any],
    start: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the first key is the digest of.

    Args:
        seed: the seed of the run.
        numerics: the profile, with `threads` and `fingerprint`: how this machine computes.
        threads: CPU threads.
        device: what trains.
        deterministic: whether operations without a deterministic kernel are refused.
        fingerprint: of `numerics.fingerprint`.
        factory: import path of the network, whose source counts, and that of the project's modules that it imports.
        arguments: of the factory.
        first_state: the state before the first step, as safetensors; covers whatever the factory read or drew.
        loss: its name, arguments and class weights; where it is the project's own, its source counts, too.
        optimizer: its name and arguments, but for the learning rate, and its groups of parameters.
        step: what goes into a step beside it: accumulation, clipping, precision.
        average: how weights are averaged; {} if they aren't.
        schedule: what is scheduled, by group and name, and the metric that it follows. The values themselves are in the keys.
        start: the digest of the weights that another training left (`train.start_from`); None where there are none.
        data: digests of the training and validation arrays, their scale, how they are batched and shuffled, and what the factory was told of them.
    """
    own, packages = _sources(factory.partition(":")[0])
    of_loss, more = _sources(loss["name"].partition(":")[0]) if ":" in loss["name"] else ({}, set())
    return {
        "format": FORMAT,
        "seed": seed,
        "numerics": {"profile": numerics, "threads": threads, "device": device, "deterministic": deterministic, "fingerprint": fingerprint},
        "versions": {name: _version(name) for name in sorted({"torch", "numpy"} | packages | more)},
        "code": {name: _digest(_path(name)) for name in TRAINING_CODE},
        "model": {"factory": factory, "arguments": arguments, "source": _digests(own)},
        "first_state": files.sha256(first_state),
        "loss": {**loss, "source": _digests(of_loss)},
        "optimizer": optimizer,
        "step": step,
        "average": average,
        "schedule": schedule,
        "data": data,
        **({"start": start} if start else {}),
    }


def sources(factory: str) -> dict[str, str]:
    """The digests of the project's own modules that make a network."""
    own, _ = _sources(factory.partition(":")[0])
    return _digests(own)


def _digests(own: dict[str, Path]) -> dict[str, str]:
    return {name: _digest(path) for name, path in sorted(own.items())}


def _sources(module: str) -> tuple[dict[str, Path], set[str]]:
    """A module of the project's and those that it imports, with their files; and the packages from elsewhere that they import."""
    own: dict[str, Path] = {}
    packages: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in own or top in packages or top in sys.stdlib_module_names:
            continue
        path = _path(name)
        if path is None:
            continue
        if not path.resolve().is_relative_to(Path.cwd()) or "site-packages" in path.parts:
            packages.add(top)
            continue
        own[name] = path
        # `import a.b` runs a as well.
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += _imports(name, path)
    return own, packages


def _imports(name: str, path: Path) -> list[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else (node.module or "")
            # `from a import b`: b may be a module, too.
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _path(name: str) -> Path | None:
    """The source file of a module, or None if there is no such module or no source."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _digest(path: Path | None) -> str:
    """The digest of what a module does: comments, layout and docstrings don't count."""
    assert path
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return files.sha256(ast.unparse(tree).encode())


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:  # imported under another name than it is installed by
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
