"""The chosen model as an MLflow model: raw rows in, class and probabilities out. Loading it unpickles nothing."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot import files
from surefoot.data.normalize import normalize

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "mlflow", "numpy", "pandas", "safetensors", "pydantic", "ruamel.yaml")


class Predictor:
    """What MLflow calls: a network with the preparation of its inputs."""

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        self._model = model
        self._description = description

    def predict(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """For each raw row its class (`prediction`) and the probability of each class."""
        import pandas as pd
        import torch

        from surefoot.training.model import predict

        what = self._description
        inputs = normalize(rows[what["inputs"]].to_numpy(np.float64), what["subtract"], what["divide"])
        logits = predict(self._model, torch.from_numpy(inputs.reshape(-1, *what["input_shape"])))
        probabilities = torch.softmax(logits.double(), 1).numpy()
        labels = [what["classes"][number] for number in probabilities.argmax(1)]
        columns = {f"probability_{label}": probabilities[:, number] for number, label in enumerate(what["classes"])}
        return pd.DataFrame({"prediction": labels, **columns})


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point (`loader_module`)."""
    from surefoot.training import model as networks

    what = json.loads((Path(path) / "description.json").read_text())
    model = networks.build(what["factory"], what["arguments"], tuple(what["input_shape"]), len(what["classes"]), seed=0)
    networks.load(model, (Path(path) / "model.safetensors").read_bytes())
    return Predictor(model, what)


def log_model(run_id: str, weights: bytes, description: dict[str, Any], examples: list[list[float]]) -> str:
    """Log the network to an MLflow run, with signature, input example, and the code that it needs; returns the model's id."""
    from importlib.metadata import version

    import mlflow
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        Schema([ColSpec("double", name) for name in description["inputs"]]),
        Schema([ColSpec("string", "prediction"), *(ColSpec("double", f"probability_{label}") for label in description["classes"])]),
    )
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
            signature=signature,
            input_example=pd.DataFrame(examples, columns=description["inputs"]),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
        )
    return str(logged.model_id)


def _code(factory: str) -> list[str]:
    """Surefoot itself, and the top module or package of the user's own network."""
    import sys

    top = sys.modules[factory.partition(":")[0].partition(".")[0]]
    return sorted(
        {str(Path(module.__file__).parent if hasattr(module, "__path__") else module.__file__) for module in (top, sys.modules["surefoot"]) if module.__file__}
    )
