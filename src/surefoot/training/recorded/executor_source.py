"""The operations of a step, written down as a program for torch's executor."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from surefoot.training.recorded.merging import Number, Unrecordable
from surefoot.training.recorded.tape import Name, Operation

INDENT = "        "


def steps_source(
    operations: Sequence[Operation], fixed: Sequence[Name], reads: Sequence[Name], sizes: Sequence[int], draws: bool
) -> str:
    """A function `steps` that takes one step after the other.

    It is given the tensors `fixed`; the rows `xs` and `ys`, and which of them the steps take, `rows`; `numbers` and
    `seeds` of each step. It returns what the steps read, one after the other.

    Args:
        operations: of a step.
        fixed: the tensors that outlive a step; `x0`, `y0` and so on take the rows of its minibatches.
        reads: what is read of a step.
        sizes: rows of each of its minibatches.
        draws: whether it draws random numbers.

    Raises:
        Unrecordable: an operation can't be written down.
    """
    lines = [
        f"def steps({''.join(f'{name}: Tensor, ' for name in fixed)}xs: Tensor, ys: Tensor, rows: Tensor,"
        " numbers: List[List[float]], seeds: List[int]):",
        "    found: List[float] = []",
        "    at = 0",
        "    for number, seed in zip(numbers, seeds):",
    ]
    if draws:
        lines.append(f"{INDENT}torch.manual_seed(seed)")
    for part, size in enumerate(sizes):
        lines += [
            f"{INDENT}here = torch.narrow(rows, 0, at, {size})",
            f"{INDENT}torch.index_select(xs, 0, here, out=x{part})",
            f"{INDENT}torch.index_select(ys, 0, here, out=y{part})",
            f"{INDENT}at += {size}",
        ]
    for operation in operations:
        _check_lists(operation)
        lines += [INDENT + line for line in _lines(operation)]
    lines.append(f"{INDENT}found.extend([{', '.join(f'float({name}.item())' for name in reads)}])")
    lines.append("    return found")
    return "\n".join(lines) + "\n"


def _check_lists(operation: Operation) -> None:
    """See that an operation changes no list of tensors, but for one whose tensors it changes one by one; and that it
    gives none beside something else.
    """
    schema = operation.function._schema
    if len(schema.returns) > 1 and any(isinstance(each.type, torch.ListType) for each in schema.returns):
        raise Unrecordable(f"{schema.name} gives a list of tensors beside others")
    if not _is_one_by_one(schema.name) and any(map(_changes_list, schema.arguments)):
        raise Unrecordable(f"{schema.name} changes a list of tensors at once")


def _is_one_by_one(name: str) -> bool:
    return name.startswith("aten::_foreach_") and name.endswith("_")


def _lines(operation: Operation) -> Iterator[str]:
    name = operation.function._schema.name
    space, _, base = name.partition("::")
    keywords = operation.keywords.items()
    if _is_one_by_one(name):
        # One by one: the executor drops what changes a list, as it sees no use of it.
        for place in range(len(operation.arguments[0])):
            given = [_at(value, place) for value in operation.arguments]
            given += [f"{key}={_at(value, place)}" for key, value in keywords]
            yield f"torch.ops.aten.{base.removeprefix('_foreach_')}({', '.join(given)})"
        return
    given = [_text(value) for value in operation.arguments] + [f"{key}={_text(value)}" for key, value in keywords]
    call = f"torch.ops.{space}.{base}({', '.join(given)})"
    new = [result for result in operation.results if result and not _is_argument(result, operation)]
    if operation.gives_list:
        yield f"several = {call}"
        for place, result in enumerate(operation.results):
            yield f"{result} = several[{place}]"
    elif new:
        yield f"{', '.join(result or '_' for result in operation.results)} = {call}"
    else:
        yield call


def _is_argument(name: Name, operation: Operation) -> bool:
    return name in operation.arguments or name in operation.keywords.values()


def _changes_list(argument: Any) -> bool:
    return (
        argument.alias_info is not None and argument.alias_info.is_write and isinstance(argument.type, torch.ListType)
    )


def _at(value: Any, place: int) -> str:
    return _text(value[place] if isinstance(value, tuple) else value)


def _text(value: Any) -> str:
    """A value as TorchScript has it."""
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, Number):
        return f"number[{value.place}]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.layout | torch.memory_format):
        return repr(value)
    raise Unrecordable(f"an operation is given a {type(value).__name__}")
