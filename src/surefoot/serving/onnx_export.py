"""The chosen network as an ONNX file (`train.onnx`), made and checked by a process of its own.

Of its own, as torch's exporter follows the network's calls to torch, some of which a training's numerics replace; and
it imports a compiler.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.base import errors, writing
from surefoot.base.errors import UserError
from surefoot.base.installation import install_command
from surefoot.base.user_code import describe_error
from surefoot.data.features import transform
from surefoot.serving import logged_network, mlflow_model, model_description, rows_to_predict

DIRECTORY = "onnx"
PATH = f"{DIRECTORY}/model.onnx"
PATHS = {PATH, f"{DIRECTORY}/{model_description.DESCRIPTION}"}  # all that `export` makes
PACKAGES = ("onnx", "onnxscript")
TOLERANCE = 1e-4  # of two ways to compute the same; relative to the largest output


def export(weights: bytes, description: dict[str, Any], examples: list[Any]) -> dict[str, bytes]:
    """The network as ONNX, and beside it the description of its inputs and outputs: artifacts by path. This takes some
    seconds.

    Args:
        weights: safetensors.
        description: of the network, as `mlflow_model.log_model` takes it.
        examples: raw rows, on which the file is compared with the network, where onnxruntime is installed.

    Raises:
        UserError: the packages that it takes aren't installed; torch can't export this network; the file computes
        something else.
    """
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(
            f"train.onnx: true needs {' and '.join(lacking)}: {install_command('onnx')}; or set it to false"
        )
    with tempfile.TemporaryDirectory() as scratch:
        writing.write_bytes(Path(scratch) / model_description.WEIGHTS, weights)
        writing.write_json(Path(scratch) / model_description.DESCRIPTION, description)
        writing.write_json(Path(scratch) / "examples.json", examples)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "surefoot.serving.onnx_export", scratch],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(
                next(
                    (line.removeprefix("error: ") for line in said if line.startswith("error: ")),
                    f"train.onnx: {said[-1]}",
                )
            )
        made = sorted((Path(scratch) / DIRECTORY).iterdir())
        return {f"{DIRECTORY}/{path.name}": path.read_bytes() for path in made}


def main() -> None:
    """Export the network in the directory that is the first argument."""
    import json

    import torch

    here = Path(sys.argv[1])
    description = model_description.read_description(here)
    network = logged_network.network_with_weights(description, here / model_description.WEIGHTS)
    inputs = _inputs(description, json.loads((here / "examples.json").read_text()))
    scale = description.get("target_scale")
    if scale:
        network = _in_own_unit(network, scale)
    try:
        with torch.no_grad():
            expected = network(inputs).numpy()
            program = torch.onnx.export(
                network,
                (inputs,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("rows")},),
            )
    except Exception as error:
        cause = error.__cause__ or error  # the outer one is instructions of twenty lines
        raise UserError(f"train.onnx: torch can't export this network: {describe_error(cause)[:400]}") from None
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of this machine, and lines of its code
    (here / DIRECTORY).mkdir()
    program.save(here / PATH)
    writing.write_json(here / DIRECTORY / model_description.DESCRIPTION, description)
    _check(here / PATH, inputs.numpy(), expected, scale)


def _in_own_unit(network: Any, scale: dict[str, list[float]]) -> Any:
    """A network whose number is in the target's own unit: float64, as a large one with little spread would lose its
    last digits else.
    """
    import torch
    from torch import Tensor, nn

    class InOwnUnit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            for name, numbers in scale.items():  # tensors, as the exporter makes float32 of a plain number
                self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64))

        def forward(self, rows: Tensor) -> Any:
            return self.network(rows).double() * self.divide + self.subtract

    return InOwnUnit()


def _inputs(description: dict[str, Any], examples: list[Any]) -> Any:
    """Example rows as the network gets them; at least two, as torch would take one row for a constant."""
    from surefoot.training.minibatches import Stored

    features = description["features"]
    rows = mlflow_model.example_rows(description, examples)
    if isinstance(rows, np.ndarray):
        given: dict[str, Any] = {features[0]["column"]: rows}
    else:
        notation = model_description.notation_of_model(description)
        given = {
            feature["column"]: rows_to_predict.as_arrow(rows[feature["column"]], feature, notation)
            for feature in features
        }
    inputs = transform(given, features).reshape(-1, *description["input_shape"])
    prepared = Stored(np.concatenate([inputs, inputs]), description["scale"])
    return prepared[:]


def _check(path: Path, inputs: np.ndarray, expected: np.ndarray, scale: dict[str, list[float]] | None = None) -> None:
    """Compare the file with the network, on all rows and on one, on the scale of the training."""
    import onnx

    subtract, divide = (scale["subtract"][0], scale["divide"][0]) if scale else (0.0, 1.0)
    onnx.checker.check_model(str(path))
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (len(inputs), 1):
        (given,) = session.run(None, {session.get_inputs()[0].name: inputs[:rows]})
        apart = float(np.abs(given - expected[:rows]).max()) / divide
        if not apart <= TOLERANCE * max(1.0, float(np.abs((expected - subtract) / divide).max())):
            raise UserError(
                f"train.onnx: the ONNX file computes something else than the network: the outputs differ by {apart:.3g}"
            )


if __name__ == "__main__":
    errors.run_process(main)
