"""Which epoch of a run its model is of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from surefoot.base.errors import UserError

if TYPE_CHECKING:
    from surefoot.run.trajectory_store import Record


def choose_epoch(select: str, history: "Sequence[Record]") -> "Record":
    """The record of the epoch whose model is kept, by `train.select`.

    Raises:
        UserError: no epoch has averaged weights.
    """
    which, _, averaged = select.partition("_")
    loss = f"validation/{'average_' if averaged else ''}loss"
    there = [record for record in history if loss in record["metrics"]]
    if not there:
        raise UserError(
            f"train.select: {select}: the run ended before train.average.start, so nothing was averaged; choose best or"
            " last"
        )
    return there[-1] if which == "last" else min(there, key=lambda record: float(record["metrics"][loss]))
