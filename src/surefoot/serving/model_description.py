"""`description.json` of a logged model: its network, and what it needs to know of its inputs and outputs."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from surefoot.base import limits, reading
from surefoot.base.errors import UserError
from surefoot.data import kept_preparation
from surefoot.data.kept_preparation import Feature
from surefoot.data.number_notation import Notation
from surefoot.params.train_section import ModelParams

DESCRIPTION, WEIGHTS = "description.json", "model.safetensors"
Size = Annotated[int, Field(gt=0, lt=2**31)]
BOTH = Field(min_length=2)  # of the names that there may be


class TextNotation(BaseModel):
    """How texts are read: which stand for a missing value, and the signs in numbers."""

    model_config = ConfigDict(strict=True)

    missing: list[str]
    decimal: Annotated[str, Field(min_length=1, max_length=1)]
    thousands: Annotated[str, Field(min_length=1, max_length=1)] | None


class ModelDescription(ModelParams):
    """`description.json`: the network's factory and arguments, and what it needs to know of its inputs and outputs."""

    model_config = ConfigDict(strict=True, extra="allow")

    task: Literal["classification", "binary", "regression"]
    classes: list[str]
    input_shape: Annotated[list[Size], Field(min_length=1, max_length=32)]
    features: Annotated[list[Feature], Field(min_length=1)]
    scale: Annotated[dict[Literal["subtract", "divide"], list[float]], BOTH] | None
    target_scale: (
        Annotated[
            dict[Literal["subtract", "divide"], Annotated[list[FiniteFloat], Field(min_length=1, max_length=1)]], BOTH
        ]
        | None
    ) = None
    notation: TextNotation | None = None


def read_description(directory: Path) -> dict[str, Any]:
    """`description.json` of such a directory, checked.

    Raises:
        UserError: it is missing, damaged, or isn't what it should be.
    """
    path = directory / DESCRIPTION
    try:
        text = reading.read_file(path, kept_preparation.BYTES)
    except OSError as error:
        raise UserError(
            f"{path}: can't be read: {limits.system_reason(error)}; is this a model that Surefoot logged?"
        ) from None
    try:
        checked: dict[str, Any] = ModelDescription.model_validate_json(text).model_dump(exclude_unset=True)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deep"}
        raise UserError(
            f"{path}: isn't a model's description: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        ) from None
    return checked


def notation_of_model(description: dict[str, Any]) -> Notation:
    """How the values of the raw data were written."""
    given = description.get("notation")
    return Notation(tuple(given["missing"]), given["decimal"], given["thousands"]) if given else Notation()
