"""The network in a stored state."""

import json

from surefoot.run.trajectory_store import TrajectoryStore


def stored_network(store: TrajectoryStore, key: str, averaged: bool = False) -> bytes | None:
    """The network in the state under a key, as safetensors, with averaged weights if so; None where that is missing or
    damaged.
    """
    state = store.state_of(key)
    return part_of_state(state, "average." if averaged else "model.") if state is not None else None


def part_of_state(state: bytes, prefix: str) -> bytes:
    """The tensors of a trainer's state whose names begin with `prefix`, without it, as safetensors.

    The same bytes as `training.network.network_of` makes, without torch, whose import takes longer than all that the
    process that writes to MLflow does else.
    """
    data = 8 + int.from_bytes(state[:8], "little")  # where it begins; before it lies a header, after its length
    header, parts, end = {}, [], 0
    for name, about in json.loads(state[8:data]).items():  # in the order of the data
        if name.startswith(prefix):
            first, last = about["data_offsets"]
            parts.append(state[data + first : data + last])
            header[name.removeprefix(prefix)] = about | {"data_offsets": [end, end + last - first]}
            end += last - first
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
