"""The section `train` of params.yaml: minibatch SGD."""

import re
import warnings
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, PlainSerializer, field_validator, model_validator
from pydantic_core import CoreSchema

from surefoot.params.section_base import Arguments, Section

# Every class has a method of this name, from `abc`, which nobody calls.
warnings.filterwarnings("ignore", 'Field name "register" in "TrainParams" shadows', UserWarning)


class ModelParams(Section):
    """train.model: where the network comes from."""

    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, called as function(input_shape, outputs, **arguments), and with `schema` if it has such a
    parameter; returns an nn.Module.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments for the factory."""


class LossParams(Section):
    """train.loss: what is made small."""

    name: str = Field(default="auto", pattern=r"^([A-Za-z]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
    """A class of torch.nn, or `module:factory`; `auto`: CrossEntropyLoss, BCEWithLogitsLoss or MSELoss, as fits the
    task.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Its keyword arguments."""
    class_weights: (
        Literal["balanced"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1e38)], ...], Field(strict=False)] | None
    ) = None
    """A weight for each class, in the order of `classes` in data/prepared/schema.json; `balanced`: each class counts
    the same; null: each row.
    """


class GroupParams(Section):
    """train.optimizer.groups: parameters that are trained otherwise than the rest."""

    parameters: str = Field(min_length=1)
    """Which, by a pattern: `0.weight`, `*.bias`, or with the class of their module, `*Norm*.weight`.

    The first group that matches one has it.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Arguments of the optimizer that differ for them: {weight_decay: 0.0}, {lr: 0.1}."""
    frozen: bool = False
    """Whether they keep their first values."""

    @model_validator(mode="after")
    def _arguments_or_frozen(self) -> "GroupParams":
        if self.frozen == bool(self.arguments):
            raise ValueError("a group needs either arguments or frozen: true")
        return self


class OptimizerParams(Section):
    """train.optimizer: what makes a step of a gradient."""

    name: str = Field(default="SGD", pattern=r"^[A-Za-z]\w*$")
    """A class of torch.optim.

    SGD takes train.momentum, nesterov, dampening and weight_decay; another one those of them that it knows.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Its other keyword arguments: {betas: [0.9, 0.98]} for Adam."""
    groups: Annotated[tuple[GroupParams, ...], Field(strict=False)] = ()
    """Parameters that are trained otherwise: no decay on biases, another lr for the head, frozen layers."""


class ScheduleParams(Section):
    """train.schedule: how the learning rate changes."""

    name: str = Field(default="constant", pattern=r"^([A-Za-z]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
    """`constant`; a class of torch.optim.lr_scheduler; or `module:function` of the number of steps or epochs before,
    which gives a multiple of train.lr.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Its keyword arguments.

    Where left out, T_max and total_steps are its length, and OneCycleLR's max_lr is train.lr.
    """
    per: Literal["epoch", "step"] = "epoch"
    """When it changes the learning rate; arguments and `length` count in it."""
    length: int | None = Field(default=None, gt=0)
    """In a list of schedules: for how many epochs or steps; null for the last: to the end of the run."""
    metric: str | None = None
    """What ReduceLROnPlateau looks at: a metric of an epoch; null for validation/loss."""

    @model_validator(mode="after")
    def _metric_for_plateau(self) -> "ScheduleParams":
        if self.metric is not None and self.name != "ReduceLROnPlateau":
            raise ValueError(f"metric: only ReduceLROnPlateau looks at one, not {self.name}")
        if self.name == "ReduceLROnPlateau" and self.per == "step":
            raise ValueError("per: ReduceLROnPlateau looks at metrics of an epoch; give epoch")
        return self


class _OneOrMore:
    """In the JSON schema: one of the items, or a list of them."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        several = handler(core_schema)
        return {"anyOf": [several["items"], several]}


