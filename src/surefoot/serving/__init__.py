"""The chosen model as others take it: in MLflow, as ONNX."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.serving.predictor import Predictor


def _load_pyfunc(path: str) -> "Predictor":
    """MLflow's entry point: models name the module `surefoot.serving`."""
    from surefoot.serving import predictor

    return predictor.load_pyfunc(path)
