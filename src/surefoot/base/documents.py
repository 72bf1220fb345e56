"""What is read back from MLflow, its artifacts, a store's marks or a search's journal, as types: whoever wrote it, it
is data.

Each document is checked before anything of it is used, and refused in a line where it isn't what it should be. Keys
that nothing here knows are kept.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

LARGEST_YAML = 2 << 20  # bytes of an MLmodel: YAML is slow to read

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # also a key of a state: part of a file's name
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
RunId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Positive = Annotated[int, Field(gt=0, lt=2**62)]
Metrics = Annotated[dict[str, Number], Field(min_length=1)]
Select = Literal["best", "last", "best_average", "last_average"]


class Malformed(ValueError):
    """A document isn't what it should be; one line that says where."""


class Document(BaseModel):
    """A JSON object."""

    model_config = ConfigDict(strict=True, extra="allow", serialize_by_alias=True)


class Epoch(Document):
    """An epoch's end, as an account tells of it."""

    epoch: Positive
    step: Positive
    key: Digest
    state: Digest
    metrics: Metrics


class Arrays(Document):
    """Digests of a split's arrays."""

    inputs: Digest
    targets: Digest


class RawData(Document):
    """Where the raw data lie, and their MD5 where DVC has noted it."""

    path: str
    md5: Md5 | None


class Data(Document):
    """The digests of all data of a run."""

    source: RawData
    digest: Digest
    train: Arrays
    validation: Arrays
    test: Arrays


class Numerics(Document):
    """How the machine computed."""

    profile: str
    threads: Positive
    fingerprint: Digest


class Schedule(Document):
    """What is scheduled."""

    follows: str | None = None


class Origin(Document):
    """What the first key is the digest of."""

    seed: int
    numerics: Numerics
    versions: dict[str, str]
    schedule: Schedule = Schedule()


class Seen(Document):
    """`data/parts.json`: the part files that a model has seen."""

    parts: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    others: list[str]
    split: dict[str, Any]


class Start(Document):
    """`start/start.json`: what a training started from."""

    from_: str = Field(alias="from")
    key: Digest | None = None
    name: str | None
    weights: Digest | None
    run: Digest | None = None
    run_id: RunId | None = None
    seen: Seen | None = None
    keeps: bool | None = None


class NoStart(Document):
    """Nothing."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Account(Document):
    """`trajectory.json`: all that was determined in a run (`runs.account`).

    One of an older Surefoot lacks what has a default here.
    """

    identity: Digest
    params: dict[str, Any] = {}
    origin: Origin
    data: Data
    epochs: Annotated[list[Epoch], Field(min_length=1)]
    select: Select
    chosen: Digest | None = None
    incomplete: str | None = None
    start: NoStart | Start = NoStart()
    model: Digest


class Machine(Document):
    """`environment/machine.json`."""

    python: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}(\.\d{1,3}[a-z0-9+]{0,8})?$")] | None = None


class Description(Document):
    """What a run in MLflow says of itself, as a mark keeps it."""

    model_config = ConfigDict(strict=True, extra="ignore")  # it becomes a `tracking.Description`

    name: str
    params: dict[str, Any]
    dataset: dict[str, Any]
    tags: dict[str, str] = {}
    texts: dict[str, str] = {}


class Mark(Document):
    """What the trajectory store remembers of a run (`runs.mark`). One of an older Surefoot lacks some."""

    description: Description
    epoch_keys: list[str]
    last: str | None = None
    best: str | None = None
    chosen: str | None = None
    weights: str | None = None
    origin: dict[str, Any] = {}
    data: dict[str, Any] = {}
    epochs: Count = 0
    incomplete: str | None = None
    select: Select = "best"
    save_every: Count = 0
    model: dict[str, Any] = {}
    examples: list[Any] = []
    start: Start | None = None
    seen: Seen | None = None
    continues: list[tuple[str, int]] = []
    results: dict[str, float] = {}


class Rows(Document):
    """How many rows the splits have."""

    train: Count
    validation: Count
    test: Count


class Described(Document):
    """A dataset, as a run's description has it."""

    rows: Rows


class WholeDescription(Description):
    """What a run in MLflow says of itself, as its page needs it."""

    dataset: Described  # type: ignore[assignment]


class Network(Document):
    """What is remembered of a run's network."""

    factory: str
    task: str
    classes: list[Any] | None


class Finished(Mark):
    """The mark of a finished run, with all that its view in MLflow is made of."""

    description: WholeDescription
    last: str
    best: str | None
    chosen: str | None
    weights: str | None
    origin: dict[str, Any]
    data: dict[str, Any]
    epochs: Count
    incomplete: str | None
    select: Select
    save_every: Count
    model: Network  # type: ignore[assignment]
    examples: list[Any]
    continues: list[tuple[str, int]]

    @model_validator(mode="after")
    def _epochs_have_it(self) -> "Finished":
        if self.best and not {self.best, self.chosen} <= set(self.epoch_keys):
            raise ValueError("its best state isn't one of its epochs'")
        return self


class Record(Document):
    """The record of a state in the trajectory store; an account's epochs have but the first five."""

    key: str
    state: str
    metrics: dict[str, Number] = {}
    epoch: Positive = 1
    step: Count = 0
    steps: Count = 0
    rows: Count = 0
    parent: str = ""
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    peak_memory: Annotated[float, Field(allow_inf_nan=False)] = 0
    ended: Number = 0.0


class Trial(Document):
    """A trial of a search."""

    values: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    epochs: list[float | None]
    why: str


class Answer(Document):
    """What a trial's process leaves."""

    state: Literal["complete", "pruned"]
    value: float | None
    epochs: list[float | None]
    why: str
    metrics: list[str]


class SearchStart(Document):
    """The code that a search started with."""

    commit: str | None
    patch: Digest


class Journal(Document):
    """`.surefoot/search/NAME.json`."""

    format: Literal[1]
    settings: dict[str, Any]
    start: SearchStart
    base: str
    trials: list[Trial]


class MLmodel(Document):
    """What is read of a model's `MLmodel`."""

    run_id: RunId | None = None


Kind = TypeVar("Kind", bound=Document)


class Ends(Document):
    """The ends of an interval."""

    low: Number
    high: Number


class Intervals(Document):
    """The intervals of a run's test metrics, by name."""

    test: dict[str, Ends]


def parse(kind: type[Kind], data: bytes) -> dict[str, Any]:
    """A JSON document as what `kind` says, checked.

    Raises:
        Malformed: it isn't.
    """
    try:
        return kind.model_validate_json(data).model_dump(exclude_unset=True)
    except (ValidationError, RecursionError, MemoryError, ValueError) as error:
        raise Malformed(_where(error)) from None


def check(kind: type[Document], value: dict[str, Any]) -> None:
    """See that a document that was read is also what `kind` says.

    Raises:
        Malformed: it isn't.
    """
    try:
        kind.model_validate(value)
    except ValidationError as error:
        raise Malformed(_where(error)) from None


def parse_mlmodel(data: bytes) -> dict[str, Any]:
    """An `MLmodel` file, checked.

    Raises:
        Malformed: it isn't one.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(data) > LARGEST_YAML:
        raise Malformed(f"it has {len(data):,} bytes")
    try:
        return MLmodel.model_validate(YAML(typ="safe", pure=True).load(data.decode())).model_dump()
    except YAMLError:
        raise Malformed("it isn't YAML") from None
    except Exception as error:  # ruamel.yaml raises many a kind
        raise Malformed(_where(error)) from None


def _where(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8"
    return (
        "it is nested too deep" if isinstance(error, RecursionError) else f"it can't be read ({type(error).__name__})"
    )
