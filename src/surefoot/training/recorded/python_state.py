"""What a network keeps in Python: counters, lists, generators. A step that changes any of it can't be taken without
Python.
"""

import hashlib
import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from io import IOBase
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

PLAIN = (bool, int, float, complex, str, bytes, type(None))
MOST = 200_000  # things that are looked at
CONTAINED = (Mapping, list, tuple, deque, set, frozenset, MethodType, FunctionType, property, staticmethod, classmethod)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class PythonState:
    """All that can be reached from some objects, by its place, as it is now; `too_much`: there is more than is looked
    at.
    """

    def __init__(self, *roots: Any) -> None:
        self.found: dict[str, Any] = {
            "Python's random numbers": random.getstate(),
            "NumPy's random numbers": repr(np.random.get_state()),
        }
        self._keep: list[Any] = []  # so that no id is given twice
        seen: set[int] = set()
        todo: deque[tuple[str, Any]] = deque((type(root).__name__, root) for root in roots)
        while todo and len(todo) + len(self.found) <= MOST:
            place, value = todo.popleft()
            if isinstance(value, PLAIN):
                self.found[place] = repr(value)
            elif id(value) not in seen:
                seen.add(id(value))
                self._keep.append(value)
                self.found[place] = _as_it_is(value)
                todo.extend((f"{place}{name}", part) for name, part in islice(_parts(value), MOST))

        self.too_much = bool(todo)

    def changed(self, later: "PythonState") -> str | None:
        """The first place at which something is not as it was; None: there is none."""
        for place in [*self.found, *later.found]:
            if self.found.get(place, self) != later.found.get(place, later):
                return place
        return None


def _as_it_is(value: Any) -> Any:
    """What tells a thing from itself later, but for its parts."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, tuple | MethodType):  # may be made where they are asked for
        return type(value).__name__
    if isinstance(value, list | deque | Mapping):
        return id(value), len(value)
    if isinstance(value, Tensor | ModuleType | type | FunctionType | nn.Module):
        return id(value)
    if isinstance(value, Iterator) and not isinstance(value, IOBase):
        return object()  # where it stands can't be told
    try:  # what has no attributes may still tell, as a counter of itertools does
        return id(value) if vars_of(value) else repr(value)
    except Exception:
        return id(value)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.ndarray):
        return
    if isinstance(value, Tensor):
        yield from ((f".{name}", part) for name, part in vars(value).items())
        yield from ((f".{name}", getattr(value, name)) for name in TENSOR_HOOKS)
        return
    if isinstance(value, Mapping):
        yield from (
            (f"[{key!r}]" if isinstance(key, PLAIN) else f"[{number}]", part)
            for number, (key, part) in enumerate(value.items())
        )
    elif isinstance(value, list | tuple | deque | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, property):
        yield from ((f".{name}", getattr(value, name)) for name in ("fget", "fset"))
    elif isinstance(value, staticmethod | classmethod):
        yield ".__func__", value.__func__
    if not isinstance(value, CONTAINED) or _own(type(value).__module__):
        yield from ((f".{name}", part) for name, part in vars_of(value).items())
        if isinstance(value, type):
            yield from ((f".{base.__name__}", base) for base in value.__bases__)
        elif _own(type(value).__module__):
            yield ".__class__", type(value)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function reads beside its arguments: what encloses it, and of the user's own also what is global."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    yield ".__defaults__", (function.__defaults__, function.__kwdefaults__)
    if not _own(function.__module__ or ""):
        return
    yield from ((f".{name}", part) for name, part in vars(function).items())
    for name in _names_in(function.__code__):
        if name in function.__globals__:
            yield f" {name}", function.__globals__[name]


def _names_in(code: CodeType) -> Iterator[str]:
    """The names that are global to a code or to one within it, as a comprehension is."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def vars_of(value: Any) -> Mapping[str, Any]:
    """The attributes of an object, or of a class or a module of the user's."""
    if (isinstance(value, type) and not _own(value.__module__)) or (
        isinstance(value, ModuleType) and not _own(value.__name__)
    ):
        return {}
    if isinstance(value, ModuleType):
        return {name: part for name, part in vars(value).items() if not name.startswith("__")}
    slots = {} if isinstance(value, type) else {name: getattr(value, name) for name in _slots(value)}
    return slots | getattr(value, "__dict__", {})


def _slots(value: Any) -> Iterator[str]:
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        yield from (name for name in ((names,) if isinstance(names, str) else names) if hasattr(value, name))


def _own(module: str) -> bool:
    """Whether a module is the user's: neither Python's nor of a package that is installed."""
    top = module.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top == "surefoot":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def own_hooks(model: nn.Module) -> Iterable[str]:
    """The layers that call a hook which isn't torch's: what it does in Python would not be done."""
    every = {"every layer": vars(global_hooks)}
    every |= {name or type(module).__name__: vars(module) for name, module in model.named_modules()}
    for name, attributes in every.items():
        for kind in HOOKS:
            hooks = attributes.get(f"_global{kind}" if name == "every layer" else kind) or {}
            if any(
                not (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")
                for hook in hooks.values()
            ):
                yield name
