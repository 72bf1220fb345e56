"""Which epoch of a run its model is of."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from surefoot.base.errors import UserError

if TYPE_CHECKING:
    from surefoot.run.record import Epoch


def choose_epoch(select: str, history: "Sequence[Epoch]") -> "Epoch":
    """The record of the epoch whose model is kept, by `train.select`.

    Raises:
        UserError: no epoch has averaged weights.
    """
    loss = _loss(select)
    there = [record for record in history if loss in record.metrics]
    if not there:
        raise UserError(
            f"train.select: {select}: the run ended before train.average.start, so nothing was averaged; choose best or"
            " last"
        )
    return there[-1] if select.startswith("last") else min(there, key=lambda record: record.metrics[loss])


def describe_choice(select: str, chosen: int, history: Mapping[str, Sequence[float]]) -> list[str]:
    """Lines that say which epoch was chosen and why, and what it tells where the best one is the first or the last.

    Args:
        select: `train.select`.
        chosen: the number of the epoch.
        history: the columns of history.csv; NaN where an epoch has no such metric.
    """
    loss, epochs = _loss(select), len(history["epoch"])
    averaged = "averaged, " if select.endswith("_average") else ""
    why = "the last" if select.startswith("last") else f"least {loss}"
    lines = [f"{averaged}of epoch {chosen} of {epochs}: {why}"]
    losses = {epoch: value for epoch, value in enumerate(history.get(loss, []), 1) if not isnan(value)}
    best = min(losses, key=lambda epoch: losses[epoch], default=0)
    if len(losses) > 1 and best == epochs:
        lines.append(f"note: {loss} is least after the last epoch: more may do better (train.epochs)")
    elif len(losses) > 1 and best == min(losses):
        lines.append(f"note: {loss} is least after epoch {best}: a smaller train.lr may do better (`surefoot lr-find`)")
    return lines


def _loss(select: str) -> str:
    """The loss that tells how good an epoch is."""
    return f"validation/{'average_' if select.endswith('_average') else ''}loss"
