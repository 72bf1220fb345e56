"""A recorded step as a CUDA graph: the GPU takes it again and again, and nothing waits for it in between."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from surefoot.training.recorded.bits import restore
from surefoot.training.recorded.merging import Number, Step, Unrecordable, names_of
from surefoot.training.recorded.tape import Name, Operation, flat

aten = torch.ops.aten
# What reads a number from the GPU in place of one that it is given.
BY_TENSOR = {aten.fill_.Scalar: aten.copy_.default, aten.mul.Tensor: aten.mul.Tensor}
AT_ONCE = 256  # steps for which there is room


class GraphedStep:
    """Takes steps by a graph.

    Before them the rows, and the numbers of each step, are brought to the GPU. What steps read is kept there, and
    looked at once.

    Args:
        step: the recorded one.

    Raises:
        Unrecordable: it computes on the CPU, too, or takes a number that a graph can't be given; there is too little
            memory for it.
    """

    def __init__(self, step: Step) -> None:
        _check_memory()
        self._step = step
        self._on_gpu, self._on_cpu = split_by_device(step)
        self._last_uses = _last_uses(self._on_gpu, step.reads)
        device = step.fixed[Name("x0")].device
        self._generator = (
            torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
        )
        self._at = torch.zeros(1, dtype=torch.int64, device=device)  # which of the steps taken at once is next
        self._places = torch.arange(AT_ONCE, device=device)[:, None]
        self._rows = torch.zeros(AT_ONCE, sum(step.sizes), dtype=torch.int64, device=device)
        self._numbers = torch.zeros(AT_ONCE, len(step.numbers), device=device)
        self._found = torch.zeros(AT_ONCE, len(step.reads), dtype=torch.float64, device=device)
        self._inputs = self._targets = torch.empty(0, device=device)
        self._brought: tuple[Tensor, Tensor] | None = None  # the rows that are in these two
        self._replay: Callable[[], None] | None = None

    def __call__(
        self, inputs: Tensor, targets: Tensor, rows: Tensor, numbers: list[list[float]], seeds: list[int]
    ) -> list[float]:
        """Take steps; see `Program.run`."""
        self._bring(inputs, targets)
        rows, found = rows.reshape(len(seeds), -1), list[float]()
        for first in range(0, len(seeds), AT_ONCE):
            here = slice(first, first + AT_ONCE)
            count = len(seeds[here])
            self._rows[:count].copy_(rows[here])
            if self._step.numbers:
                self._numbers[:count].copy_(torch.tensor(numbers[here], dtype=torch.float32))
            self._at.zero_()
            if self._replay is None:
                self._replay = self._capture()
            self._take(self._replay, seeds[here])
            found += self._found[:count].flatten().tolist()
        return found

    def _bring(self, inputs: Tensor, targets: Tensor) -> None:
        """Bring rows to the GPU, unless they are there."""
        if self._brought and self._brought[0] is inputs and self._brought[1] is targets:
            return
        if len(inputs) > (room := len(self._inputs)):
            room, device = max(len(inputs), 2 * room), self._at.device  # twice, so that it seldom grows
            self._inputs, self._targets = (
                torch.empty((room, *some.shape[1:]), dtype=some.dtype, device=device) for some in (inputs, targets)
            )
            self._replay = None  # it takes them from where they were
        for there, some in ((self._inputs, inputs), (self._targets, targets)):
            there[: len(some)].copy_(some)
        self._brought = inputs, targets

    def _capture(self) -> Callable[[], None]:
        """The graph; what the step changes is left as it was."""
        tensors = [*self._step.state, self._at]
        before = [tensor.clone() for tensor in tensors]
        try:
            replay = capture(self._run)
        except RuntimeError:
            for graphed in _CAPTURED:  # the generator has another state now, from which their graphs don't draw
                graphed._replay = None
            raise
        finally:
            restore(tensors, before)
        _CAPTURED.add(self)
        return replay

    def _take(self, replay: Callable[[], None], seeds: Sequence[int]) -> None:
        for seed in seeds:
            if self._step.draws:
                self._generator.manual_seed(seed)
            replay()
            if self._on_cpu:
                _play(self._on_cpu, dict(self._step.fixed))

    @torch.no_grad()
    def _run(self) -> None:
        """The step, on the rows and numbers of that which is next."""
        fixed = self._step.fixed
        rows, numbers = (some.index_select(0, self._at)[0] for some in (self._rows, self._numbers))
        for part, some in enumerate(rows.split(list(self._step.sizes))):
            torch.index_select(self._inputs, 0, some, out=fixed[Name(f"x{part}")])
            torch.index_select(self._targets, 0, some, out=fixed[Name(f"y{part}")])
        values = _play(self._on_gpu, dict(fixed), numbers, self._last_uses)
        read = torch.stack([values[name].to(torch.float64).reshape(()) for name in self._step.reads])
        torch.where(self._places == self._at, read, self._found, out=self._found)
        self._at.add_(1)


def _check_memory() -> None:
    """See that a graph has room on the GPU. It keeps what a step computes, as eager steps do beside it; and there are
    copies of the weights, to go back to.

    Raises:
        Unrecordable: it may not have it.
    """
    if torch.cuda.is_initialized():
        needed = 3 * torch.cuda.max_memory_allocated()
        there = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        if needed > there:
            raise Unrecordable(
                f"a graph beside eager steps may need {needed / 1e9:.1f} GB of the GPU's memory, of which there are"
                f" {there / 1e9:.1f}"
            )


_CAPTURED: WeakSet[GraphedStep] = WeakSet()  # those that were captured


def _play(
    operations: Sequence[Operation],
    values: dict[Name, Tensor],
    numbers: Tensor | None = None,
    last_uses: Sequence[set[Name]] = (),
) -> dict[Name, Tensor]:
    """Do what operations do, with tensors by name; returns those that are kept.

    Args:
        operations: in their order.
        values: the tensors that there are.
        numbers: that aren't the same in each step.
        last_uses: of each operation the tensors that aren't needed after it.
    """

    def given(value: Any) -> Any:
        if isinstance(value, Name):
            return values[value]
        if isinstance(value, Number):
            assert numbers is not None
            return numbers[value.place]
        return [given(each) for each in value] if isinstance(value, tuple) else value

    for place, operation in enumerate(operations):
        keywords = {key: given(value) for key, value in operation.keywords.items()}
        result = operation.function(*map(given, operation.arguments), **keywords)
        values |= {name: each for name, each in zip(operation.results, flat(result), strict=True) if name}
        for name in last_uses[place] if last_uses else ():
            del values[name]
    return values


def capture(run: Callable[[], None]) -> Callable[[], None]:
    """What does the same on the GPU again, without Python.

    Raises:
        RuntimeError: it can't be captured: something waits for the GPU, say.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()  # libraries make their workspace for a stream when they first see it
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            run()
    except RuntimeError as error:
        # A failed capture leaves the generator as if it were in one, so it gets another state.
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())
        first = error.__context__  # that it ends in an error says less
        raise first if isinstance(first, RuntimeError) else error from None
    return graph.replay


