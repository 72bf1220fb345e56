"""A recorded step taken by torch's executor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor

from surefoot.training.recorded.executor_source import steps_source
from surefoot.training.recorded.merging import Step, Unrecordable


def compile_step(
    step: Step,
) -> Callable[[Tensor, Tensor, Tensor, list[list[float]], list[int]], list[float]]:
    """What takes steps as this one; see `Program.run`.

    Raises:
        Unrecordable: an operation can't be written down.
    """
    source = steps_source(step.operations, list(step.fixed), step.reads, step.sizes, step.draws)
    try:
        unit = torch.jit.CompilationUnit(source)
    except RuntimeError as error:
        raise Unrecordable(f"torch's executor refuses it: {first_line(error)}") from None
    fixed = list(step.fixed.values())

    def take(
        inputs: Tensor, targets: Tensor, rows: Tensor, numbers: list[list[float]], seeds: list[int]
    ) -> list[float]:
        with _executing():
            found: list[float] = unit.steps(*fixed, inputs, targets, rows, numbers, seeds)
        return found

    return take


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
        return f"torch {torch.__version__} doesn't run programs: {first_line(error)}"
    return None


def first_line(error: Exception) -> str:
    """What an error says first."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
