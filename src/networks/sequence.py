"""A small recurrent network for sequences of tokens."""

from torch import Tensor, nn


class Sequence(nn.Module):
    """Embedding, GRU, and the mean over the sequence."""

    def __init__(self, tokens: int, outputs: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Token numbers int64 (rows, length) to (rows, outputs)."""
        states, _ = self.recurrent(self.embedding(rows))
        given: Tensor = self.head(states.mean(1))
        return given


def sequence(input_shape: tuple[int, ...], outputs: int, tokens: int = 256, width: int = 32) -> nn.Module:
    """A GRU over sequences of integers from 0 to tokens - 1."""
    if len(input_shape) != 1:
        raise ValueError(f"sequence needs rows of tokens, not {list(input_shape)}")
    return Sequence(tokens, outputs, width)
