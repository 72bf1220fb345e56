"""The network of a logged model: built by the code that came with it, with the weights of a safetensors file."""

from pathlib import Path
from typing import Any

import numpy as np

from surefoot.base import limits, reading
from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.data.normalization import in_own_unit
from surefoot.serving.model_description import DESCRIPTION, WEIGHTS, read_description


def load_logged_network(directory: Path) -> tuple[Any, dict[str, Any]]:
    """The network that `log_model` left in a directory, data/network of an MLflow model, and its description. Nothing
    in there is run.

    Raises:
        UserError: a file is missing, damaged, or isn't what it should be.
    """
    description = read_description(directory)
    _check_factory(directory, description["factory"])
    return network_with_weights(description, directory / WEIGHTS), description


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


def network_with_weights(description: dict[str, Any], weights: Path) -> Any:
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
        networks.load_weights(built, reading.read_weights(weights))
    except OSError as error:
        raise UserError(f"{weights}: can't be read: {limits.system_reason(error)}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{weights}: isn't a safetensors file, or is cut short or damaged: {error}") from None
    except RuntimeError as error:
        raise UserError(
            f"{weights}: holds the weights of another network than {description['factory']}:"
            f" {' '.join(str(error).split())[:300]}"
        ) from None
    return built.eval()


def predict_rows(model: Any, description: dict[str, Any], inputs: np.ndarray) -> dict[str, Any]:
    """What a network says of prepared rows, (rows, width): columns `prediction`, a list of labels or float64 (rows,),
    and `probability_<label>`, float64.

    Raises:
        UserError: the network fails on them, or gives what is no number.
    """
    import torch

    from surefoot.training.minibatches import Stored
    from surefoot.training.network import outputs_of
    from surefoot.training.probabilities import class_probabilities

    rows = np.require(inputs.reshape(-1, *description["input_shape"]), requirements="W")  # torch warns of others
    try:
        outputs = (
            outputs_of(model, Stored(rows, description["scale"])).double()
            if len(rows)
            else torch.empty(0, max(1, len(description["classes"])))
        )
    except Exception as error:  # a token that an embedding has no place for
        raise UserError(f"the network fails on these rows: {describe_error(error)}") from None
    if description["task"] == "regression":
        scale = description.get("target_scale")  # older models have none
        given = outputs[:, 0].numpy()
        return {"prediction": in_own_unit(given, scale) if scale else given}
    probabilities = class_probabilities(outputs, description["task"]).numpy()
    classes = description["classes"]
    return {"prediction": [classes[number] for number in probabilities.argmax(1)]} | {
        f"probability_{label}": probabilities[:, number] for number, label in enumerate(classes)
    }
