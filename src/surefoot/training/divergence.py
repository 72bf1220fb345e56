"""Numbers that aren't finite any more, and where in a network that began."""

from typing import Any

import torch
from torch import Tensor, nn

from surefoot.training.numerics import seed_step


class Diverged(Exception):
    """The loss, or the norm of the gradient, became NaN or infinite, `step` steps into an epoch; None: in the
    validation after it.
    """

    def __init__(self, step: int | None, value: float, lr: float, began: str, what: str = "loss") -> None:
        where = f"at step {step}" if step else "in the validation after it"
        super().__init__(f"the {what} became {value} {where}, with lr {lr:g}; it began in {began}")
        self.epoch = 0  # set by who knows it


def began(model: nn.Module, inputs: Tensor, seed: int, step: int) -> str:
    """The first layer, in the order in which they are computed, whose weights or outputs aren't finite, with its name
    and class.

    Args:
        model: as it was when the loss wasn't finite; its buffers may change.
        inputs: (rows, *shape), of that minibatch.
        seed: of the run, with `step`, so that the same is drawn again.
        step: of the run.
    """
    found: list[str] = []

    def look(name: str, module: nn.Module, outputs: Any) -> None:
        if found:
            return
        bad = [parameter for parameter, values in module.named_parameters(recurse=False) if not _finite(values)]
        layer = f"layer {name!r} ({type(module).__name__})" if name else type(module).__name__
        if bad:
            found.append(f"{layer}, whose {' and '.join(bad)} the step before it brought beyond all numbers")
        elif any(not _finite(tensor) for tensor in _tensors(outputs)):
            largest = max((float(values.detach().abs().max()) for values in module.parameters()), default=0.0)
            weights = f", with weights up to {largest:.3g}" if largest else ""
            found.append(f"{layer}: the first output that isn't finite{weights}")

    hooks = [
        module.register_forward_hook(lambda module, _, outputs, name=name: look(name, module, outputs))
        for name, module in model.named_modules()
    ]
    try:
        seed_step(seed, step)
        with torch.no_grad():
            outputs = model(inputs)
    except Exception:  # numbers that aren't finite may break anything
        return found[0] if found else "unknown"
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    return f"the loss itself: the network's outputs are finite, up to {float(outputs.detach().abs().max()):.3g}"


def began_backward(model: nn.Module) -> str:
    """The last parameter of the network whose gradient isn't finite: the backward pass reaches it first."""
    gradients = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]
    bad = [name for name, gradient in gradients if not _finite(gradient)]
    if bad:
        return f"the gradient of {bad[-1]}"
    largest = max((float(gradient.abs().max()) for _, gradient in gradients), default=0.0)
    return f"gradients up to {largest:.3g}, which are too large to be squared"


def remedies(task: str, loss: str, *, inputs_scaled: bool, target_scaled: bool) -> str:
    """What may help against a loss that isn't finite beside another learning rate, as the end of a sentence; nothing
    where we can't know.

    Args:
        task: classification, binary or regression.
        loss: `train.loss.name`.
        inputs_scaled: by `prepare.normalize`.
        target_scaled: by `prepare.normalize_target`.
    """
    inputs = [] if inputs_scaled else ["prepare.normalize: standard, as the inputs aren't scaled"]
    if task != "regression":
        return "".join(f", or {remedy}" for remedy in inputs)
    target = [] if target_scaled else ["prepare.normalize_target: standard, as the target isn't scaled"]
    robust = (
        ["train.clip_norm: 1"]
        if loss in ("HuberLoss", "SmoothL1Loss", "L1Loss")
        else ["train.loss.name: HuberLoss, to which targets far from all others matter less"]
    )
    known = [] if inputs or target else [" (inputs and target are scaled already)"]
    return "".join(f", or {remedy}" for remedy in [*inputs, *target, *robust]) + "".join(known)


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values.detach()).all())


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in _tensors(part)] if isinstance(outputs, list | tuple) else []