Schedules = Annotated[
    tuple[ScheduleParams, ...],
    Field(min_length=1, strict=False),
    BeforeValidator(lambda given: [given] if isinstance(given, dict | ScheduleParams) else given),
    PlainSerializer(lambda parts: parts[0] if len(parts) == 1 else list(parts)),
    _OneOrMore(),
]


class AverageParams(Section):
    """train.average: averages of the weights, beside the weights that are trained."""

    name: Literal["none", "ema", "swa"] = "none"
    """`ema`: exponential moving average, after each step; `swa`: stochastic weight averaging, the mean of the weights
    at the ends of epochs.
    """
    decay: float = Field(default=0.999, gt=0, lt=1)
    """How much of the average stays at a step (ema)."""
    start: int = Field(default=1, gt=0)
    """The first epoch that counts."""


class EarlyStoppingParams(Section):
    """train.early_stopping: an end before `epochs` where nothing is gained any more."""

    patience: int | None = Field(default=None, gt=0)
    """Stop after so many epochs without an improvement; null: train all epochs."""
    metric: str = "validation/loss"
    """A metric of an epoch. Accuracies should rise, all others fall."""
    min_delta: float = Field(default=0.0, ge=0, le=1e38)
    """An improvement is more than this."""


class TrainParams(Section):
    """train: minibatch SGD."""

    model: ModelParams
    loss: LossParams = Field(default_factory=LossParams)
    start_from: str | None = Field(default=None, min_length=1)
    """A model to go on from: an MLflow run (id or name), `models:/NAME@ALIAS`, `PATH.safetensors`, or `previous`: the
    one here; null: fresh weights.
    """
    rows: Literal["all", "new"] = "all"
    """Which training rows: `new`: those of part files that the model of `start_from` hasn't seen."""
    epochs: int = Field(gt=0, le=1_000_000)  # each is planned before the first is trained
    """Passes over the training rows."""
    lr: float = Field(gt=0, le=1e38)
    """Learning rate: the length of a step, as a multiple of the gradient."""
    lr_reference_batch: int | None = Field(default=None, gt=0)
    """Linear scaling: lr, also of groups, is meant for this many rows in a step and is multiplied by (rows in a step) /
    this; null: lr is used as it is.
    """
    momentum: float = Field(default=0.0, ge=0, le=1)
    """How much of the last step goes into the next, usually 0 or 0.9."""
    nesterov: bool = False
    """Nesterov's momentum; needs momentum above 0 and dampening 0."""
    dampening: float = Field(default=0.0, ge=0, le=1e38)
    """How much less of the gradient enters the momentum, 0 to 1."""
    weight_decay: float = Field(default=0.0, ge=0, le=1e38)
    """L2 penalty: this much of each weight is added to its gradient."""
    optimizer: OptimizerParams = Field(default_factory=OptimizerParams)
    schedule: Schedules = (ScheduleParams(),)
    """How the learning rate changes: one schedule, or a list of them, one after the other."""
    accumulate: int = Field(default=1, gt=0)
    """Minibatches whose gradients make up one step: that of one minibatch of all their rows, also with class weights.
    """
    shards: int = Field(default=1, gt=0, le=65536)
    """Parts of each minibatch whose gradients are computed apart and then added, so that as many processes can share
    them (SUREFOOT_PROCESSES) with the same result.
    """
    clip_norm: float | None = Field(default=None, gt=0, le=1e38)
    """Gradients whose norm, over all parameters, is larger are scaled down to it; null: they aren't."""
    clip_value: float | None = Field(default=None, gt=0, le=1e38)
    """Each value of a gradient is cut off at plus and minus this, before `clip_norm`; null: it isn't."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: the network computes in it, by autocast; weights stay float32.

    On the CPU it needs numerics: native.
    """
    step: Literal["auto", "eager"] = "auto"
    """How steps are taken: `auto`: most of them without Python, as one was recorded, where that gives the same bits;
    `eager`: all by Python. Changes no result.
    """
    average: AverageParams = Field(default_factory=AverageParams)
    early_stopping: EarlyStoppingParams = Field(default_factory=EarlyStoppingParams)
    max_steps: int | None = Field(default=None, gt=0)
    """A budget: the run ends after so many steps, also within an epoch; null: after `epochs`."""
    max_minutes: float | None = Field(default=None, gt=0, le=1e9)
    """A budget for one `dvc repro`: training ends after this time, at the end of an epoch, and the next one goes on;
    null: none.
    """
    select: Literal["best", "last", "best_average", "last_average"] = "best"
    """The epoch whose model is kept: the one of least validation loss, or the last; `..._average`: of the averaged
    weights.
    """
    save_every: int = Field(default=0, ge=0)
    """Log a checkpoint to MLflow every so many epochs, beside best and last; 0 for none."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Steps between the states that an interrupted training goes on from; 0 for one each epoch. Changes no result."""
    keep_states: int = Field(default=50, gt=0)
    """How many of the latest states of a run stay in `.surefoot/`, beside its best and last. Changes no result."""
    register: str | None = None
    """NAME or NAME@ALIAS: put the model of a finished run into MLflow's registry, and point the alias (`newest`) to it.

    Changes no result.
    """
    onnx: bool = False
    """Whether the run in MLflow also has the chosen network as an ONNX file; needs the extra `onnx`.

    Changes no result.
    """

    @field_validator("register")
    @classmethod
    def _registry_takes_it(cls, given: str | None) -> str | None:
        if given is not None:
            registered_as(given)
        return given

    @model_validator(mode="after")
    def _new_to_whom(self) -> "TrainParams":
        if self.rows == "new" and self.start_from is None:
            raise ValueError("rows: new needs a model to go on from; set start_from")
        return self

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "TrainParams":
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> "TrainParams":
        parts = self.schedule
        if len(parts) == 1:
            if parts[0].length is not None:
                raise ValueError("schedule: `length` is for a list of schedules; one alone lasts to the end of the run")
            return self
        if len({part.per for part in parts}) > 1:
            raise ValueError("schedule: in a list all count in epochs or all in steps; give each the same `per`")
        lacking = [number for number, part in enumerate(parts[:-1], 1) if part.length is None]
        if lacking:
            raise ValueError(
                f"schedule: number {lacking[0]} of {len(parts)} needs a length; only the last one lasts to the end of"
                " the run"
            )
        total = sum(part.length or 0 for part in parts)
        if parts[0].per == "epoch" and (total != self.epochs if parts[-1].length else total >= self.epochs):
            raise ValueError(
                f"schedule: lengths of {total} epochs do not fit epochs: {self.epochs}; the last length may be null, to"
                " the end of the run"
            )
        return self

    @model_validator(mode="after")
    def _average_is_there(self) -> "TrainParams":
        if self.select.endswith("_average") and self.average.name == "none":
            raise ValueError(f"select: {self.select} needs averaged weights; set average.name to ema or swa")
        if self.average.name != "none" and self.average.start > self.epochs:
            raise ValueError(f"average.start: {self.average.start} is after the last of {self.epochs} epochs")
        return self


def registered_as(given: str) -> tuple[str, str]:
    """Name and alias of `train.register`.

    Raises:
        ValueError: MLflow takes no such name, or no such alias.
    """
    name, at, alias = given.partition("@")
    # What MLflow's registry refuses, and quotes, which its search can't look for.
    if (
        not name.strip()
        or name != name.strip()
        or name in (".", "..")
        or set(name) & set("/:'\"%")
        or not name.isprintable()
    ):
        raise ValueError(
            "a name in MLflow's registry is a text without / : % and quotes, or spaces at its ends, such as digits or"
            " digits@champion"
        )
    if at and (not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias)):
        raise ValueError(
            "an alias (after the @) is of letters, digits, _ and -; `latest` and `v1`, `v2`, ... are MLflow's own"
        )
    return name, alias or "newest"
