"""`reports/history.csv`: the metrics of each epoch."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surefoot.base import paths, reading
from surefoot.base.errors import UserError
from surefoot.base.writing import csv_bytes
from surefoot.evaluation.summary import format_number

if TYPE_CHECKING:
    from surefoot.run.record import Record

COLUMNS = 80  # of a terminal


def metric_names(record: "Record") -> list[str]:
    """The metrics of an epoch in the order in which they are shown: the losses, what the task measures, the gradient's
    norm, the learning rate.
    """
    losses, last = ["train/loss", "validation/loss"], ["gradient_norm", "lr"]
    return [*losses, *sorted(record.metrics.keys() - {*losses, *last}), *last]


def epoch_line(record: "Record", epochs: int) -> str:
    """What the terminal shows of an epoch: its losses, what the task measures, and the seconds that it took, as far as
    they fit.
    """
    line, shown = f"epoch {record.epoch:{len(str(epochs))}}/{epochs}", metric_names(record)[:-2]
    names = {name: name.removeprefix("validation/").replace("_", " ") for name in shown}
    names |= {"train/loss": "loss", "validation/loss": "validation", "validation/average_loss": "average"}
    # What is measured of the averaged weights comes after their loss.
    for name in sorted(shown, key=lambda name: (name.startswith("validation/average_"), not name.endswith("loss"))):
        line = _appended(line, f"{names[name]} {format_number(record.metrics[name])}")
    return _appended(line, f"{record.seconds:.2f} s")


def _appended(line: str, text: str) -> str:
    longer = f"{line}  {text}"
    return longer if len(longer) <= COLUMNS else line


def history_csv(history: "Sequence[Record]") -> bytes:
    """A line for each epoch."""
    columns = metric_names(history[-1])  # the last epoch has all: averages begin later than the first
    rows = ([record.epoch, *(record.metrics.get(name) for name in columns)] for record in history)
    return csv_bytes([("epoch", *columns), *rows])


def read_history(epochs: int) -> dict[str, list[float]]:
    """The columns of the file, of so many epochs; NaN for an empty cell.

    Raises:
        UserError: it isn't there, can't be read, or is damaged.
    """
    text = reading.read_made(paths.HISTORY, "train").decode("utf-8", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if len(rows) != epochs:
            raise ValueError(len(rows))
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}
    except (IndexError, ValueError, TypeError, csv.Error):
        raise UserError(f"{paths.HISTORY}: is damaged; remove it, and `dvc repro train` makes it again") from None