def split_by_device(step: Step) -> tuple[list[Operation], list[Operation]]:
    """The operations of a step that are for the GPU, and those that count something on the CPU, as an average does how
    many it has seen.

    Raises:
        Unrecordable: one takes what the other computes; or a number that changes is given to an operation that can't
            read it from the GPU.
    """
    device = step.fixed[Name("x0")].device
    on_cpu = {name for name, tensor in step.fixed.items() if tensor.device != device}
    gpu, cpu, copies = list[Operation](), list[Operation](), set[Name]()
    for operation in step.operations:
        names, name = names_of(operation), operation.function._schema.name
        if names & copies:
            raise Unrecordable(f"{name} takes a tensor from the CPU")
        if names and names <= on_cpu and not _takes_number(operation):
            if _makes_on(operation) == device.type:
                copies.update(filter(None, operation.results))  # none, if nobody takes it
                continue
            on_cpu.update(filter(None, operation.results))
            cpu.append(operation)
        elif names & on_cpu or _makes_on(operation, device.type if names else "cpu") != device.type:
            raise Unrecordable(f"{name} computes on the CPU")
        else:
            gpu.append(_by_tensor(operation))
    return gpu, cpu


def _makes_on(operation: Operation, default: str = "cpu") -> str:
    """The kind of device on which an operation makes a tensor; `default` where it doesn't say."""
    return torch.device(operation.keywords.get("device") or default).type


def _by_tensor(operation: Operation) -> Operation:
    """An operation that reads its number from the GPU."""
    if not _takes_number(operation):
        return operation
    if operation.function not in BY_TENSOR or any(_numbers_in(operation.keywords.values())):
        raise Unrecordable(f"{operation.function._schema.name} takes a number that isn't the same in each step")
    return replace(operation, function=BY_TENSOR[operation.function])


def _takes_number(operation: Operation) -> bool:
    return any(_numbers_in(operation.arguments, operation.keywords.values()))


def _numbers_in(*values: Any) -> Iterator[Number]:
    for value in values:
        if isinstance(value, Number):
            yield value
        elif not isinstance(value, str) and hasattr(value, "__iter__"):
            yield from _numbers_in(*value)


def _last_uses(operations: Sequence[Operation], reads: Sequence[Name]) -> list[set[Name]]:
    """Of each operation the tensors that no later one takes."""
    kept, last = set(reads), list[set[Name]]()
    for operation in reversed(operations):
        names = names_of(operation) | {name for name in operation.results if name}
        last.append(names - kept)
        kept |= names
    return last[::-1]
