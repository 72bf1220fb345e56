"""The network in a stored state."""

from surefoot.run.trajectory_store import TrajectoryStore


def stored_network(store: TrajectoryStore, key: str, averaged: bool = False) -> bytes | None:
    """The network in the state under a key, as safetensors, with averaged weights if so; None where that is missing or
    damaged.
    """
    from surefoot.training.network import network_of  # late: it imports torch

    state = store.state_of(key)
    return network_of(state, averaged) if state is not None else None
