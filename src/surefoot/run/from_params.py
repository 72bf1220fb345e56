"""The network and the objective that params.yaml and the data ask for: to train, and to evaluate what was trained."""

from typing import Any

from safetensors import SafetensorError
from torch import nn

from surefoot.base import paths, reading
from surefoot.base.errors import UserError
from surefoot.data.batch_store import Store
from surefoot.params.sections import Params
from surefoot.training import network
from surefoot.training.objective import Objective, make_objective


def network_from_params(params: Params, batches: Store) -> nn.Module:
    """The network, with its first weights, on the device that trains it.

    Raises:
        UserError: it can't be built.
    """
    model = params.train.model
    shape, outputs = batches.input_shape, batches.index.outputs
    return network.build(model.factory, model.arguments, shape, outputs, params.seed, batches.schema, params.device)


def chosen_network(params: Params, batches: Store) -> nn.Module:
    """The network with the weights that train chose.

    Raises:
        UserError: the model is damaged, or of another network.
    """
    model = network_from_params(params, batches)
    try:
        network.load_weights(model, reading.read_made(paths.MODEL, "train", reading.LARGEST_WEIGHTS))
    except (RuntimeError, ValueError, KeyError, SafetensorError):
        raise UserError(
            f"{paths.MODEL}: is damaged, or of another network; remove it, and `dvc repro train` makes it again"
        ) from None
    return model


def objective_from_params(params: Params, batches: Store, device: str | None = None, **arguments: Any) -> Objective:
    """The loss and what is measured beside it; `device` and `arguments` of the loss go before those of params.yaml.

    Raises:
        UserError: there is no such loss; it can't be made; weights that don't fit.
    """
    loss = params.train.loss
    return make_objective(
        batches.task,
        loss.name,
        loss.arguments | arguments,
        loss.class_weights,
        batches.index.splits["train"].class_counts,
        device or params.device,
        batches.target_unit,
    )
