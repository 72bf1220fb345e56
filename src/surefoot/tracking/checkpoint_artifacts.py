"""Where a run in MLflow has networks on its way, as artifacts."""

LAST = "checkpoints/last.safetensors"
"""The network after the last epoch, also where the run went no further."""


def checkpoint_path(epoch: int) -> str:
    """Of the network after an epoch that is to be kept (`train.save_every`)."""
    return f"checkpoints/epoch-{epoch:04}.safetensors"
