"""Two recordings of a step, made one: what is the same in each step, and what isn't."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from surefoot.training.recorded.bits import same_bits
from surefoot.training.recorded.optimizer_numbers import SHARE, Numbers
from surefoot.training.recorded.tape import Name, Operation, Recording


class Unrecordable(Exception):
    """A step can't be taken without Python; the text says why."""


@dataclass(frozen=True)
class Number:
    """A number that isn't the same in each step, by its place among those of a step."""

    place: int


@dataclass(frozen=True)
class Step:
    """A step, as it is taken again and again.

    Args:
        operations: what it does.
        fixed: the tensors that outlive it and that it takes; `x0`, `y0` and so on take the rows of its minibatches.
        state: all tensors that were there before it, of which it changes some.
        sizes: rows of each of its minibatches.
        numbers: the names of its numbers, in their order.
        reads: what is read of it.
        draws: whether it draws random numbers.
        counter: how many steps the optimizer has taken; None where it doesn't matter.
    """

    operations: Sequence[Operation]
    fixed: dict[Name, Tensor]
    state: list[Tensor]
    sizes: Sequence[int]
    numbers: list[tuple[str, int]]
    reads: list[Name]
    draws: bool
    counter: Tensor | None


def merge(first: tuple[Recording, Numbers], second: tuple[Recording, Numbers], sizes: Sequence[int]) -> Step:
    """The step of two recordings of it.

    Args:
        first: a recording, with all numbers that may be others in another step.
        second: that of another step on as many rows.
        sizes: rows of each of its minibatches.

    Raises:
        Unrecordable: they differ in more than rows and known numbers.
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
    needed = {name for operation in rest for name in names_of(operation)} | set(recording.reads) | places.keys()
    fixed = {name: tensor for name, tensor in fixed.items() if name in needed}
    draws = any(torch.Tag.nondeterministic_seeded in operation.function.tags for operation in rest)
    counter = recording.counter
    return Step(rest, fixed, list(state.values()), sizes, used, recording.reads, draws, counter)


def _merged(
    first: tuple[Recording, Numbers], second: tuple[Recording, Numbers], used: list[tuple[str, int]]
) -> list[Operation]:
    """The operations of both, with numbers that change by their places; their names are added to `used`."""
    one, other = first[0], second[0]
    if _outline(one) != _outline(other):
        raise Unrecordable("two steps differ in their operations")
    merged = []
    for place, (earlier, later) in enumerate(zip(one.operations, other.operations, strict=True)):
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
                    return Number(self.used.index(name))
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


def names_of(operation: Operation) -> set[Name]:
    """The tensors that an operation takes."""
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
    names = names_of(operation)
    if not operation.function.is_view or operation.gives_list or not names or not names <= fixed.keys():
        return {}
    (result,) = operation.results
    arguments = [fixed[value] if isinstance(value, Name) else value for value in operation.arguments]
    assert result
    return {result: operation.function(*arguments, **operation.keywords)}
