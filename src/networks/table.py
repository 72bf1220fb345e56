"""A network for tables with categories."""

from typing import Any

import torch
from torch import Tensor, nn


class Table(nn.Module):
    """Embeds each category column (`prepare.categories: codes`), and passes them with the other inputs through fully
    connected layers.
    """

    def __init__(self, schema: dict[str, Any], outputs: int, embedding: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        coded = [feature for feature in schema["features"] if feature.get("encode") == "codes"]
        places = {feature["first"] for feature in coded}
        width = sum(feature["width"] for feature in schema["features"])
        self.codes = sorted(places)
        self.others = [place for place in range(width) if place not in places]
        # Code 0 stands for a category that wasn't among the training rows.
        self.embeddings = nn.ModuleList(
            nn.Embedding(1 + len(feature["values"]), embedding)
            for feature in sorted(coded, key=lambda feature: feature["first"])
        )
        layers: list[nn.Module] = []
        width = len(self.others) + embedding * len(coded)
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Inputs (rows, features) to (rows, outputs)."""
        embedded = [
            embedding(rows[:, place].long()) for place, embedding in zip(self.codes, self.embeddings, strict=True)
        ]
        given: Tensor = self.layers(torch.cat([rows[:, self.others], *embedded], 1))
        return given


def table(
    input_shape: tuple[int, ...],
    outputs: int,
    schema: dict[str, Any],
    embedding: int = 8,
    hidden: list[int] | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """A fully connected network on numbers and embedded categories: inputs (rows, features) to (rows, outputs)."""
    if len(input_shape) != 1:
        raise ValueError(f"table needs flat rows, not {list(input_shape)}: set batch.shape to null")
    return Table(schema, outputs, embedding, [64] if hidden is None else hidden, dropout)
