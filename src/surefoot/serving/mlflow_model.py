"""The chosen model as an MLflow model: raw rows in, predictions out. Loading it unpickles nothing."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from surefoot.base import code_digests, limits, reading, writing
from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.base.wording import listed_names
from surefoot.data import kept_preparation
from surefoot.data.arrow_numpy import text_array
from surefoot.data.cleaning import Cleaner
from surefoot.data.columns import Column
from surefoot.data.features import date_type, dates_of, transform
from surefoot.data.normalization import in_own_unit
from surefoot.data.number_notation import USUAL, Notation, nulls_for_missing
from surefoot.data.vocabulary import category_keys, natural_order, texts_of_categories
from surefoot.params.prepare_section import MissingParams, PrepareParams
from surefoot.params.train_section import ModelParams

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from mlflow.models import ModelSignature

PACKAGES = ("torch", "mlflow", "numpy", "pandas", "pyarrow", "safetensors", "pydantic")


DESCRIPTION, WEIGHTS = "description.json", "model.safetensors"
Size = Annotated[int, Field(gt=0, lt=2**31)]
BOTH = Field(min_length=2)  # of the names that there may be
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Feature(BaseModel):
    """What any feature's dict has; the rest is up to its kind."""

    model_config = ConfigDict(strict=True, extra="allow")

    column: str
    kind: Literal["numeric", "boolean", "category", "date", "array"]
    first: Count
    width: Count
    dtype: Literal["uint8", "int64", "float32", "float64"] | None = None


class TextNotation(BaseModel):
    """How texts are read: which stand for a missing value, and the signs in numbers."""

    model_config = ConfigDict(strict=True)

    missing: list[str]
    decimal: Annotated[str, Field(min_length=1, max_length=1)]
    thousands: Annotated[str, Field(min_length=1, max_length=1)] | None


class Description(ModelParams):
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


class Predictor:
    """What MLflow calls: a network with the preparation of its inputs."""

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        # Once: requests come in several threads, and `training.model.predict` would bring one's network back to
        # training under another's hands.
        self._model = model.eval()
        self._description = description
        self._notation = notation_of(description)
        self._cleaner = cleaner(description["features"], self._notation)

    def predict(self, rows: "pd.DataFrame | np.ndarray") -> "pd.DataFrame":
        """For each raw row the class (`prediction`) and the probability of each class; in regression the number.

        Args:
            rows: a data frame with the columns of the raw data, as pandas reads them, or an array (rows, *shape) where
                the raw data are arrays. A column of which values may be missing may be left out.

        Raises:
            MlflowException: a column is missing, or holds what it can't; a server answers it with status 400.
        """
        import pandas as pd

        try:
            return pd.DataFrame(answers(self._model, self._description, self._inputs(rows)))
        except UserError as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _inputs(self, rows: "pd.DataFrame | np.ndarray") -> np.ndarray:
        import pyarrow as pa

        features = self._description["features"]
        if isinstance(rows, np.ndarray):
            return finite(transform({features[0]["column"]: rows}, features), features, _row)
        rows = _nameless_as_here(_one_a_row(rows), features)
        if not any(feature["column"] in rows for feature in features):
            raise UserError(
                f"none of the model's columns is there: {listed_names(feature['column'] for feature in features)}"
            )
        if not len(rows):
            return np.empty((0, *self._description["input_shape"]), np.float32)
        given = {
            feature["column"]: as_arrow(rows[feature["column"]], feature, self._notation)
            for feature in features
            if feature["column"] in rows
        }
        given |= {
            feature["column"]: pa.nulls(len(rows))
            for feature in features
            if feature["column"] not in rows and _may_miss(feature)
        }
        columns = {column.name: given[column.name] for column in self._cleaner.columns if column.name in given}
        if len(columns) == len(self._cleaner.columns) > 0:  # else `transform` says which isn't there
            batch, _ = self._cleaner.clean(pa.RecordBatch.from_pydict(columns), 0, _row)
            given |= zip(batch.schema.names, batch.columns, strict=True)
        return finite(transform(given, features), features, _row)


def _row(number: int) -> str:
    return f"row {number} (from 0)"


