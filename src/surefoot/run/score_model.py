"""The chosen model on the test rows."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.data.batch_store import Store
from surefoot.data.normalization import in_own_unit
from surefoot.data.part_files import rows_of_parts
from surefoot.evaluation.metrics import Scored
from surefoot.params.sections import Params
from surefoot.run.from_params import chosen_network, objective_from_params
from surefoot.run.new_rows import is_new_part
from surefoot.run.processes.shared_evaluation import outputs_by_processes
from surefoot.training.minibatches import Stored
from surefoot.training.objective import Objective
from surefoot.training.probabilities import class_probabilities

if TYPE_CHECKING:
    from surefoot.run.start_note import StartNote

ROWS_AT_ONCE = 10_000  # whose losses are computed


def score_model(params: Params, batches: Store) -> tuple[float, Scored]:
    """The loss on the test rows, and what came out of the chosen model for each.

    Raises:
        UserError: the model is damaged, or of another network; it fails, or gives what isn't finite.
    """
    model = chosen_network(params, batches)
    objective = objective_from_params(params, batches)
    targets = Stored(batches.test.targets, batches.target_scale)[:]
    try:
        outputs = outputs_by_processes(params, model, batches)
        targets = targets.to(outputs.device)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"train.model: the network fails on the test rows: {describe_error(error)}") from None
    loss = objective.loss(outputs, targets).item()
    outputs, targets = outputs.cpu(), targets.cpu()
    _check_finite(loss, outputs)
    return loss, _scored(batches, outputs, *_losses(params, batches, objective, outputs, targets, loss))


def _check_finite(loss: float, outputs: Tensor) -> None:
    if math.isfinite(loss) and outputs.isfinite().all():
        return
    what, value = ("the network's output", "not finite") if math.isfinite(loss) else ("the loss", f"{loss}")
    raise UserError(
        f"{what} on the test rows is {value}, though on the validation rows it wasn't: are there values far from all"
        " those in training?"
    )


def _scored(batches: Store, outputs: Tensor, losses: np.ndarray | None, weights: np.ndarray | None) -> Scored:
    """The network's outputs as the metrics take them."""
    scores = outputs.double()
    probabilities = class_probabilities(scores, batches.task)
    actual: np.ndarray = batches.test.targets
    predicted = _predicted(batches, outputs.numpy())
    if batches.task != "regression":
        actual, predicted = actual.astype(np.int64), predicted.astype(np.int64)
    return Scored(
        batches.task, batches.classes, actual, predicted, scores.numpy(), probabilities.numpy(), losses, weights
    )


def _predicted(batches: Store, outputs: np.ndarray) -> np.ndarray:
    """For each row the class, as an index, or the number."""
    found: np.ndarray = outputs.argmax(1) if batches.task == "classification" else outputs[:, 0]
    if batches.target_scale:
        return in_own_unit(found, batches.target_scale)
    return (found > 0).astype("int64") if batches.task == "binary" else found


def _losses(
    params: Params, batches: Store, objective: Objective, outputs: Tensor, targets: Tensor, mean: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The loss of each test row, and the row's weight in their mean; None where the loss isn't such a mean, as one of
    the user's own may be.
    """
    try:
        each = objective_from_params(params, batches, "cpu", reduction="none")
        parts = [
            each.loss(*some).double()
            for some in zip(outputs.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True)
        ]
        losses = torch.cat(parts)
        # A loss with class weights divides by their sum.
        weight = getattr(objective.loss, "weight", None)  # which lies where the network does
        weights = torch.ones_like(losses) if weight is None else weight.cpu().double()[targets]
        for given in (None, weights):
            found = losses.mean() if given is None else losses.sum() / given.sum()
            if losses.shape == targets.shape and math.isclose(found.item(), mean, rel_tol=1e-4, abs_tol=1e-6):
                return (losses.numpy(), None) if given is None else ((losses / given).numpy(), given.numpy())
    except Exception:  # whatever a loss that isn't made for it may do
        return None, None
    return None, None


def old_and_new(start: "StartNote | None", batches: Store, tested: Scored) -> dict[str, float]:
    """Accuracy (in regression the mean absolute error) on the test rows of part files that the start had seen, and on
    the new ones.
    """
    if start is None or not start.seen or not batches.index.parts:
        return {}
    new = np.zeros(len(tested.actual), np.bool_)
    for first, stop in rows_of_parts(batches.index.parts, "test", is_new_part(start.seen)):
        new[first:stop] = True
    what, each = (
        ("mae", np.abs(tested.predicted - tested.actual.astype(np.float64)))
        if batches.task == "regression"
        else ("accuracy", tested.predicted == tested.actual)
    )
    return {f"{age}/{what}": float(each[which].mean()) for age, which in (("old", ~new), ("new", new)) if which.any()}
