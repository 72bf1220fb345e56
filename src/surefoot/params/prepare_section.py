"""The section `prepare` of params.yaml: raw data to clean, split, typed tables."""

import codecs
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from surefoot.params.date_formats import check_format
from surefoot.params.raw_formats import FormatName
from surefoot.params.section_base import Positive, Section

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


def _columns_that_dvc_sees(values: dict[str, Any]) -> dict[str, Any]:
    for name in ("size", "nfiles"):
        if name in values:
            raise ValueError(
                f"a change under a key {name!r} is overlooked by DVC; write the pattern '[{name[0]}]{name[1:]}', which"
                " means the same column"
            )
    return values


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


class CsvParams(Section):
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
    def _names_for_a_file_without(self) -> "CsvParams":
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


class ImagesParams(Section):
    """prepare.images: how images become arrays of one shape."""

    resize: Annotated[tuple[Positive, Positive], Field(strict=False)] | None = None
    """[height, width] to bring each image to; null: they all have one size already."""
    mode: Literal["L", "RGB"] = "RGB"
    """`L` for shades of grey, one channel; `RGB` for three."""


class ArraysParams(Section):
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
    def _both_or_none(self) -> "ArraysParams":
        for split in ("validation", "test"):
            inputs, targets = getattr(self, f"{split}_inputs"), getattr(self, f"{split}_targets")
            if (inputs is None) != (targets is None):
                raise ValueError(f"{split}_inputs and {split}_targets: give both, or neither")
            if inputs is not None and inputs == self.inputs:
                raise ValueError(f"{split}_inputs: {inputs} has the training rows; name another array")
        return self

    def of(self, split: str) -> "ArraysParams":
        """The arrays of a split: its own, or else those of the training rows."""
        own = None if split == "train" else getattr(self, f"{split}_inputs")
        if own is None:
            return ArraysParams(inputs=self.inputs, targets=self.targets)
        return ArraysParams(inputs=own, targets=getattr(self, f"{split}_targets"))


class MissingParams(Section):
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


class SplitParams(Section):
    """prepare.split: which rows must go together, or come later."""

    by: Literal["class", "row", "group", "time"] = "class"
    """`class`: the same fractions of each class (of all rows in regression); `row`; `group`: no group in two splits;
    `time`: the latest rows for the test.
    """
    column: str | None = None
    """The column of the groups, or of the time. It isn't an input unless `prepare.columns` names it."""

    @model_validator(mode="after")
    def _column_where_needed(self) -> "SplitParams":
        if (self.column is not None) != (self.by in ("group", "time")):
            raise ValueError(
                f"split by {self.by} needs a column"
                if self.column is None
                else f"column {self.column!r} is only for splits by group or time"
            )
        return self


class SplitSource(NamedTuple):
    """Where the rows of a split come from."""

    split: str
    """`train`: the main source, from which splits without a source of their own are drawn, too."""
    source: str
    labels: str | None

    @property
    def key(self) -> str:
        """The key that names the source."""
        return "prepare.source" if self.split == "train" else f"prepare.{self.split}_source"


class PrepareParams(Section):
    """prepare: raw data to clean, split, typed tables."""

    source: str = Field(min_length=1)
    """A file or directory, relative to the repository's root; `sklearn:wine`; or `module:function` of a reader of yours
    in src/sources.
    """
    format: FormatName = "auto"
    """Of a file, or of the part files in a directory; `auto`: by their names.

    A directory of directories of images has a class in each.
    """
    labels: str | None = Field(default=None, min_length=1)
    """The file of the targets where they lie apart (IDX, NPY); null: for IDX by its name, `...labels-idx1...` beside
    `...images-idx3...`.
    """
    csv: CsvParams = Field(default_factory=CsvParams)
    images: ImagesParams = Field(default_factory=ImagesParams)
    arrays: ArraysParams = Field(default_factory=ArraysParams)
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
    missing: MissingParams = Field(default_factory=MissingParams)
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
    split: SplitParams = Field(default_factory=SplitParams)

    @property
    def sources(self) -> list[SplitSource]:
        """The main source, and those of the validation and the test rows where they have their own."""
        main = SplitSource("train", self.source, self.labels)
        validation = SplitSource("validation", self.validation_source or "", self.validation_labels)
        test = SplitSource("test", self.test_source or "", self.test_labels)
        return [main, *(own for own in (validation, test) if own.source)]

    @model_validator(mode="before")
    @classmethod
    def _arrays_of_one_file(cls, given: Any) -> Any:
        """A split whose arrays are named comes from the same file, unless it has a source of its own."""
        arrays = given.get("arrays") if isinstance(given, dict) else None
        if not isinstance(arrays, dict | ArraysParams):
            return given
        named = arrays if isinstance(arrays, dict) else arrays.model_dump()
        of_it = {
            f"{split}_source": given.get("source") for split in ("validation", "test") if named.get(f"{split}_inputs")
        }
        return given | {key: source for key, source in of_it.items() if given.get(key) is None}

    @model_validator(mode="after")
    def _dates_are_dates(self) -> "PrepareParams":
        other = next((name for name in self.dates if self.kinds.get(name, "date") != "date"), None)
        if other is not None:
            raise ValueError(
                f"dates has a format for {other!r}, but by kinds it is a {self.kinds[other]}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> "PrepareParams":
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
