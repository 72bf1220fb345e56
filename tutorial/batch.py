"""The size of a minibatch: what it does to the result, to time and to memory."""

import time
from typing import Any

from tutorial import draw, lab

SIZES = (4, 16, 64, 256, 1259)


def main() -> None:
    """Train with each size, with the same lr and with one that is scaled with the size."""
    lab.pinned(lab.params())
    figure, axes = draw.panels("The same lr for each size", "lr in proportion to the size")
    results, seconds = [], []
    for axis, reference in zip(axes, (None, 64), strict=True):
        for number, size in enumerate(SIZES):
            losses, times, began = [], [], time.perf_counter()
            for metrics, _ in lab.epochs(lab.params(batch__size=size, train__lr_reference_batch=reference)):
                losses.append(metrics["validation/loss"])
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
            results.append(losses[-1])
            seconds.append(min(times))
            axis.semilogy(range(1, len(losses) + 1), losses, label=f"{size}", **draw.style(number, 3))
        axis.set(xlabel="epoch", ylabel="validation loss", ylim=(0.07, 3))
        axis.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        axis.minorticks_off()
    axes[1].legend(title="rows in a minibatch", fontsize=9)
    memory = [_saved_bytes(lab.trainer(lab.params(batch__size=size)), size) for size in SIZES]
    draw.table(
        ("size", "steps per epoch", "loss, same lr", "loss, scaled lr", "memory of a step", "time of an epoch"),
        *(
            (
                f"{size}",
                f"{-(-1259 // size)}",
                f"{same:.4f}",
                f"{scaled:.4f}",
                f"{saved / 1024:.0f} KiB",
                f"{1000 * spent:.0f} ms",
            )
            for size, same, scaled, saved, spent in zip(
                SIZES, results[: len(SIZES)], results[len(SIZES) :], memory, seconds[: len(SIZES)], strict=True
            )
        ),
    )
    draw.save(figure, "batch")

    figure, (left, right) = draw.panels("Time of an epoch (measured here)", "Memory that a step keeps for its gradient")
    left.loglog(SIZES, [1000 * spent for spent in seconds[: len(SIZES)]], **draw.style(0))
    left.set(xlabel="rows in a minibatch", ylabel="milliseconds")
    right.loglog(SIZES, [saved / 1024 for saved in memory], **draw.style(1))
    right.set(xlabel="rows in a minibatch", ylabel="KiB")
    left.set_yticks([3, 10, 30, 100, 300, 1000], ["3", "10", "30", "100", "300", "1000"])
    left.set_ylim(0.7 * min(seconds) * 1000, 1.4 * max(seconds) * 1000)
    right.set_yticks([10, 100, 1000], ["10", "100", "1000"])
    for axis in (left, right):
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.minorticks_off()
    draw.save(figure, "batch-cost")


def _saved_bytes(trainer: Any, size: int) -> int:
    """What the forward pass of a minibatch keeps for the backward one, weights aside."""
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept = {}

    def keep(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    rows = torch.arange(size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.objective.loss(
            trainer.model(trainer.training.inputs[:][rows]), trainer.training.targets[:][rows]
        )
    assert loss.requires_grad  # until here all of it is held
    return sum(kept.values())
