"""The section `batch` of params.yaml: tables to fixed-width tensors in training order."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from surefoot.params.section_base import Positive, Section


class _OrAuto:
    """In the JSON schema: also `auto`."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = handler(core_schema)
        return {"anyOf": [{"const": "auto"}, *known.get("anyOf", [known])]}


class BatchParams(Section):
    """batch: tables to fixed-width tensors in training order."""

    size: int = Field(default=64, gt=0)
    """Rows in a minibatch."""
    shape: Annotated[
        Annotated[tuple[Positive, ...], Field(min_length=1, max_length=32, strict=False)] | None,
        BeforeValidator(lambda given: None if given == "auto" else given),
        _OrAuto(),
    ] = None
    """The shape of one input, say [1, 8, 8] for channels, height, width; `auto`, null: that of the images or arrays;
    rows of a table are flat.
    """
    drop_last: bool = False
    """Whether to leave out the last minibatch of an epoch when it isn't full."""
    shuffle: Literal["full", "blocks"] = "full"
    """Each epoch in another order: of all rows; or of blocks of rows, shuffled within a window, so that data larger
    than memory is read in stretches.
    """
    block: int = Field(default=1024, gt=0)
    """Rows in a block (`shuffle: blocks`)."""
    window: int = Field(default=16, gt=0)
    """Blocks in a window (`shuffle: blocks`)."""
