"""Sums over shards, added up in one binary tree whatever process has which shard.

The leaves are the shards in their order. On each level neighbours are added, and one that has none goes up as it is. A
node is (level, place): its leaves are those from place << level on, 1 << level of them or those that there are.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Node = tuple[int, int]
BUCKET = 1 << 22  # numbers that are exchanged at once


class Transport(Protocol):
    """Brings numbers from process to process, and computes nothing."""

    rank: int
    size: int  # processes

    def exchange(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """Give each process its slice of these tensors of one length, of which process p has counts[p]. Returns this
        process's slice of all of them, in the order of processes.
        """

    def collect(self, part: Tensor, length: int) -> Tensor:
        """The slices of all processes as one tensor of this length."""

    def give_out(self, tensors: Sequence[Tensor]) -> None:
        """Bring what the first process has in these tensors to the others."""

    def first_text(self, text: str) -> str:
        """The text of the first process that has one that isn't empty."""


def shards_of(rank: int, processes: int, shards: int) -> range:
    """The shards of a process: in their order, as many as others have, or one more or less."""
    return range(rank * shards // processes, (rank + 1) * shards // processes)


def root_of(shards: int) -> Node:
    """The node of all shards."""
    return (shards - 1).bit_length(), 0


def nodes_of(own: range, shards: int) -> list[Node]:
    """The largest subtrees that have none but these shards, in their order."""
    found, first = [], own.start
    while first < own.stop:
        level = 0
        while (
            level < root_of(shards)[0] and first % (2 << level) == 0 and min(first + (2 << level), shards) <= own.stop
        ):
            level += 1
        found.append((level, first >> level))
        first = min(first + (1 << level), shards)
    return found


def sum_of(node: Node, shards: int, known: Callable[[Node], list[Tensor] | None]) -> list[Tensor]:
    """The sum of a subtree.

    Args:
        node: its root.
        shards: in all.
        known: what is to be added up for a node that is known, as each leaf must be; the tensors are added to. Leaves
            are asked for in their order.
    """
    found = known(node)
    if found is not None:
        return found
    level, place = node[0] - 1, 2 * node[1]
    left = sum_of((level, place), shards, known)
    if (place + 1) << level < shards:
        for mine, other in zip(left, sum_of((level, place + 1), shards, known), strict=True):
            mine.add_(other)
    return left


def total_of(parts: Sequence[Tensor], shards: int, transport: Transport) -> Tensor:
    """The sum over all shards.

    Args:
        parts: this process's sums of its `nodes_of`, each (numbers,).
        shards: in all.
        transport: to the other processes.
    """
    if transport.size == 1:
        return parts[0]  # the root's
    nodes_by_rank = [nodes_of(shards_of(rank, transport.size, shards), shards) for rank in range(transport.size)]
    nodes, counts = [node for some in nodes_by_rank for node in some], list(map(len, nodes_by_rank))
    totals = []
    for bucket in zip(*(part.split(BUCKET) for part in parts), strict=True):
        slices = dict(zip(nodes, transport.exchange(bucket, counts), strict=True))
        (mine,) = sum_of(root_of(shards), shards, lambda node: [slices[node]] if node in slices else None)  # noqa: B023
        totals.append(transport.collect(mine, len(bucket[0])))
    return totals[0] if len(totals) == 1 else torch.cat(totals)
