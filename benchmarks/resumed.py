"""`python -m benchmarks.resumed`: whether Lightning gives the same weights in one go, twice, and in two parts.

As its documentation has it: seeded, deterministic, resumed by `ckpt_path` with a larger `max_epochs`. The package is
among those that `make bench` installs.
"""

import hashlib
import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 4


class Network(lightning.LightningModule):
    """An MLP, trained by SGD with momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss on a minibatch."""
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), 0.05, 0.9)


def trained(epochs: int, checkpoint: Path, resumed: Path | None = None) -> str:
    """Train to so many epochs, from a checkpoint if there is one, and leave another; a digest of the weights."""
    lightning.seed_everything(0, verbose=False)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1000, 64, generator=generator), torch.randint(10, (1000,), generator=generator)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        deterministic=True,
        enable_checkpointing=False,
        default_root_dir=checkpoint.parent,
        **quiet,
    )
    network = Network()
    trainer.fit(network, DataLoader(TensorDataset(*rows), 64, shuffle=True), ckpt_path=resumed)
    trainer.save_checkpoint(checkpoint)
    return hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in network.parameters())).hexdigest()[:12]


def main() -> None:
    """Print the digests."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        half, whole = Path(scratch) / "half.ckpt", Path(scratch) / "whole.ckpt"
        digests = [trained(EPOCHS, whole), trained(EPOCHS, whole)]
        trained(EPOCHS // 2, half)
        print(f"Lightning {lightning.__version__}, weights after {EPOCHS} epochs")
        print("in one go:", *digests)
        print("resumed:  ", trained(EPOCHS, whole, half))


if __name__ == "__main__":
    main()
