"""The chosen model as an MLflow model: raw rows in, predictions out. Loading it unpickles nothing."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot import files
from surefoot.data.features import transform
from surefoot.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from mlflow.models import ModelSignature

PACKAGES = ("torch", "mlflow", "numpy", "pandas", "pyarrow", "safetensors", "pydantic", "ruamel.yaml")


class Predictor:
    """What MLflow calls: a network with the preparation of its inputs."""

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        self._model = model
        self._description = description

    def predict(self, rows: "pd.DataFrame | np.ndarray") -> "pd.DataFrame":
        """For each raw row the class (`prediction`) and the probability of each class; in regression the number.

        Args:
            rows: a data frame with the columns of the raw data, as pandas reads them, or an array (rows, *shape) where the raw data are arrays.

        Raises:
            UserError: a column is missing, or holds what it can't.
        """
        import pandas as pd
        import torch

        from surefoot.training.model import predict
        from surefoot.training.rows import Stored

        what = self._description
        features = what["features"]
        if isinstance(rows, np.ndarray):
            given: dict[str, Any] = {features[0]["column"]: rows}
        else:
            given = {feature["column"]: as_arrow(rows[feature["column"]], feature) for feature in features if feature["column"] in rows}
        inputs = transform(given, what["features"]).reshape(-1, *what["input_shape"])
        outputs = predict(self._model, Stored(inputs, what["scale"])).double()
        if what["task"] == "regression":
            return pd.DataFrame({"prediction": outputs[:, 0].numpy()})
        if what["task"] == "binary":
            positive = torch.sigmoid(outputs[:, 0])
            probabilities = torch.stack([1 - positive, positive], 1).numpy()
        else:
            probabilities = torch.softmax(outputs, 1).numpy()
        labels = [what["classes"][number] for number in probabilities.argmax(1)]
        return pd.DataFrame({"prediction": labels} | {f"probability_{label}": probabilities[:, number] for number, label in enumerate(what["classes"])})


def as_arrow(column: "pd.Series", feature: dict[str, Any]) -> "pa.Array":
    """A column as pandas reads it as what the preparation takes: dates may be texts, categories numbers, and what is missing NaN or None.

    Raises:
        UserError: it holds what it can't.
    """
    import pyarrow as pa

    try:
        array = pa.array(column, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        return _AS_ARROW[feature["kind"]](array, feature)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(f"column {feature['column']!r} can't be taken as {feature['kind']}: {str(error).splitlines()[0]}") from None


def _as_numeric(array: "pa.Array", _: dict[str, Any]) -> "pa.Array":
    import pyarrow as pa

    return array.cast(pa.float64(), safe=False) if pa.types.is_integer(array.type) else array


def _as_boolean(array: "pa.Array", _: dict[str, Any]) -> "pa.Array":
    import pyarrow as pa

    return array.cast(pa.bool_()) if pa.types.is_string(array.type) else array


def _as_category(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    """Texts; of numbers those that a file would have. Refused where the texts seen in training are others: 01234 is no number's."""
    import pyarrow as pa

    if pa.types.is_string(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.string())
    texts = array.cast(pa.string())
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type):
        # What pandas would have read as these numbers; the texts that they give must be the same.
        known = [value for value in feature["values"] if value is not None and _reads_as(value, array.type)]
        other = next((value for value in known if _canonical(value, array.type) != value), None)
        if other is not None:
            raise UserError(
                f"column {feature['column']!r} holds values of type {array.type}, but its categories are texts, such as {other!r}: "
                f"read it as text (dtype={{{feature['column']!r}: str}})"
            )
    return texts


def _reads_as(text: str, kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return text.lower() in ("true", "false")
    try:
        float(text)
    except ValueError:
        return False
    return True


def _canonical(text: str, kind: "pa.DataType") -> str:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return text.lower()
    return str(pa.scalar(float(text)).cast(pa.string()).as_py())


def _as_date(array: "pa.Array", feature: dict[str, Any]) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(array.type):
        return pa.nulls(len(array)) if array.null_count == len(array) else array  # of nothing but NaN pandas makes numbers
    if "year" in feature["parts"]:
        return array.cast(pa.timestamp("us"))
    return pc.binary_join_element_wise("1970-01-01", array, " ").cast(pa.timestamp("us"))  # Arrow reads no time alone


_AS_ARROW: dict[str, Callable[["pa.Array", dict[str, Any]], "pa.Array"]] = {
    "numeric": _as_numeric,
    "boolean": _as_boolean,
    "category": _as_category,
    "date": _as_date,
}


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point (`loader_module`)."""
    from surefoot.training import model as networks

    what = json.loads((Path(path) / "description.json").read_text())
    schema = {name: what[name] for name in ("task", "classes", "features")}
    outputs = len(what["classes"]) if what["task"] == "classification" else 1
    model = networks.build(what["factory"], what["arguments"], tuple(what["input_shape"]), outputs, seed=0, schema=lambda: schema)
    networks.load(model, (Path(path) / "model.safetensors").read_bytes())
    return Predictor(model, what)


def log_model(run_id: str, weights: bytes, description: dict[str, Any], examples: list[Any]) -> str:
    """Log the network to an MLflow run, with signature, input example, and the code that it needs; returns the model's id."""
    from importlib.metadata import version

    import mlflow
    import mlflow.pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "network"
        files.write_bytes(data / "model.safetensors", weights)
        files.write_json(data / "description.json", description)
        # Otherwise the model goes to the experiment "Default", and its files to ./mlruns.
        mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
        logged = Model.log(
            artifact_path=None,
            name="model",
            run_id=run_id,
            flavor=mlflow.pyfunc,
            loader_module="surefoot.serving",
            data_path=str(data),
            code_paths=_code(description["factory"]),
            signature=_signature(description),
            input_example=_example(description, examples),
            metadata={"kinds": {feature["column"]: feature["kind"] for feature in description["features"]}},
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
        )
    return str(logged.model_id)


def _signature(description: dict[str, Any]) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    features = description["features"]
    if features[0]["kind"] == "array":
        inputs = Schema([TensorSpec(np.dtype(features[0]["dtype"]), (-1, *description["input_shape"]))])
    else:
        # Of any type, as pandas reads the same column as integers or as floats, as texts or as dates: `as_arrow` takes each, MLflow only one.
        inputs = Schema([ColSpec(AnyType(), feature["column"], required=not _may_miss(feature)) for feature in features])
    prediction = ColSpec("double" if description["task"] == "regression" else "string", "prediction")
    return ModelSignature(inputs, Schema([prediction, *(ColSpec("double", f"probability_{label}") for label in description["classes"])]))


def _may_miss(feature: dict[str, Any]) -> bool:
    return feature["fill"] is not None or None in feature.get("values", [])


def _example(description: dict[str, Any], examples: list[Any]) -> "pd.DataFrame | np.ndarray":
    import pandas as pd

    features = description["features"]
    if features[0]["kind"] == "array":
        return np.asarray(examples, features[0]["dtype"]).reshape(-1, *description["input_shape"])
    return pd.DataFrame(examples, columns=[feature["column"] for feature in features])


def _code(factory: str) -> list[str]:
    """Surefoot itself, and the top module or package of the user's own network."""
    import sys

    top = sys.modules[factory.partition(":")[0].partition(".")[0]]
    return sorted(
        {str(Path(module.__file__).parent if hasattr(module, "__path__") else module.__file__) for module in (top, sys.modules["surefoot"]) if module.__file__}
    )
