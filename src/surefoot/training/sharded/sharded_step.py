"""A step whose minibatches are cut into shards: the gradient is the sum of those of the shards, each by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surefoot.data.splitmix64 import key_of
from surefoot.training.divergence import Diverged, began
from surefoot.training.numerics import seed_step
from surefoot.training.sharded.faults import Fault, failure, no_sum, raise_first
from surefoot.training.sharded.tree import Transport, nodes_of, shards_of, sum_of, total_of
from surefoot.training.step import Minibatch, Stepper


@dataclass(frozen=True)
class ShardedMinibatch:
    """What a process has of a minibatch.

    Args:
        targets: of all its rows.
        own: rows of this process's shards, by shard; a shard of a small minibatch may have none.
    """

    targets: Tensor
    own: dict[int, Minibatch]

    def __len__(self) -> int:
        return len(self.targets)


def shard_seed(seed: int, shard: int) -> int:
    """What a shard draws its randomness from, with the step: not that of the whole step, nor of another run's."""
    return key_of(f"surefoot {seed} shard {shard}") >> 1


def shard_sizes(rows: int, shards: int) -> list[int]:
    """How many rows of a minibatch each shard has: they differ by one at most."""
    return [rows // shards + (shard < rows % shards) for shard in range(shards)]


class ShardedStepper(Stepper):
    """Takes steps whose minibatches are cut into shards.

    With several minibatches a step, a shard has its part of each of them, one after the other. Each shard begins with
    the buffers that the network had before the step. Afterwards those of floating point are the mean of what the shards
    made of them, others are the first shard's.

    Args:
        shards: so many.
        transport: to the other processes.
        given: as `Stepper`.
    """

    def __init__(self, *given: Any, shards: int, transport: Transport) -> None:
        super().__init__(*given)
        self._shards, self._transport = shards, transport
        self._trained = [parameter for parameter in self._parameters if parameter.requires_grad]

    def _compute_gradient(self, minibatches: Sequence[Any], number: int, lr: float) -> list[float]:
        """As `Stepper`'s, of `ShardedMinibatch`es; returns the loss of all of them together."""
        rows, shares = sum(map(len, minibatches)), self._shares(minibatches)
        before = [buffer.detach().clone() for buffer in self._model.buffers()]
        first: list[Tensor] = []  # the buffers after the first shard
        faults: list[Fault] = []

        def shard_sums(shard: int) -> list[Tensor]:
            self._put_buffers(before)
            seed_step(shard_seed(self._seed, shard), number)
            for parameter in self._trained:
                parameter.grad = None
            parts = [(*minibatch.own[shard], some[shard]) for minibatch, some in zip(minibatches, shares, strict=True)]
            loss, found = self._run_shard(parts, rows, shard, number)
            faults.extend([found] if found else [])
            if shard == 0:
                first.extend(buffer.detach().clone() for buffer in self._model.buffers())
            return self._pack(loss, found is not None, before)

        own = shards_of(self._transport.rank, self._transport.size, self._shards)
        sums = [
            sum_of(node, self._shards, lambda node: None if node[0] else shard_sums(node[1]))
            for node in nodes_of(own, self._shards)
        ]
        totals = [total_of(parts, self._shards, self._transport) for parts in zip(*sums, strict=True)]
        loss, wrong = self._unpack(totals, before, first)
        if wrong:
            raise_first(faults, self._transport, self._at(number), lr)
        if not math.isfinite(loss):
            raise Diverged(self._at(number), loss, lr, "the sum over shards: that of each is finite")
        return [loss * rows]

    def _shares(self, minibatches: Sequence[ShardedMinibatch]) -> list[list[float]]:
        """How many of the step's rows the loss of each part stands for: by minibatch, then by shard."""
        parts = [part for each in minibatches for part in each.targets.split(shard_sizes(len(each), self._shards))]
        shares = list(self._objective.share(parts))
        return [shares[first : first + self._shards] for first in range(0, len(shares), self._shards)]

    def _run_shard(
        self, parts: Sequence[tuple[Tensor, Tensor, float]], rows: int, shard: int, number: int
    ) -> tuple[float, Fault | None]:
        """Forward and backward on a shard's parts, with their shares. Returns its part of the loss, and what is wrong
        with it.
        """
        model, total = self._model, 0.0
        try:
            for inputs, targets, share in parts:
                if not len(targets):
                    continue
                with self._autocast:
                    loss = self._objective.loss(model(inputs), targets)
                if not share:  # all its rows have weight 0, and torch would divide by that
                    continue
                value = loss.item()
                if not math.isfinite(value):
                    where = began(model, inputs, shard_seed(self._seed, shard), number)
                    return value, {"loss": value, "began": where}
                (loss * (share / rows)).backward()
                total += value * (share / rows)
        except (Exception, SystemExit) as error:
            return math.nan, failure(error, shard, self._shards, self._at(number))
        if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in self._trained):
            return math.nan, no_sum()
        return total, None

    # --- what is added up, as one tensor for each type of number

    def _put_buffers(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self._model.buffers(), values, strict=True):
                buffer.copy_(value)

    def _pack(self, loss: float, wrong: bool, before: Sequence[Tensor]) -> list[Tensor]:
        """What a shard adds: gradients, buffers of floating point, and numbers: the loss, whether something is wrong,
        which parameters have a gradient, and which buffers changed.
        """
        gradients = [parameter.grad for parameter in self._trained]
        buffers = [(buffer, old) for buffer, old in zip(self._model.buffers(), before, strict=True) if _is_mean(buffer)]
        numbers = [
            loss,
            float(wrong),
            *(float(gradient is not None) for gradient in gradients),
            *(float(not torch.equal(buffer, old)) for buffer, old in buffers),
        ]
        packed = [torch.tensor(numbers, dtype=torch.float32, device=self._trained[0].device)]
        packed += [
            torch.zeros_like(parameter) if gradient is None or wrong else gradient
            for parameter, gradient in zip(self._trained, gradients, strict=True)
        ]
        packed += [buffer for buffer, _ in buffers]
        return [
            torch.cat([tensor.detach().reshape(-1) for tensor in packed if tensor.dtype == kind])
            for kind in _kinds(packed)
        ]

    def _unpack(self, totals: Sequence[Tensor], before: Sequence[Tensor], first: list[Tensor]) -> tuple[float, int]:
        """Put the sums where they belong; returns the loss, and how many shards have something wrong.

        Args:
            totals: what was added up.
            before: the buffers before the step.
            first: those after the first shard, if this process had it.
        """
        self._put_buffers(first or before)
        means = [(buffer, old) for buffer, old in zip(self._model.buffers(), before, strict=True) if _is_mean(buffer)]
        numbers = totals[0].new_empty(2 + len(self._trained) + len(means))
        numbers, *sums = _split(totals, [numbers, *self._trained, *(buffer for buffer, _ in means)])
        loss, wrong, *flags = numbers.tolist()
        for parameter in self._trained:
            there, gradient = flags.pop(0), sums.pop(0)
            parameter.grad = gradient if there else None
        with torch.no_grad():
            for (buffer, old), changed, total in zip(means, flags, sums, strict=True):
                # One that no shard changed stays as it is: the mean of equal numbers may be another.
                buffer.copy_(total / self._shards if changed else old)
        self._transport.give_out([buffer for buffer in self._model.buffers() if not _is_mean(buffer)])
        return loss, int(wrong)


def _is_mean(buffer: Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()


def _kinds(tensors: Sequence[Tensor]) -> list[torch.dtype]:
    """The types of numbers, in the order in which they come."""
    return list(dict.fromkeys(tensor.dtype for tensor in tensors))


def _split(flat: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """What was laid end to end, a tensor for each type of number, as tensors of the shapes of others."""
    rest = dict(zip(_kinds(like), flat, strict=True))
    found = []
    for tensor in like:
        part, rest[tensor.dtype] = rest[tensor.dtype].tensor_split([tensor.numel()])
        found.append(part.view(tensor.shape))
    return found
