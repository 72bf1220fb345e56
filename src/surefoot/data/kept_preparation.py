"""The preparation of the model that training starts from (`train.start_from`).

It is kept, so that the model's weights fit whatever new rows bring: `prepare_as_kept`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from surefoot.base import paths, reading
from surefoot.base.errors import UserError
from surefoot.params.date_formats import check_format
from surefoot.params.prepare_section import PrepareParams

FILE = paths.START_FROM / "preparation.json"
BYTES = 256 << 20  # more than any: it has a text for each category
Number = Annotated[float, Field(strict=False)]
Size = Annotated[int, Field(ge=0, lt=2**31)]


class Feature(BaseModel):
    """What becomes of an input column: the dict that `surefoot.data.features` describes, checked."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    column: str
    kind: Literal["numeric", "boolean", "category", "date", "array"]
    first: Size
    width: Size
    names: list[str] = []
    fill: list[Number] | None = None
    indicator: bool = False
    subtract: list[Number] | None = None
    divide: list[Annotated[Number, Field(gt=0)]] | None = None
    parts: list[Literal["year", "month", "day", "weekday", "hour", "minute", "second"]] = []
    unit: str | None = None
    zone: Literal["UTC"] | None = None
    format: Annotated[str, AfterValidator(check_format)] | None = None
    values: list[str | None] = []
    encode: Literal["onehot", "codes"] = "onehot"
    dtype: Literal["uint8", "int64", "float32", "float64"] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> "Feature":
        if self.kind == "array":
            numbers, width = self.width if self.subtract is not None else 0, self.width
        elif self.kind == "category":
            numbers, width = 0, 1 + len(self.values) if self.encode == "onehot" else 1
        else:
            numbers = len(self.parts) if self.kind == "date" else 1
            width = numbers + self.indicator
        scaling = (
            len(self.subtract or []),
            len(self.divide or []),
            len(self.fill) if self.fill is not None else numbers,
        )
        if (
            self.width != width
            or scaling != (numbers, numbers, numbers)
            or (self.kind == "array" and self.dtype is None)
        ):
            raise ValueError("its numbers don't add up")
        return self


class KeptPreparation(BaseModel):
    """A model's preparation: its classes, the features of its inputs, the scale of bytes, and that of a number to
    predict.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    task: Literal["classification", "binary", "regression"]
    classes: list[str]
    features: Annotated[list[Feature], Field(min_length=1)]
    scale: dict[Literal["subtract", "divide"], list[Number]] | None
    target_scale: (
        dict[Literal["subtract", "divide"], Annotated[list[Number], Field(min_length=1, max_length=1)]] | None
    ) = None

    @model_validator(mode="after")
    def _adds_up(self) -> "KeptPreparation":
        first = 0
        for feature in self.features:
            if feature.first != first:
                raise ValueError(f"column {feature.column!r} has no place")
            first += feature.width
        for scale in (self.scale, self.target_scale):
            if scale is not None and (
                scale.keys() != {"subtract", "divide"}
                or len(scale["subtract"]) != len(scale["divide"])
                or 0 in scale["divide"]
            ):
                raise ValueError("a scale's numbers don't add up")
        if (self.task == "regression") != (not self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError("its classes don't fit its task")
        return self

    def plain(self) -> dict[str, Any]:
        """As dicts, as `schema.json` has them; the same preparation gives the same bytes."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse_preparation(given: Any) -> KeptPreparation | None:
    """A preparation that comes from elsewhere, or None where it isn't one."""
    try:
        return KeptPreparation.model_validate(given)
    except (ValidationError, RecursionError):
        return None


def read_preparation(prepare: PrepareParams, path: Path = FILE) -> KeptPreparation | None:
    """The preparation that is to be kept; None where training starts from fresh weights, where it isn't known, or
    params.yaml wants it fitted anew.

    Raises:
        UserError: it can't be read, or is damaged.
    """
    if prepare.refit or not path.exists():
        return None
    try:
        data = reading.read_file(path, BYTES)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    if data.strip() == b"null":
        return None
    try:
        return KeptPreparation.model_validate_json(data)
    except ValidationError:
        raise UserError(
            f"{path} is damaged; `dvc checkout {paths.START_FROM}` brings it back, or `dvc repro --force start_from`"
            " looks it up anew"
        ) from None