def _one_a_row(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Of columns that are lists of texts, `{"inputs": {"a": ["x", "y"]}}`, MLflow makes one row that
    holds the lists.
    """
    import pandas as pd

    if rows.columns.has_duplicates:
        raise UserError(f"column {rows.columns[rows.columns.duplicated()][0]!r} is there more than once")
    if len(rows) == 1 and len(rows.columns) and all(isinstance(cell, list) for cell in rows.iloc[0]):
        lengths = {name: len(cell) for name, cell in rows.iloc[0].items()}
        if len(set(lengths.values())) > 1:
            raise UserError(
                "columns have different numbers of rows:"
                f" {', '.join(f'{name!r} {length}' for name, length in lengths.items())}"
            )
        return pd.DataFrame(rows.iloc[0].to_dict())
    return rows


def _nameless_as_here(rows: "pd.DataFrame", features: list[dict[str, Any]]) -> "pd.DataFrame":
    """A column without a name, which pandas' reader calls `Unnamed: 0`, under its own empty one."""
    if "" in rows or all(feature["column"] for feature in features):
        return rows
    called = [name for name in rows.columns if isinstance(name, str) and name.startswith("Unnamed: ")]
    return rows.rename(columns={called[0]: ""}) if len(called) == 1 else rows


def cleaner(features: list[dict[str, Any]], notation: Notation) -> Cleaner:
    """What refuses what prepare refuses, such as an infinite number or a boolean 7; of all but categories, of which any
    is taken, and arrays.
    """
    import pyarrow as pa

    types: dict[str, Callable[[dict[str, Any]], pa.DataType]] = {
        "numeric": lambda _: pa.float64(),
        "boolean": lambda _: pa.bool_(),
        "date": date_type,
    }
    columns = [
        Column(feature["column"], feature["kind"], types[feature["kind"]](feature), unit=feature.get("unit"))
        for feature in features
        if feature["kind"] in types
    ]
    return Cleaner(columns, as_trained(features, notation, PrepareParams(source="-", target="-")))


def as_trained(features: list[dict[str, Any]], notation: Notation, prepare: PrepareParams) -> PrepareParams:
    """Of rows to predict: without a target, and what is missing is filled in where the preparation has what for, or an
    error.
    """
    filled = {feature["kind"] for feature in features if feature.get("fill") is not None}
    missing = MissingParams().model_copy(update=dict.fromkeys(filled, "constant") | {"values": notation.missing})
    csv = prepare.csv.model_copy(update={"decimal": notation.decimal, "thousands": notation.thousands})
    return prepare.model_copy(update={"target": "", "missing": missing, "csv": csv})


def finite(inputs: np.ndarray, features: list[dict[str, Any]], named: Callable[[int], str]) -> np.ndarray:
    """Prepared rows, (rows, width), in which every number is one.

    Raises:
        UserError: naming the row and the column of one that isn't.
    """
    if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
        row, place = (int(at) for at in np.argwhere(~np.isfinite(inputs))[0])
        name = next(
            feature["column"] for feature in features if feature["first"] <= place < feature["first"] + feature["width"]
        )
        why = (
            "NaN; a number is needed everywhere"
            if np.isnan(inputs[row, place])
            else "scaled, the value is more than float32 can hold"
        )
        raise UserError(f"{named(row)}, column {name!r}: {why}")
    return inputs


def answers(model: Any, description: dict[str, Any], inputs: np.ndarray) -> dict[str, Any]:
    """What a network says of prepared rows, (rows, width): columns `prediction`, a list of labels or float64 (rows,),
    and `probability_<label>`, float64.

    Raises:
        UserError: the network fails on them, or gives what is no number.
    """
    import torch

    from surefoot.training.minibatches import Stored
    from surefoot.training.network import predict

    rows = np.require(inputs.reshape(-1, *description["input_shape"]), requirements="W")  # torch warns of others
    try:
        outputs = (
            predict(model, Stored(rows, description["scale"])).double()
            if len(rows)
            else torch.empty(0, max(1, len(description["classes"])))
        )
    except Exception as error:  # a token that an embedding has no place for
        raise UserError(f"the network fails on these rows: {describe_error(error)}") from None
    if description["task"] == "regression":
        scale = description.get("target_scale")  # older models have none
        given = outputs[:, 0].numpy()
        return {"prediction": in_own_unit(given, scale) if scale else given}
    if description["task"] == "binary":
        positive = torch.sigmoid(outputs[:, 0])
        probabilities = torch.stack([1 - positive, positive], 1).numpy()
    else:
        probabilities = torch.softmax(outputs, 1).numpy()
    classes = description["classes"]
    return {"prediction": [classes[number] for number in probabilities.argmax(1)]} | {
        f"probability_{label}": probabilities[:, number] for number, label in enumerate(classes)
    }


def notation_of(description: dict[str, Any]) -> Notation:
    """How the values of the raw data were written."""
    given = description.get("notation")
    return Notation(tuple(given["missing"]), given["decimal"], given["thousands"]) if given else Notation()


def as_arrow(column: "pd.Series", feature: dict[str, Any], notation: Notation = USUAL) -> "pa.Array":
    """A column as pandas reads it as what the preparation takes: dates may be texts, categories numbers, and what is
    missing NaN, None or a text for it.

    Raises:
        UserError: it holds what it can't.
    """
    import pyarrow as pa

    try:
        zoned = (
            getattr(getattr(column, "dtype", None), "tz", None) is not None
        )  # of such pandas gives Arrow no values any more
        array = pa.array(column.dt.tz_convert(None) if zoned else column, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        array = array.cast(pa.timestamp(array.type.unit, "UTC")) if zoned else array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        if pa.types.is_string(array.type):
            array = nulls_for_missing(array, notation)
        return _AS_ARROW[feature["kind"]](array, feature)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(
            f"column {feature['column']!r} can't be taken as {feature['kind']}: {str(error).splitlines()[0]}"
        ) from None


def _as_numeric(array: "pa.Array", _: dict[str, Any]) -> "pa.Array":
    import pyarrow as pa

    return array.cast(pa.float64(), safe=False) if pa.types.is_integer(array.type) else array


def _as_category(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    """Texts; of numbers those that a file would have.

    Refused where the texts seen in training are others: 01234 is no number's.
    """
    import pyarrow as pa

    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        # What pandas would have read as these numbers; the texts that they give must be the same.
        known = [value for value in feature["values"] if value is not None and not natural_order(value)[0]]
        spellings = category_keys(text_array(known)).to_pylist()
        as_numbers = texts_of_categories(
            pa.array([natural_order(value)[1] for value in known], pa.float64())
        ).to_pylist()
        if pa.types.is_integer(array.type):  # exact, also where a float isn't
            as_numbers = [
                str(int(text)) if re.fullmatch(r"-?[0-9]+", text) else other
                for text, other in zip(spellings, as_numbers, strict=True)
            ]
        other = next(
            (value for value, text, of_number in zip(known, spellings, as_numbers, strict=True) if text != of_number),
            None,
        )
        if other is not None:
            raise UserError(
                f"column {feature['column']!r} holds values of type {array.type}, but its categories are texts, such as"
                f" {other!r}: read it as text (dtype={{{feature['column']!r}: str}})"
            )
    return texts_of_categories(array)


def _as_date(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    dates, problem = dates_of(array, feature)
    if problem:
        raise UserError(
            f"column {feature['column']!r} can't be taken as date: in row {problem[0]} (from 0) {problem[1]}"
        )
    return dates


_AS_ARROW: dict[str, Callable[["pa.Array", dict[str, Any]], "pa.Array"]] = {
    "numeric": _as_numeric,
    "boolean": lambda array, _: array,
    "category": _as_category,
    "date": _as_date,
}


def load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point (`loader_module`)."""
    _let_csv_be_read()
    return Predictor(*load(Path(path)))


def _let_csv_be_read() -> None:
    """MLflow's server asks a signature by which types to read CSV, and fails where they may be any: then they are
    texts, as in the file (01234).
    """
    from mlflow.types.schema import AnyType, Schema

    types = Schema.pandas_types
    if types.__module__ == __name__:
        return

    def texts_for_any(schema: Schema) -> list[Any]:
        any_ = not schema.is_tensor_spec() and all(isinstance(column.type, AnyType) for column in schema.inputs)
        return [np.dtype(object)] * len(schema.inputs) if any_ else types(schema)

    Schema.pandas_types = texts_for_any  # type: ignore[method-assign,assignment]


def load(directory: Path) -> tuple[Any, dict[str, Any]]:
    """The network that `log_model` left in a directory, data/network of an MLflow model, and its description. Nothing
    in there is run.

    Raises:
        UserError: a file is missing, damaged, or isn't what it should be.
    """
    description = read_description(directory)
    _check_factory(directory, description["factory"])
    return network(description, directory / WEIGHTS), description


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
            f"{path}: can't be read: {limits.reason(error)}; is this a model that Surefoot logged?"
        ) from None
    try:
        checked: dict[str, Any] = Description.model_validate_json(text).model_dump(exclude_unset=True)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deep"}
        raise UserError(
            f"{path}: isn't a model's description: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        ) from None
    return checked


def _check_factory(directory: Path, factory: str) -> None:
    """A factory must be of the code that came with the model: `os:system` isn't.

    That code runs when the model is loaded, as MLflow has it.
    """
    top = factory.partition(":")[0].partition(".")[0]
    code = directory.parent.parent / "code"
    if top == "surefoot" or not ((code / top).is_dir() or (code / f"{top}.py").is_file()):
        raise UserError(
            f"{directory / DESCRIPTION}: factory: {factory} is no network: the model's own code, {code}, has no module"
            f" {top!r} of the user's"
        )


def network(description: dict[str, Any], weights: Path) -> Any:
    """The network of a description, with the weights of a file, in evaluation mode.

    Raises:
        UserError: it can't be built; the file is missing, damaged, or of another network.
    """
    import safetensors

    from surefoot.training import network as networks

    schema = {name: description[name] for name in ("task", "classes", "features")}
    outputs = len(description["classes"]) if description["task"] == "classification" else 1
    shape = tuple(description["input_shape"])
    built = networks.build(
        description["factory"], description["arguments"], shape, outputs, seed=0, schema=lambda: schema
    )
    try:
        networks.load(built, reading.read_weights(weights))
    except OSError as error:
        raise UserError(f"{weights}: can't be read: {limits.reason(error)}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{weights}: isn't a safetensors file, or is cut short or damaged: {error}") from None
    except RuntimeError as error:
        raise UserError(
            f"{weights}: holds the weights of another network than {description['factory']}:"
            f" {' '.join(str(error).split())[:300]}"
        ) from None
    return built.eval()


def log_model(run_id: str, name: str, weights: bytes, description: dict[str, Any], examples: list[Any]) -> str:
    """Log the network to an MLflow run, with signature, input example, and the code that it needs; returns the model's
    id.
    """
    from importlib.metadata import version

    import mlflow
    import mlflow.pyfunc
    from mlflow.models import Model as MlflowModel

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "network"
        writing.write_bytes(data / WEIGHTS, weights)
        writing.write_json(data / DESCRIPTION, description)
        # Otherwise the model goes to the experiment "Default", and its files to ./mlruns.
        mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
        logged = MlflowModel.log(
            artifact_path=None,
            name=model_name(name),
            run_id=run_id,
            flavor=mlflow.pyfunc,
            loader_module="surefoot.serving",
            data_path=str(data),
            code_paths=_code(description["factory"]),
            signature=_signature(description),
            input_example=example(description, examples),
            metadata={"kinds": {feature["column"]: feature["kind"] for feature in description["features"]}},
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
        )
    return str(logged.model_id)


def model_name(run: str) -> str:
    """The name of a run's model in MLflow: the run's, without the characters that MLflow takes in no model's name."""
    return run.translate(str.maketrans("./:%", ",---", "\"'"))[:200].strip() or "model"


def _signature(description: dict[str, Any]) -> "ModelSignature":
    """What MLflow checks of inputs and outputs; nothing of inputs where a column has an empty name, which its schema
    takes for none.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    features = description["features"]
    if features[0]["kind"] == "array":
        inputs: Schema | None = Schema([TensorSpec(np.dtype(features[0]["dtype"]), (-1, *description["input_shape"]))])
    elif not all(feature["column"] for feature in features):
        inputs = None
    else:
        # Of any type, as pandas reads the same column as integers or as floats, as texts or as dates: `as_arrow` takes
        # each, MLflow only one.
        inputs = Schema(
            [ColSpec(AnyType(), feature["column"], required=not _may_miss(feature)) for feature in features]
        )
    prediction = ColSpec("double" if description["task"] == "regression" else "string", "prediction")
    return ModelSignature(
        inputs, Schema([prediction, *(ColSpec("double", f"probability_{label}") for label in description["classes"])])
    )


def _may_miss(feature: dict[str, Any]) -> bool:
    return feature["fill"] is not None or None in feature.get("values", [])


def example(description: dict[str, Any], examples: list[Any]) -> "pd.DataFrame | np.ndarray":
    """Raw rows that prepare noted, as a user would give them."""
    import pandas as pd

    features = description["features"]
    if features[0]["kind"] == "array":
        return np.asarray(examples, features[0]["dtype"]).reshape(-1, *description["input_shape"])
    return pd.DataFrame(examples, columns=[feature["column"] for feature in features])


def _code(factory: str) -> list[str]:
    """Surefoot itself, and the user's own modules and packages that make the network: the top module or package of
    each.
    """
    own, _ = code_digests.modules([factory])
    tops = {name.partition(".")[0] for name in (factory.partition(":")[0], *own)} | {"surefoot"}
    paths = [path for top in tops if (path := code_digests.module_file(top))]
    return sorted(str(path.parent if path.name == "__init__.py" else path) for path in paths)
