"""A recorded step as a program that takes many."""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.training.recorded.graph_source import Number, Unrecordable, check_lists, steps_source
from surefoot.training.recorded.optimizer_numbers import SHARE, Numbers
from surefoot.training.recorded.tape import Name, Operation, Recording


@dataclass(frozen=True)
class Program:
    """Takes steps as the one that was recorded.

    Args:
        function: compiled from `graph_source.steps_source`.
        arguments: its first ones, which outlive a step.
        state: all tensors that were there before the step, of which it changes some.
        numbers: the names of its numbers, in their order.
        reads: how many values are read of a step.
        draws: whether it draws random numbers.
        counter: how many steps the optimizer has taken; None where it doesn't matter.
        unit: what holds the function.
    """

    function: Any
    arguments: list[Tensor]
    state: list[Tensor]
    numbers: list[tuple[str, int]]
    reads: int
    draws: bool
    counter: Tensor | None
    unit: Any

    def run(
        self, inputs: Tensor, targets: Tensor, rows: Tensor, numbers: list[list[float]], seeds: list[int]
    ) -> list[float]:
        """Take a step for each of the seeds.

        Args:
            inputs: to choose from.
            targets: theirs.
            rows: those of the steps, by their places in these.
            numbers: of each step.
            seeds: of each step.

        Returns what each step reads, one after the other.

        Raises:
            RuntimeError: an operation fails; some steps may have been taken.
        """
        with _signals_later(), _executing():
            found: list[float] = self.function(*self.arguments, inputs, targets, rows, numbers, seeds)
        return found

    def values(self) -> list[Tensor]:
        """A copy of `state`."""
        return [tensor.clone() for tensor in self.state]

    def restore(self, values: Iterable[Tensor]) -> None:
        """Go back to such a copy."""
        restore(self.state, values)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Hear signals at the end: what a handler raises within an operation of Python's would be the executor's error."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in ours:
            signal.signal(number, lambda *got: heard.append(got))
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for got, frame in heard:
            ours[signal.Signals(got)](got, frame)


@contextmanager
def _executing() -> Iterator[None]:
    with (
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined] # its optimizer fuses, which rounds otherwise
        torch._C._AutoDispatchBelowAutograd(),
        np.errstate(over="ignore", invalid="ignore"),  # what overflows is infinite, as in torch, and no warning
    ):
        yield


@cache
def executor_fault() -> str | None:
    """What keeps torch's executor from running any program; None: nothing."""
    try:
        unit = torch.jit.CompilationUnit("def add_one(number: Tensor):\n    return torch.ops.aten.add(number, 1)\n")
        with _executing():
            unit.add_one(torch.zeros(()))
    except Exception as error:
        return f"torch {torch.__version__} doesn't run programs: {_first_line(error)}"
    return None


