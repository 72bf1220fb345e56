"""The chosen model as others take it: in MLflow, as ONNX."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.serving.mlflow_model import Predictor


def _load_pyfunc(path: str) -> "Predictor":
    """MLflow's entry point: models name the module `surefoot.serving`."""
    from surefoot.serving import mlflow_model

    return mlflow_model.load_pyfunc(path)
