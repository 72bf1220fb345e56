"""What is said of the model that training starts from (`train.start_from`), and of the data that a model has seen."""

from typing import Annotated, Any

from pydantic import Field

from surefoot.base.documents import Digest, Document

RunId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Seen(Document):
    """`data/parts.json`: the part files that a model has seen."""

    parts: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    """Path and digest of each, in order."""
    others: list[str]
    """Digests of those that other splits have, or that a model before it has seen."""
    split: dict[str, Any]
    """The params by which rows were split."""

    def digests(self) -> set[str]:
        """Of all of them."""
        return {digest for _, digest in self.parts} | set(self.others)


class StartNote(Document):
    """`start.json`: what is said of a start. One of an older Surefoot lacks some."""

    wanted: str | None = Field(default=None, alias="from")
    """The param."""
    key: Digest | None = None
    """A digest of the param and, for `previous`, of the raw data: what `previous` means stays for these."""
    name: str | None = None
    """For messages."""
    run: Digest | None = None
    """The identity of the run that made it, as far as it is known."""
    run_id: RunId | None = None
    """The same in MLflow, where it has no identity."""
    weights: Digest | None = None
    """The digest of the weights; None: fresh ones."""
    seen: Seen | None = None
    """The part files that it has seen, where they are known."""
    fixed: bool = False
    """Whether it was brought here by `surefoot verify`: then it isn't looked up."""
    keeps: bool | None = None
    """Whether the preparation of the model was kept, too (`surefoot.data.kept_preparation`), once that is known."""

    def said(self) -> dict[str, Any]:
        """As a dict with all there is to say, null where it isn't known."""
        left_out = {name for name, given in (("fixed", self.fixed), ("keeps", self.keeps is not None)) if not given}
        return self.model_dump(exclude=left_out)
