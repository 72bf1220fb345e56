"""What went wrong in a shard, told to all processes, so that each ends its step in the same way."""

import json
from collections.abc import Sequence
from typing import Any

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.training.divergence import Diverged
from surefoot.training.sharded.tree import Transport

Fault = dict[str, Any]


def failure(error: BaseException, shard: int, shards: int, step: int) -> Fault:
    """The network, or the user's loss, raised something."""
    if isinstance(error, UserError):
        return {"error": list(error.args)}
    return {
        "error": [
            f"train.model: the network fails in training, at step {step} of the epoch, on shard {shard + 1} of"
            f" {shards} (train.shards): {describe_error(error)}"
        ]
    }


def no_sum() -> Fault:
    """A gradient is sparse."""
    return {"error": ["train.shards: sparse gradients, as of an embedding with sparse=True, need shards: 1"]}


def raise_first(faults: Sequence[Fault], transport: Transport, step: int, lr: float) -> None:
    """Raise what is wrong with the first shard that has something.

    Args:
        faults: of this process's shards, in their order.
        transport: to the other processes.
        step: within the epoch.
        lr: of the step.

    Raises:
        Diverged: its loss isn't finite.
        UserError: the network failed on it.
    """
    first = json.loads(transport.first_text(json.dumps(faults[0]) if faults else ""))
    if "error" in first:
        raise UserError(*first["error"])
    raise Diverged(step, first["loss"], lr, first["began"])
