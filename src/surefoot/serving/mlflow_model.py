"""The chosen model as an MLflow model: raw rows in, predictions out."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.base import code_digests, writing
from surefoot.serving.model_description import DESCRIPTION, WEIGHTS
from surefoot.serving.rows_to_predict import may_be_missing

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

# What the model is loaded with: by name, the distribution here that has it.
PACKAGES = {"torch": "torch", "mlflow": "mlflow-skinny"} | {
    name: name for name in ("numpy", "pandas", "pyarrow", "safetensors", "pydantic")
}


def log_model(run_id: str, name: str, weights: bytes, description: dict[str, Any], examples: list[Any]) -> str:
    """Log the network to an MLflow run, with signature, input example, and the code that it needs; returns the model's
    id.
    """
    from importlib.metadata import version

    import mlflow
    import mlflow.pyfunc
    from mlflow.models import Model as MlflowModel
    from mlflow.utils import requirements_utils

    # MLflow would read the files of every installed package to find those of PACKAGES, whose names are their own.
    requirements_utils._MODULES_TO_PACKAGES = requirements_utils._MODULES_TO_PACKAGES or {}  # type: ignore[assignment]
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
            flavor=SimpleNamespace(__name__="mlflow.pyfunc", save_model=_save_model),
            validate_serving_input=False,
            loader_module="surefoot.serving",
            data_path=str(data),
            code_paths=_code(description["factory"]),
            signature=_signature(description),
            input_example=example_rows(description, examples),
            metadata={"kinds": {feature["column"]: feature["kind"] for feature in description["features"]}},
            pip_requirements=[f"{name}=={version(here).partition('+')[0]}" for name, here in PACKAGES.items()],
        )
    return str(logged.model_id)


def _save_model(validate_serving_input: bool, **given: Any) -> None:  # noqa: ARG001
    """MLflow's own, which doesn't know the setting by which the model isn't loaded to predict its example: that imports
    torch, and nobody hears what comes of it.
    """
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(**given)


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
        # Of any type, as pandas reads the same column as integers or as floats, as texts or as dates: we take each,
        # MLflow only one.
        inputs = Schema(
            [ColSpec(AnyType(), feature["column"], required=not may_be_missing(feature)) for feature in features]
        )
    prediction = ColSpec("double" if description["task"] == "regression" else "string", "prediction")
    return ModelSignature(
        inputs, Schema([prediction, *(ColSpec("double", f"probability_{label}") for label in description["classes"])])
    )


def example_rows(description: dict[str, Any], examples: list[Any]) -> "pd.DataFrame | np.ndarray":
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
    own, _ = code_digests.modules_behind([factory])
    tops = {name.partition(".")[0] for name in (factory.partition(":")[0], *own)} | {"surefoot"}
    paths = [path for top in tops if (path := code_digests.module_file(top))]
    return sorted(str(path.parent if path.name == "__init__.py" else path) for path in paths)
