"""A tape of a step: the operations below autograd that one real step consists of, with their tensors by name."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _get_value
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from surefoot.base.user_code import describe_error
from surefoot.training import openblas_linear
from surefoot.training.recorded import openblas_product
from surefoot.training.step import Minibatch, _clip

aten = torch.ops.aten
# A step of more operations isn't worth its recording: Python is a small part of its time.
MOST_OPERATIONS = 10_000
# Code that may read a value: the file of the step its losses and norms; an optimizer how many steps it took; torch's
# average how many it has seen, of which it matters only whether there are some.
STEP = _clip.__code__.co_filename
COUNT, AVERAGE = _get_value.__code__, AveragedModel.update_parameters.__code__
# Methods of a tensor that hand its values to Python without an operation.
HANDS_OUT = {"tolist", "numpy", "__array__", "__dlpack__", "data_ptr", "storage", "untyped_storage"}


class Name(str):
    """A tensor of a step: `x0` and `y0` of the first minibatch, `t0` what outlives the step, `v0` what it computes."""

    __slots__ = ()


@dataclass(frozen=True)
class Operation:
    """A call: its tensors are names.

    Args:
        function: what is called.
        arguments: what it is given.
        keywords: also.
        results: what it gives, flat; None where that is no tensor.
        gives_list: whether it gives one list.
    """

    function: Any  # torch._ops.OpOverload
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[Name | None, ...]
    gives_list: bool


@dataclass
class Recording:
    """What a step did."""

    operations: list[Operation] = field(default_factory=list)
    outside: dict[Name, Tensor] = field(default_factory=dict)  # what was there before
    before: dict[Name, Tensor] = field(default_factory=dict)  # its values
    inputs: dict[Name, Tensor] = field(default_factory=dict)  # the rows of its minibatches
    ones: dict[Name, Tensor] = field(default_factory=dict)  # what it makes of the number 1 alone
    reads: list[Name] = field(default_factory=list)  # losses, then norms
    counts: set[float] = field(default_factory=set)  # of steps, that the optimizer read
    counter: Tensor | None = None  # one that it read
    update: int = 0  # where among the operations the optimizer begins
    reason: str | None = None  # why it can't be taken by anything but Python

    def refuse(self, reason: str) -> None:
        """Note why; the first reason stands."""
        self.reason = self.reason or reason


class Tape(TorchDispatchMode):
    """Records while it is entered.

    Args:
        knows_count: whether the optimizer's reading of how many steps it took is provided for.
    """

    def __init__(self, knows_count: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording()
        self._knows_count = knows_count
        # Weakly, so that autograd may hand gradients on as it does without a tape, not copies.
        self._names = WeakTensorKeyDictionary()
        self._transposed: dict[Name, Name] = {}
        self.is_paused = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it would import it, which takes a second

    def inputs(self, minibatches: Iterable[Minibatch]) -> Iterator[Minibatch]:
        """See the minibatches of the step go by. How they are gathered isn't recorded."""
        several = iter(minibatches)
        for number in range(sys.maxsize):
            with self.paused():
                pair = next(several, None)
            if pair is None:
                return
            for name, tensor in zip((f"x{number}", f"y{number}"), pair, strict=True):
                self._names[tensor] = Name(name)
                self.recording.inputs[Name(name)] = tensor
            yield pair

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing for a while."""
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        if self.is_paused or function.namespace == "profiler":
            return function(*arguments, **keywords)
        given, named = self._named(arguments), {key: self._named(value) for key, value in keywords.items()}
        result = function(*arguments, **keywords)
        if function is aten._local_scalar_dense.default:
            self._read(given[0], result)
        elif function in (aten.detach.default, aten.alias.default):
            self._names[result] = given[0]
        elif _is_setting(function, result, (given, *named.values())):
            return result
        elif function is aten.t.default and given[0] in self._transposed:
            self._names[result] = self._transposed[given[0]]
        else:
            self._add(function, given, named, arguments, result)
        return result

    def _named(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value not in self._names:
                name = Name(f"t{len(self.recording.outside)}")
                self._names[value] = name
                self.recording.outside[name] = value
                self.recording.before[name] = value.detach().clone()
            return self._names[value]
        if isinstance(value, list | tuple):
            return tuple(self._named(each) for each in value)
        return value

    def _add(
        self, function: Any, given: tuple[Any, ...], named: dict[str, Any], arguments: tuple[Any, ...], result: Any
    ) -> None:
        recording = self.recording
        results: list[Name | None] = []
        for each in flat(result):
            if not isinstance(each, Tensor):
                if each is not None and not _is_size(function, each):
                    recording.refuse(f"{_caller()} reads a value of a tensor in Python")
                results.append(None)
                continue
            if each.layout != torch.strided:
                recording.refuse("a gradient or another tensor is sparse")
            if each not in self._names:
                self._names[each] = Name(f"v{len(recording.operations)}_{len(results)}")
            results.append(self._names[each])
        if torch.Tag.inplace_view in function.tags and given[0][0] in "txy":
            # Each step of a program would do it to the same tensor once more.
            recording.refuse(
                f"{_caller()} changes the shape of a tensor that outlives a step ({function._schema.name})"
            )
        if depends_on_values(function, arguments):
            recording.refuse(f"{_caller()} computes a tensor whose size depends on values ({function._schema.name})")
        if len(recording.operations) >= MOST_OPERATIONS:
            recording.refuse(f"it has more than {MOST_OPERATIONS:,} operations")
            return
        if function is aten.t.default and results[0]:
            self._transposed[results[0]] = given[0]
        if function is aten.ones_like.default and results[0] and result.numel() == 1:
            recording.ones[results[0]] = result.detach().clone()
        recording.operations.append(Operation(function, given, named, tuple(results), isinstance(result, list)))

    def _read(self, name: Name, value: Any) -> None:
        recording, reader = self.recording, next(_frames()).f_code
        if reader.co_filename == STEP:
            recording.reads.append(name)
            recording.update = len(recording.operations)
        elif reader is COUNT and self._knows_count:
            recording.counts.add(value)
            recording.counter = recording.outside.get(name)
        elif reader is not AVERAGE:
            recording.refuse(f"{_caller()} reads a value of a tensor in Python")


class _Watcher(TorchFunctionMode):
    """Sees values that are handed to Python without an operation."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        if not self._tape.is_paused and getattr(function, "__name__", "") in HANDS_OUT:
            self._tape.recording.refuse(f"{_caller()} hands a tensor's values to Python ({function.__name__})")
        return function(*arguments, **(keywords or {}))


