"""`params.yaml` as frozen, checked types: each key's type, default, meaning and check, in one place."""

import codecs
import math
import re
import warnings
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from surefoot.params.date_formats import check_format

# Params that can't change a bit of a result: where, how often and as what something is kept, and how long may be
# trained at once.
NO_RESULT = (
    "train.save_every",
    "train.checkpoint_every",
    "train.keep_states",
    "train.max_minutes",
    "train.register",
    "train.onnx",
)

# Every class has a method of this name, from `abc`, which nobody calls.
warnings.filterwarnings("ignore", 'Field name "register" in "Train" shadows', UserWarning)

# What `pandas.read_csv` takes for missing, and a question mark.
MISSING_VALUES = (
    *(
        "?",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
    ),
    *("n/a", "nan", "null"),
)

NO_ENCODINGS = {
    "punycode",
    "idna",
    "undefined",
    "unicode-escape",
    "unicode_escape",
    "raw-unicode-escape",
    "raw_unicode_escape",
    "mbcs",
    "oem",
}

Positive = Annotated[int, Field(gt=0)]


def _dvc_must_see(arguments: dict[str, Any]) -> dict[str, Any]:
    # DVC's run cache overlooks keys of these names in a section (dvc issue 10296): a change would not be seen.
    for name in flatten(arguments):
        if {"size", "nfiles"} & set(name.split(".")):
            raise ValueError(
                f"`{name}` can't be an argument's name: DVC overlooks changes of keys `size` and `nfiles`; rename it"
            )
    return arguments


def _columns_that_dvc_sees(values: dict[str, Any]) -> dict[str, Any]:
    for name in ("size", "nfiles"):
        if name in values:
            raise ValueError(
                f"a change under a key {name!r} is overlooked by DVC; write the pattern '[{name[0]}]{name[1:]}', which"
                " means the same column"
            )
    return values


def _plain(values: Any) -> Any:
    """Pydantic looks at the values of typed fields alone.

    These are recorded as JSON: YAML has sets, dates and bytes, too.
    """
    if isinstance(values, dict):
        if {type(key) for key in values} not in ({str}, {int}, set()):
            raise ValueError("keys in arguments must be texts, or all integers")
        for value in values.values():
            _plain(value)
    elif isinstance(values, list):
        for value in values:
            _plain(value)
    elif isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"arguments must be finite numbers, and {values} is none")
    elif not isinstance(values, str | int | float | None):
        raise ValueError(
            f"arguments must be numbers, texts, true, false, null, lists and mappings, and a {type(values).__name__} is"
            " none; a date is a text in quotes"
        )
    elif isinstance(values, str) and any("\ud800" <= character <= "\udfff" for character in values):
        raise ValueError(f"arguments must be texts that UTF-8 can hold, and {values[:20]!r} is none")
    return values


Arguments = Annotated[dict[str, Any], AfterValidator(_dvc_must_see), AfterValidator(_plain)]


def _one_character(text: str) -> str:
    if text != "auto" and len(text) != 1:
        raise ValueError(f"must be one character, such as , or ;, or auto, not {text[:20]!r}")
    return text


def _text_encoding(name: str) -> str:
    # Those of Python's that aren't of files: for names in the internet, for its own source, for bytes; some can't be
    # read piece by piece.
    try:
        found = codecs.lookup(name)
        usable = (
            found.incrementaldecoder is not None
            and found.name not in NO_ENCODINGS
            and isinstance(codecs.getincrementaldecoder(name)().decode(b""), str)
        )
    except Exception:  # each of Python's encodings of bytes has its own
        usable = False
    if not usable:
        raise ValueError(
            "must be an encoding of texts in files, by Python's name of it: utf-8, latin-1, cp1252, utf-16, ..."
        )
    return name


def _as_texts(given: Any) -> Any:
    """In a list of texts, YAML's numbers and null as they were written: -999 is what a file has."""
    if not isinstance(given, list | tuple):
        return given
    return [
        (
            "null"
            if value is None
            else f"{value}"
            if isinstance(value, int | float) and not isinstance(value, bool)
            else value
        )
        for value in given
    ]


