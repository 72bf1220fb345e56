"""The chosen model as an MLflow model: raw rows in, predictions out. Loading it unpickles nothing."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot import files
from surefoot.data.features import transform

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

PACKAGES = ("torch", "mlflow", "numpy", "pandas", "pyarrow", "safetensors", "pydantic", "ruamel.yaml")
# A column's type in the model's signature, by kind; a category of integers is still a text there.
TYPES = {"numeric": "double", "boolean": "boolean", "category": "string", "date": "datetime"}


class Predictor:
    """What MLflow calls: a network with the preparation of its inputs."""

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        self._model = model
        self._description = description

    def predict(self, rows: "pd.DataFrame | np.ndarray") -> "pd.DataFrame":
        """For each raw row the class (`prediction`) and the probability of each class; in regression the number.

        Args:
            rows: a data frame with the columns of the raw data, or an array (rows, *shape) where the raw data are arrays.
        """
        import pandas as pd
        import torch

        from surefoot.training.model import predict
        from surefoot.training.rows import Stored

        what = self._description
        columns = [feature["column"] for feature in what["features"]]
        given = {columns[0]: rows} if isinstance(rows, np.ndarray) else {name: rows[name].to_numpy() for name in columns if name in rows}
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
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
        )
    return str(logged.model_id)


def _signature(description: dict[str, Any]) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    features = description["features"]
    if features[0]["kind"] == "array":
        inputs = Schema([TensorSpec(np.dtype(features[0]["dtype"]), (-1, *description["input_shape"]))])
    else:
        inputs = Schema([ColSpec(TYPES[feature["kind"]], feature["column"], required=not _may_miss(feature)) for feature in features])
    prediction = ColSpec("double" if description["task"] == "regression" else "string", "prediction")
    return ModelSignature(inputs, Schema([prediction, *(ColSpec("double", f"probability_{label}") for label in description["classes"])]))


def _may_miss(feature: dict[str, Any]) -> bool:
    return feature["fill"] is not None or None in feature.get("values", [])


def _example(description: dict[str, Any], examples: list[Any]) -> "pd.DataFrame | np.ndarray":
    import pandas as pd

    features = description["features"]
    if features[0]["kind"] == "array":
        return np.asarray(examples, features[0]["dtype"]).reshape(-1, *description["input_shape"])
    frame = pd.DataFrame(examples, columns=[feature["column"] for feature in features])
    kinds = {"numeric": "float64", "boolean": "bool", "category": "str", "date": "datetime64[us]"}
    return frame.astype({feature["column"]: kinds[feature["kind"]] for feature in features if not frame[feature["column"]].isna().any()})


def _code(factory: str) -> list[str]:
    """Surefoot itself, and the top module or package of the user's own network."""
    import sys

    top = sys.modules[factory.partition(":")[0].partition(".")[0]]
    return sorted(
        {str(Path(module.__file__).parent if hasattr(module, "__path__") else module.__file__) for module in (top, sys.modules["surefoot"]) if module.__file__}
    )
