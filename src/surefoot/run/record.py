"""All that is known of a run, and what is made of it: its mark in the trajectory store, its account for
`surefoot verify`.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from surefoot.base import digests
from surefoot.base.documents import Count, Digest, Document, Malformed, Number, Positive, parse_document
from surefoot.run.start_note import Seen, StartNote
from surefoot.tracking.description import Description

if TYPE_CHECKING:
    from surefoot.run.trajectory_store import TrajectoryStore

ACCOUNT = "trajectory.json"  # the artifact that `surefoot verify` compares with
VERSION: Literal[2] = 2  # of a mark; those of before have none, which is 1

Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
# Of a metric: MLflow takes others, too, but none of ours has another.
MetricName = Annotated[str, Field(pattern=r"^\w[\w. -]*(/\w[\w. -]*)*$", max_length=250)]
Select = Literal["best", "last", "best_average", "last_average"]


class ArrayDigests(Document):
    """Digests of a split's arrays."""

    inputs: Digest
    targets: Digest


class RawData(Document):
    """Where the raw data lie, and their MD5 where DVC has noted it."""

    path: str
    md5: Md5 | None


class DataDigests(Document):
    """The digests of all data of a run."""

    source: RawData
    digest: Digest
    train: ArrayDigests
    validation: ArrayDigests
    test: ArrayDigests


class HowComputed(Document):
    """How the machine computed."""

    profile: str
    threads: Positive
    fingerprint: Digest


class Scheduled(Document):
    """What is scheduled; of it here the metric that the schedule follows."""

    follows: str | None = None


class SourceDigests(Document):
    """Of the network here the digests of its modules."""

    source: dict[str, str] = Field(default={})


class Origin(Document):
    """What the first key is the digest of (`surefoot.run.origin`), as far as it is looked into."""

    seed: int
    numerics: HowComputed
    versions: dict[str, str]
    model: SourceDigests = SourceDigests()
    schedule: Scheduled = Scheduled()


class RunNetwork(Document):
    """A run's network, and what it needs to know of its inputs and outputs: what a model in MLflow carries of it."""

    factory: str
    task: str | None = None
    classes: list[Any] | None = None


class RunRecord(Document):
    """All that is known of a run.

    `last`, `best`, `chosen` (keys of its epochs) and `weights` (the digest of the chosen model) come when it is
    finished, `results` when it is evaluated. A mark of version 1 may lack parts: `lacks` says so.
    """

    version: Literal[1, 2] = 1
    identity: Digest = ""
    description: Description
    origin: Origin | None = None
    data: DataDigests | None = None
    epochs: Count = 0
    epoch_keys: list[Digest]
    """As far as they are known."""
    incomplete: str | None = None
    """Why it ended before its last epoch."""
    select: Select = "best"
    save_every: Count = 0
    register_as: str | None = Field(default=None, alias="register")
    onnx: bool = False
    model: RunNetwork | None = None
    examples: list[Any] = Field(default=[])
    """Raw rows."""
    start: StartNote | None = None
    seen: Seen | None = None
    continues: list[tuple[Digest, int]] = Field(default=[])
    """The identity of the run that it goes on from, if there is one, and the epoch at which that ended."""
    last: Digest | None = None
    best: Digest | None = None
    chosen: Digest | None = None
    weights: Digest | None = None
    results: dict[str, float] = Field(default={})

    @model_validator(mode="after")
    def _is_whole(self) -> "RunRecord":
        lacks = self.lacks() if self.version > 1 else None
        if lacks:
            raise ValueError(lacks)
        return self

    def lacks(self) -> str | None:
        """What its mark doesn't say, though its view in MLflow is made of it; None where it says all."""
        needed = ("origin", "data", "epochs", "incomplete", "select", "save_every", "model", "examples", "continues")
        parts: dict[str, Any] = {"origin": self.origin, "data": self.data, "model": self.model}
        parts |= {"description.dataset.rows": self.description.dataset.rows}
        parts |= {"model.task": self.model and self.model.task}
        missing = [name for name in (*needed, "last", "best", "chosen", "weights") if name not in self.model_fields_set]
        missing += [name for name, part in parts.items() if part is None]
        if missing:
            return f"{missing[0]} is missing"
        if self.best and not {self.best, self.chosen} <= set(self.epoch_keys):
            return "its best state isn't one of its epochs'"
        return None

    @property
    def network(self) -> dict[str, Any]:
        """What a model in MLflow carries of the network: its factory, arguments and preparation."""
        return self.model.plain() if self.model else {}

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end, by a Surefoot that says which model was chosen."""
        return bool(self.last and self.chosen)

    @property
    def needed(self) -> set[str]:
        """The keys of the states that it needs, once it is finished."""
        return {key for key in (self.last, self.best, self.chosen) if key}

    def mark(self) -> bytes:
        """As the trajectory store keeps it: the same record gives the same bytes."""
        return digests.canonical_json(self.plain())


def read_mark(identity: str, data: bytes) -> RunRecord:
    """What a mark says of the run of this identity; also one that an older Surefoot wrote.

    Raises:
        Malformed: it is no mark, or that of another run.
    """
    found = parse_document(RunRecord, data)
    if found.version > 1 and found.identity != identity:
        raise Malformed("it is the mark of another run")
    return found.model_copy(update={"identity": identity, "version": 1 if found.lacks() else VERSION})


class Epoch(Document):
    """An epoch's end, as an account tells of it."""

    epoch: Positive
    step: Positive
    key: Digest
    state: Digest
    metrics: Annotated[dict[MetricName, Number], Field(min_length=1)]


class Record(Epoch):
    """The record of a state: of an epoch's end, or of a state within one, which has no metrics.

    One that `surefoot verify` brings has what an account tells, and no more.
    """

    metrics: dict[MetricName, Number] = Field(default={})
    steps: Count = 0
    rows: Count = 0
    parent: str = ""
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    peak_memory: Annotated[float, Field(allow_inf_nan=False)] = 0
    ended: Number = 0.0


class Account(Document):
    """`trajectory.json`: all that was determined in a run, as digests and numbers.

    One of an older Surefoot lacks what has a default here.
    """

    identity: Digest
    params: dict[str, Any] = Field(default={})
    """Whole: MLflow cuts long ones."""
    origin: Origin
    data: DataDigests
    epochs: Annotated[list[Epoch], Field(min_length=1)]
    select: Select
    chosen: Digest | None = None
    incomplete: str | None = None
    start: StartNote = StartNote()
    model: Digest


def make_account(run: RunRecord, store: "TrajectoryStore") -> Account | None:
    """The account of a finished run; None where the store lacks records of it, or an older Surefoot's mark the rest."""
    records = [store.record(key) for key in run.epoch_keys]
    if not run.last or not all(records) or run.origin is None or run.data is None or run.weights is None:
        return None
    start = run.start.plain() if run.start else {}
    return Account(
        identity=run.identity,
        params=run.description.params,
        origin=run.origin,
        data=run.data,
        epochs=[Epoch(**{name: getattr(record, name) for name in Epoch.model_fields}) for record in records if record],
        select=run.select,
        chosen=run.chosen,
        incomplete=run.incomplete,
        start=StartNote.model_validate({name: value for name, value in start.items() if name != "seen"}),
        model=run.weights,
    )