class Section(BaseModel):
    """What every section shares: no unknown keys, no coercion, no NaN or infinity, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Csv(Section):
    """prepare.csv: how a CSV file is written."""

    delimiter: Annotated[str, AfterValidator(_one_character)] = "auto"
    """What stands between two values; `auto`: a tab in a file that is named .tsv, else a comma."""
    quote: str = Field(default='"', pattern=r"^[!-~]$")
    """What stands around a value that has a delimiter in it."""
    encoding: Annotated[str, AfterValidator(_text_encoding)] = "utf-8"
    """As Python names it: utf-8, latin-1, utf-16, ... UTF-16 and UTF-32 are also known by their mark."""
    header: bool | Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = True
    """true: the first row is a header; false: there is none, and `names` has the names; or the names themselves, where
    there is none.
    """
    names: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """The columns' names: in place of those in the first row (`header: true`), or where no row has any (`header:
    false`); null: the first row's.
    """
    decimal: Literal[".", ","] = "."
    """What stands before the decimals of a number."""
    thousands: Literal[",", ".", "'", "_", " "] | None = None
    """What stands between the thousands of a number; null: nothing."""

    @property
    def given(self) -> tuple[str, ...] | None:
        """The names that the params give."""
        return self.header if isinstance(self.header, tuple) else self.names

    @model_validator(mode="after")
    def _names_for_a_file_without(self) -> "Csv":
        if self.header is False and self.names is None:
            raise ValueError(
                "header: false says that no row has the names of the columns; then `names` must give them: names:"
                " [length, width, species]"
            )
        if isinstance(self.header, tuple) and self.names is not None:
            raise ValueError(
                "names: `header` gives the names already; header: true says that row 1 is a header, header: false that"
                " it is none"
            )
        if self.decimal == self.thousands:
            raise ValueError(
                f"thousands: {self.thousands!r} can't stand between the thousands and before the decimals, too"
                " (decimal)"
            )
        return self


class Images(Section):
    """prepare.images: how images become arrays of one shape."""

    resize: Annotated[tuple[Positive, Positive], Field(strict=False)] | None = None
    """[height, width] to bring each image to; null: they all have one size already."""
    mode: Literal["L", "RGB"] = "RGB"
    """`L` for shades of grey, one channel; `RGB` for three."""


class Arrays(Section):
    """prepare.arrays: which arrays of an NPZ file count."""

    inputs: str = "x"
    """Name of the array of inputs: its first axis is the row."""
    targets: str = "y"
    """Name of the array of targets."""
    validation_inputs: str | None = None
    """The array of the validation rows' inputs in the same file (`x_val`), or in `validation_source`; null: as
    `inputs`.
    """
    validation_targets: str | None = None
    """The array of their targets; null: as `targets`."""
    test_inputs: str | None = None
    """The array of the test rows' inputs in the same file (`x_test`), or in `test_source`; null: as `inputs`."""
    test_targets: str | None = None
    """The array of their targets; null: as `targets`."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "Arrays":
        for split in ("validation", "test"):
            inputs, targets = getattr(self, f"{split}_inputs"), getattr(self, f"{split}_targets")
            if (inputs is None) != (targets is None):
                raise ValueError(f"{split}_inputs and {split}_targets: give both, or neither")
            if inputs is not None and inputs == self.inputs:
                raise ValueError(f"{split}_inputs: {inputs} has the training rows; name another array")
        return self

    def of(self, split: str) -> "Arrays":
        """The arrays of a split that has its own."""
        inputs, targets = getattr(self, f"{split}_inputs"), getattr(self, f"{split}_targets")
        return (
            Arrays(inputs=self.inputs, targets=self.targets)
            if inputs is None
            else Arrays(inputs=inputs, targets=targets)
        )


class Missing(Section):
    """prepare.missing: what becomes of a missing value, by kind of column."""

    numeric: Literal["error", "drop", "mean", "median", "constant"] = "error"
    """Numbers: an error; leave the row out; fill in the training rows' mean or median, or `fill`."""
    boolean: Literal["error", "drop", "constant"] = "error"
    """Booleans; `constant` takes them as false."""
    category: Literal["error", "drop", "constant"] = "error"
    """Categories; `constant` makes missing a category of its own."""
    date: Literal["error", "drop", "mean", "median", "constant"] = "error"
    """Dates, each of their parts as a number."""
    target: Literal["error", "drop"] = "error"
    """The target."""
    fill: float = 0.0
    """The `constant` of numbers and dates."""
    indicator: bool = False
    """Whether a column that says where a value was missing stands beside each that is filled."""
    values: Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_as_texts)] = MISSING_VALUES
    """Texts that stand for a missing value, beside an empty or blank one; a number, say -999, however it is written.

    The default: those of pandas, and ?.
    """


class Split(Section):
    """prepare.split: which rows must go together, or come later."""

    by: Literal["class", "row", "group", "time"] = "class"
    """`class`: the same fractions of each class (of all rows in regression); `row`; `group`: no group in two splits;
    `time`: the latest rows for the test.
    """
    column: str | None = None
    """The column of the groups, or of the time. It isn't an input unless `prepare.columns` names it."""

    @model_validator(mode="after")
    def _column_where_needed(self) -> "Split":
        if (self.column is not None) != (self.by in ("group", "time")):
            raise ValueError(
                f"split by {self.by} needs a column"
                if self.column is None
                else f"column {self.column!r} is only for splits by group or time"
            )
        return self


class Prepare(Section):
    """prepare: raw data to clean, split, typed tables."""

    source: str = Field(min_length=1)
    """A file or directory, relative to the repository's root; `sklearn:wine`; or `module:function` of a reader of yours
    in src/sources.
    """
    format: Literal["auto", "csv", "parquet", "npz", "npy", "idx", "images"] = "auto"
    """Of a file, or of the part files in a directory; `auto`: by their names.

    A directory of directories of images has a class in each.
    """
    labels: str | None = Field(default=None, min_length=1)
    """The file of the targets where they lie apart (IDX, NPY); null: for IDX by its name, `...labels-idx1...` beside
    `...images-idx3...`.
    """
    csv: Csv = Field(default_factory=Csv)
    images: Images = Field(default_factory=Images)
    arrays: Arrays = Field(default_factory=Arrays)
    target: str = Field(min_length=1)
    """The column to predict; in arrays and images, which have no columns, the name of what is predicted."""
    task: Literal["classification", "binary", "regression"] = "classification"
    """What is predicted: one of several classes, one of two (by one logit), or a number."""
    columns: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Inputs, by name or by a pattern such as `pixel_*`; null for all columns but the target."""
    ignore: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns that aren't inputs, by name or pattern."""
    kinds: Annotated[
        dict[str, Literal["numeric", "boolean", "category", "date"]], AfterValidator(_columns_that_dvc_sees)
    ] = Field(default_factory=dict)
    """What a column holds, by name or pattern, where its type doesn't say: integers can be categories."""
    dates: dict[str, Annotated[str, AfterValidator(check_format)]] = Field(default_factory=dict)
    """How dates are written, by name or pattern, as strptime has it: {day: "%d/%m/%Y"}; where it isn't said, the ways
    that can be read in one way only.
    """
    categories: Literal["onehot", "codes"] = "onehot"
    """A category becomes an input for each of its values, or one with its number (0: not seen in training), for a
    network that embeds it.
    """
    max_categories: int = Field(default=1000, gt=1)
    """More different values than this in a category column are an error."""
    missing: Missing = Field(default_factory=Missing)
    normalize: Literal["standard", "none"] = "standard"
    """`standard` brings every number to mean 0 and deviation 1, as measured on the training rows."""
    normalize_target: Literal["standard", "none"] = "standard"
    """In regression: the target in training, and so its loss.

    Metrics, plots and predictions are in its own unit. `none`: it is trained on as it is.
    """
    refit: bool = False
    """Where training starts from another model (`train.start_from`), that one's preparation is kept: its classes,
    categories, means. `true` fits it anew.
    """
    validation: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the rows for the validation set; unless it has a source of its own."""
    test: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the rows for the test set; unless it has a source of its own."""
    validation_source: str | None = Field(default=None, min_length=1)
    """A source for the validation set alone, of the same format."""
    validation_labels: str | None = Field(default=None, min_length=1)
    """The file of its targets, as `labels`."""
    test_source: str | None = Field(default=None, min_length=1)
    """A source for the test set alone, of the same format."""
    test_labels: str | None = Field(default=None, min_length=1)
    """The file of its targets, as `labels`."""
    split: Split = Field(default_factory=Split)

    @model_validator(mode="before")
    @classmethod
    def _arrays_of_one_file(cls, given: Any) -> Any:
        """A split whose arrays are named comes from the same file, unless it has a source of its own."""
        arrays = given.get("arrays") if isinstance(given, dict) else None
        if not isinstance(arrays, dict | Arrays):
            return given
        named = arrays if isinstance(arrays, dict) else arrays.model_dump()
        of_it = {
            f"{split}_source": given.get("source") for split in ("validation", "test") if named.get(f"{split}_inputs")
        }
        return given | {key: source for key, source in of_it.items() if given.get(key) is None}

    @model_validator(mode="after")
    def _dates_are_dates(self) -> "Prepare":
        other = next((name for name in self.dates if self.kinds.get(name, "date") != "date"), None)
        if other is not None:
            raise ValueError(
                f"dates has a format for {other!r}, but by kinds it is a {self.kinds[other]}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> "Prepare":
        shares = {
            "validation": self.validation * (self.validation_source is None),
            "test": self.test * (self.test_source is None),
        }
        if sum(shares.values()) >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; their sum must be"
                " below 1"
            )
        return self


class _OrAuto:
    """In the JSON schema: also `auto`."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = handler(core_schema)
        return {"anyOf": [{"const": "auto"}, *known.get("anyOf", [known])]}


class Batch(Section):
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


class Model(Section):
    """train.model: where the network comes from."""

    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, called as function(input_shape, outputs, **arguments), and with `schema` if it has such a
    parameter; returns an nn.Module.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments for the factory."""


class Loss(Section):
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


class Group(Section):
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
    def _arguments_or_frozen(self) -> "Group":
        if self.frozen == bool(self.arguments):
            raise ValueError("a group needs either arguments or frozen: true")
        return self


class Optimizer(Section):
    """train.optimizer: what makes a step of a gradient."""

    name: str = Field(default="SGD", pattern=r"^[A-Za-z]\w*$")
    """A class of torch.optim.

    SGD takes train.momentum, nesterov, dampening and weight_decay; another one those of them that it knows.
    """
    arguments: Arguments = Field(default_factory=dict)
    """Its other keyword arguments: {betas: [0.9, 0.98]} for Adam."""
    groups: Annotated[tuple[Group, ...], Field(strict=False)] = ()
    """Parameters that are trained otherwise: no decay on biases, another lr for the head, frozen layers."""


class Schedule(Section):
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
    def _metric_for_plateau(self) -> "Schedule":
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
    tuple[Schedule, ...],
    Field(min_length=1, strict=False),
    BeforeValidator(lambda given: [given] if isinstance(given, dict | Schedule) else given),
    PlainSerializer(lambda parts: parts[0] if len(parts) == 1 else list(parts)),
    _OneOrMore(),
]


class Average(Section):
    """train.average: averages of the weights, beside the weights that are trained."""

    name: Literal["none", "ema", "swa"] = "none"
    """`ema`: exponential moving average, after each step; `swa`: stochastic weight averaging, the mean of the weights
    at the ends of epochs.
    """
    decay: float = Field(default=0.999, gt=0, lt=1)
    """How much of the average stays at a step (ema)."""
    start: int = Field(default=1, gt=0)
    """The first epoch that counts."""


class EarlyStopping(Section):
    """train.early_stopping: an end before `epochs` where nothing is gained any more."""

    patience: int | None = Field(default=None, gt=0)
    """Stop after so many epochs without an improvement; null: train all epochs."""
    metric: str = "validation/loss"
    """A metric of an epoch. Accuracies should rise, all others fall."""
    min_delta: float = Field(default=0.0, ge=0, le=1e38)
    """An improvement is more than this."""


class Train(Section):
    """train: minibatch SGD."""

    model: Model
    loss: Loss = Field(default_factory=Loss)
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
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedules = (Schedule(),)
    """How the learning rate changes: one schedule, or a list of them, one after the other."""
    accumulate: int = Field(default=1, gt=0)
    """Minibatches whose gradients make up one step: that of one minibatch of all their rows, also with class weights.
    """
    clip_norm: float | None = Field(default=None, gt=0, le=1e38)
    """Gradients whose norm, over all parameters, is larger are scaled down to it; null: they aren't."""
    clip_value: float | None = Field(default=None, gt=0, le=1e38)
    """Each value of a gradient is cut off at plus and minus this, before `clip_norm`; null: it isn't."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: the network computes in it, by autocast; weights stay float32.

    On the CPU it needs numerics: native.
    """
    average: Average = Field(default_factory=Average)
    early_stopping: EarlyStopping = Field(default_factory=EarlyStopping)
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
    def _new_to_whom(self) -> "Train":
        if self.rows == "new" and self.start_from is None:
            raise ValueError("rows: new needs a model to go on from; set start_from")
        return self

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Train":
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> "Train":
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
    def _average_is_there(self) -> "Train":
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


class Params(Section):
    """Every knob of the pipeline."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the split, the order of rows, the first weights and all randomness in training."""
    numerics: Literal["portable", "avx2", "native"] = "portable"
    """Which machines give the same bits: `portable` Intel and AMD alike, `avx2` Intel alone, `native` this kind of
    machine.
    """
    threads: int = Field(default=1, gt=0, le=1024)
    """CPU threads in training. Another number gives other bits."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """What trains: the processor, an NVIDIA GPU, or Apple's.

    Another device gives other bits; only on the CPU are they promised.
    """
    deterministic: bool = True
    """Refuse torch's operations that have no deterministic kernel. `false` only warns of them; then runs may differ."""
    prepare: Prepare
    batch: Batch = Field(default_factory=Batch)
    train: Train


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def default_values() -> dict[str, Any]:
    """The defaults by dotted key; what has none has any value."""
    least = {"prepare": {"source": ".", "target": "."}, "train": {"model": {"factory": "a:b"}, "epochs": 1, "lr": 1.0}}
    return flatten(Params.model_validate(least).model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """The JSON schema of `params.yaml`, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}


def inner_section(annotation: Any) -> type[Section] | None:
    """The section that a field is, or is a list of."""
    kinds = [annotation, *get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