def restore(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Give tensors the values that they had; autograd doesn't see it."""
    for tensor, value in zip(tensors, values, strict=True):
        if not same_bits(tensor, value):  # what never changes may not be written to
            tensor.detach().copy_(value)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and type are the same, bit for bit."""
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def compile_program(
    first: tuple[Recording, Numbers], second: tuple[Recording, Numbers], sizes: Sequence[int]
) -> Program:
    """The program of two recordings of a step.

    Args:
        first: a recording, with all numbers that may be others in another step.
        second: that of another step on as many rows.
        sizes: rows of each of its minibatches.

    Raises:
        Unrecordable: they differ in more than rows and known numbers; or something can't be written down.
    """
    used: list[tuple[str, int]] = []
    operations = _merged(first, second, used)
    recording, changed = second[0], _changed(operations)
    made = _made_anew(first[0], recording, changed)
    state = {name: tensor.detach() for name, tensor in recording.outside.items() if name not in made}
    # Rows are gathered into one place again and again, which stays in the processor's cache.
    places = {name: torch.empty_like(tensor) for name, tensor in recording.inputs.items()}
    ones = {name: tensor for name, tensor in recording.ones.items() if name not in changed}
    fixed, rest = {**state, **made, **ones, **places}, list[Operation]()
    for operation in operations:
        views = _views_of(operation, fixed)
        fixed |= views
        if not views and not any(result in ones for result in operation.results):
            rest.append(operation)
    needed = {name for operation in rest for name in _names(operation)} | set(recording.reads) | places.keys()
    fixed = {name: tensor for name, tensor in fixed.items() if name in needed}
    draws = any(torch.Tag.nondeterministic_seeded in operation.function.tags for operation in rest)
    source = steps_source(rest, list(fixed), recording.reads, sizes, draws)
    try:
        unit = torch.jit.CompilationUnit(source)
    except RuntimeError as error:
        raise Unrecordable(f"torch's executor refuses it: {_first_line(error)}") from None
    return Program(
        unit.steps,
        list(fixed.values()),
        list(state.values()),
        used,
        len(recording.reads),
        draws,
        recording.counter,
        unit,
    )


def _merged(
    first: tuple[Recording, Numbers], second: tuple[Recording, Numbers], used: list[tuple[str, int]]
) -> list[Operation]:
    """The operations of both, with numbers that change as the program has them; their names are added to `used`."""
    one, other = first[0], second[0]
    if _outline(one) != _outline(other):
        raise Unrecordable("two steps differ in their operations")
    merged = []
    for place, (earlier, later) in enumerate(zip(one.operations, other.operations, strict=True)):
        check_lists(later)
        # Of the loss the shares of minibatches are known, of the update the optimizer's numbers.
        known = {
            name: (value, second[1][name])
            for name, value in first[1].items()
            if (name[0] == SHARE) == (place < other.update)
        }
        merge = _Merge(known, used, later.function._schema.name)
        keywords = {key: merge(value, later.keywords[key]) for key, value in earlier.keywords.items()}
        merged.append(replace(later, arguments=merge(earlier.arguments, later.arguments), keywords=keywords))
    return merged


def _outline(recording: Recording) -> list[Any]:
    """A recording without what its operations are given."""
    operations = [(each.function, each.results, tuple(each.keywords)) for each in recording.operations]
    return [operations, [*recording.outside], recording.reads, recording.update]


@dataclass(frozen=True)
class _Merge:
    """Makes one of what an operation is given in two steps."""

    known: dict[tuple[str, int], tuple[float, float]]
    used: list[tuple[str, int]]
    operation: str

    def __call__(self, one: Any, other: Any) -> Any:
        if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
            return tuple(map(self, one, other))
        if isinstance(one, float):
            for name, values in self.known.items():
                if values == (one, other):
                    if name not in self.used:
                        self.used.append(name)
                    return Number(f"number[{self.used.index(name)}]")
        if type(one) is not type(other) or one != other:
            raise Unrecordable(
                f"{self.operation} is given {one} in one step and {other} in another, and why isn't known"
            )
        return other


def _made_anew(first: Recording, second: Recording, changed: set[Name]) -> dict[Name, Tensor]:
    """Indices that Python makes anew in each step, of the same numbers, as in `inputs[:, [0, 2]]`. Of other tensors two
    steps say too little: a number that is read from a file may change later.
    """
    made = {}
    for name, tensor in second.outside.items():
        if first.outside[name] is tensor:
            continue
        values = first.before[name], second.before[name]
        alike = values[0].dtype == values[1].dtype and values[0].shape == values[1].shape and same_bits(*values)
        if not alike or tensor.dtype != torch.int64 or name in changed:
            raise Unrecordable(f"a tensor of shape {list(tensor.shape)} is another one in each step, not by operations")
        made[name] = values[1]
    return made


def _changed(operations: Sequence[Operation]) -> set[Name]:
    """The tensors that are written to, by themselves or through a view of them."""
    seen_in: dict[Name, Name] = {}  # what a view is of
    changed: set[Name] = set()
    for operation in operations:
        if operation.function.is_view:
            viewed = operation.arguments[0]
            seen_in |= {result: viewed for result in operation.results if result and result != viewed}
        arguments = operation.function._schema.arguments
        given = dict(zip((each.name for each in arguments), operation.arguments, strict=False)) | operation.keywords
        written = [each.name for each in arguments if each.alias_info is not None and each.alias_info.is_write]
        todo = [*_names_in(*(given[name] for name in written if name in given))]
        while todo:
            changed.add(name := todo.pop())
            todo += [seen_in[name]] if name in seen_in and seen_in[name] not in changed else []
    return changed


def _names(operation: Operation) -> set[Name]:
    return _names_in(operation.arguments, *operation.keywords.values())


def _names_in(*values: Any) -> set[Name]:
    found: set[Name] = set()
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, tuple):
            todo += value
        elif isinstance(value, Name):
            found.add(value)
    return found


def _views_of(operation: Operation, fixed: dict[Name, Tensor]) -> dict[Name, Tensor]:
    """What an operation gives, if that is a view of tensors that outlive the step, which needn't be made in each."""
    names = _names(operation)
    if not operation.function.is_view or operation.gives_list or not names or not names <= fixed.keys():
        return {}
    (result,) = operation.results
    arguments = [fixed[value] if isinstance(value, Name) else value for value in operation.arguments]
    assert result
    return {result: operation.function(*arguments, **operation.keywords)}


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
