"""A network's outputs on many rows, by several processes: each computes some of the parts that one alone would."""

import json
from math import prod

import torch
from torch import Tensor, nn

from surefoot.training.minibatches import Stored
from surefoot.training.network import EVALUATION_BYTES, EVALUATION_ROWS, device_of, outputs_of
from surefoot.training.sharded.tree import Transport, shards_of


def evaluation_parts(inputs: Tensor | Stored) -> list[tuple[int, int]]:
    """The parts in which `outputs_of` takes rows: first, and one after the last."""
    rows = max(1, min(EVALUATION_ROWS, EVALUATION_BYTES // max(1, 4 * prod(inputs.shape[1:]))))
    return [(first, min(first + rows, len(inputs))) for first in range(0, len(inputs), rows)]


def outputs_by_all(model: nn.Module, inputs: Tensor | Stored, transport: Transport) -> Tensor | None:
    """As `outputs_of`, called by all processes at the same time; None where one of them failed."""
    parts = evaluation_parts(inputs)
    own = shards_of(transport.rank, transport.size, len(parts))
    mine, failed = None, ""
    try:
        found = [outputs_of(model, inputs[first:stop]) for first, stop in parts[own.start : own.stop]]
        mine = torch.cat(found) if found else None
    except (Exception, SystemExit):
        failed = "failed"
    if transport.first_text(failed):
        return None
    told = "" if mine is None else json.dumps([list(mine.shape[1:]), str(mine.dtype).removeprefix("torch.")])
    shape, kind = json.loads(transport.first_text(told))
    flat = torch.empty(0, dtype=getattr(torch, kind), device=device_of(model)) if mine is None else mine.reshape(-1)
    # All give as many numbers: as many as the one with the most parts has.
    rows = [
        sum(stop - first for first, stop in parts[some.start : some.stop])
        for some in (shards_of(rank, transport.size, len(parts)) for rank in range(transport.size))
    ]
    each, most = prod(shape), max(rows) * prod(shape)
    whole = transport.collect(torch.cat([flat, flat.new_zeros(most - len(flat))]), transport.size * most)
    return torch.cat([part[: count * each] for part, count in zip(whole.split(most), rows, strict=True)]).view(
        -1, *shape
    )
