"""The types of what is read back from files, MLflow or a store: whoever wrote it, it is only data.

Each document is checked before anything of it is used, and refused in a line where it isn't what it should be. Keys
that nothing here knows are kept. The types themselves lie in the room that they belong to.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # also a key of a state: part of a file's name
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Positive = Annotated[int, Field(gt=0, lt=2**62)]


class Malformed(ValueError):
    """A document isn't what it should be; one line that says where."""


class Document(BaseModel):
    """A JSON object, frozen."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", serialize_by_alias=True, populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """As dicts and lists, as it was read: what wasn't given is left out."""
        return self.model_dump(exclude_unset=True)


Kind = TypeVar("Kind", bound=Document)


def parse_document(kind: type[Kind], data: bytes) -> Kind:
    """A JSON document as what `kind` says, checked.

    Raises:
        Malformed: it isn't.
    """
    try:
        return kind.model_validate_json(data)
    except (ValidationError, RecursionError, MemoryError, ValueError) as error:
        raise Malformed(what_is_wrong(error)) from None


def what_is_wrong(error: Exception) -> str:
    """What is wrong with a document, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8"
    return (
        "it is nested too deep" if isinstance(error, RecursionError) else f"it can't be read ({type(error).__name__})"
    )