def record(take_step: Callable[[Tape], object], knows_count: bool) -> Recording:
    """Take a step with a tape running.

    Args:
        take_step: takes it; the tape must see its minibatches (`Tape.inputs`).
        knows_count: see `Tape`.
    """
    tape, multiply = Tape(knows_count), openblas_linear._multiply
    openblas_linear._multiply = openblas_product.as_operation()  # type: ignore[assignment]
    try:
        with tape, _Watcher(tape):
            take_step(tape)
    except (Exception, SystemExit) as error:  # if it isn't for the tape, taking the step without one says it
        tape.recording.refuse(f"it can't be recorded: {describe_error(error)}")
    finally:
        openblas_linear._multiply = multiply
    return tape.recording


def flat(result: Any) -> list[Any]:
    """What an operation gives, one after the other; among several there may be a list."""
    if not isinstance(result, list | tuple):
        return [result]
    return [each for some in result for each in flat(some)]


def _is_setting(function: Any, result: Any, given: tuple[Any, ...]) -> bool:
    """Whether an operation, one of torch's own, says how torch computes, and nothing of a tensor."""
    return function.namespace == "aten" and not isinstance(result, Tensor | list | tuple) and not _holds_tensor(given)


def _is_size(function: Any, result: Any) -> bool:
    """Whether an operation, one of torch's own, gives a number that follows from shapes, as attention does."""
    is_free = torch.Tag.data_dependent_output not in function.tags
    return function.namespace == "aten" and type(result) is int and is_free


def _holds_tensor(value: Any) -> bool:
    """Whether what an operation is given has a tensor's name in it."""
    return isinstance(value, Name) or (isinstance(value, tuple) and any(map(_holds_tensor, value)))


def depends_on_values(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the size of what an operation gives follows from values."""
    if function in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
    return torch.Tag.dynamic_output_shape in function.tags or function is aten._pack_padded_sequence.default


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _caller() -> str:
    """Whose operation this is: the innermost place in the user's code, or else torch's module."""
    inner = ""
    for frame in _frames():
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("surefoot."):
            break
        if module.partition(".")[0] != "torch":
            return f"{module}, line {frame.f_lineno},"
        inner = inner or module
    return inner or "the step"
