"""A recorded step as a program that takes many."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from torch import Tensor

from surefoot.training.recorded.bits import restore
from surefoot.training.recorded.cuda_graph import GraphedStep
from surefoot.training.recorded.executor import compile_step
from surefoot.training.recorded.merging import Step


@dataclass(frozen=True)
class Program:
    """Takes steps as one that was recorded: on the CPU by torch's executor, on a GPU by a CUDA graph."""

    step: Step
    take: Callable[[Tensor, Tensor, Tensor, list[list[float]], list[int]], list[float]]

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
        with _signals_later():
            return self.take(inputs, targets, rows, numbers, seeds)

    def values(self) -> list[Tensor]:
        """A copy of the state."""
        return [tensor.clone() for tensor in self.step.state]

    def restore(self, values: Iterable[Tensor]) -> None:
        """Go back to such a copy."""
        restore(self.step.state, values)


def make_program(step: Step, device: str) -> Program:
    """The program of a step of a network on a device.

    Raises:
        Unrecordable: it can't be made.
    """
    return Program(step, compile_step(step) if device == "cpu" else GraphedStep(step))


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
