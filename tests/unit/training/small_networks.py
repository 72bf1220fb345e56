"""Networks that by_hand.py trains. They import nothing of the project's, so their source is quickly digested."""

from torch import nn


def network(input_shape, outputs):
    """Something of all that a state has."""
    return nn.Sequential(
        nn.Linear(5, 7),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(7, 6),
        nn.LayerNorm(6),
        nn.ReLU(),
        nn.Linear(6, outputs),
    )


def matrices(input_shape, outputs):
    """Nothing but matrices, which Muon needs."""
    return nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, outputs, bias=False))


class Bag(nn.Module):
    """Nothing but an embedding with sparse gradients, which SparseAdam needs."""

    def __init__(self, outputs):
        super().__init__()
        self.words = nn.Embedding(16, outputs, sparse=True)

    def forward(self, inputs):
        return self.words((inputs.abs() * 7).long() % 16).sum(1)


def bag(input_shape, outputs):
    return Bag(outputs)
