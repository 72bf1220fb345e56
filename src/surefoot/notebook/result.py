"""What came of a run, as a notebook has it."""

import base64
import json
import random
import shutil
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.base import paths, terminal
from surefoot.base.wording import number_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from surefoot.evaluation.intervals import Interval

FIRST = "training.png"  # of the plots: shown as it is, the others when one asks for them


class Picture(bytes):
    """A plot as PNG, which a notebook shows."""

    def _repr_png_(self) -> bytes:
        return bytes(self)


class Result:
    """A run's params, history, test metrics, plots and model. A notebook shows it with its plots."""

    def __init__(self, directory: Path) -> None:
        """Of the directory that `run_in_scratch` filled; it is removed with this object."""
        self._directory = directory
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        about = json.loads((directory / "run.json").read_bytes())
        self.params: dict[str, Any] = about["params"]
        """All of them, by dotted key."""
        self.name: str | None = about["name"]
        """In MLflow; this and the next two are None where MLflow is out of reach."""
        self.run_id: str | None = about["run_id"]
        self.page: str | None = about["page"]
        """The address of its page."""
        self.epochs: int = about["epochs"]
        self.chosen_epoch: int = about["chosen_epoch"]
        """The one whose model was kept."""
        self._network: dict[str, Any] = about["network"]
        self.metrics: dict[str, float] = self._measured(paths.METRICS)
        """Of the test rows: `test/accuracy` and so on."""
        ends = self._measured(paths.INTERVALS)
        self.intervals: dict[str, Interval] = {name: (each["low"], each["high"]) for name, each in ends.items()}
        """Of as many of the metrics as have one: where 95 of 100 others like it would lie."""
        plots = {path.name: Picture(path.read_bytes()) for path in sorted((directory / "plots").glob("*.png"))}
        self.plots: dict[str, Picture] = dict(sorted(plots.items(), key=lambda plot: plot[0] != FIRST))
        """PNG by file name."""

    def _measured(self, path: Path) -> dict[str, Any]:
        found = json.loads((self._directory / path.name).read_bytes())["test"]
        return {f"test/{name}": value for name, value in found.items()}

    @cached_property
    def history(self) -> "pd.DataFrame":
        """The metrics of each epoch, a column each: reports/history.csv."""
        return self._table(paths.HISTORY).set_index("epoch")

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Target and prediction of each test row: reports/predictions.csv."""
        return self._table(paths.PREDICTIONS)

    def _table(self, path: Path) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_csv(self._directory / path.name)

    @cached_property
    def model(self) -> "nn.Module":
        """The network with the weights that were chosen, on the CPU, in evaluation mode. It takes prepared rows, as a
        minibatch has them; `surefoot predict` takes raw ones.

        Raises:
            UserError: its code can't be imported here.
        """
        from surefoot.serving.logged_network import network_with_weights

        with _random_as_it_was(), _importing_from(self._directory / "code"):
            return network_with_weights(self._network, self._directory / paths.MODEL.name)  # type: ignore[no-any-return]

    def _rows(self) -> list[tuple[str, str, str]]:
        from surefoot.evaluation.summary import format_number

        rows = [("", f"{len(self._test_rows)} test rows", "95 % interval")]
        for name, value in self.metrics.items():
            low_high = self.intervals.get(name)
            between = " to ".join(map(format_number, low_high)) if low_high else ""
            rows.append((name, format_number(value), between))
        return rows

    @property
    def _test_rows(self) -> list[str]:
        return (self._directory / paths.PREDICTIONS.name).read_text(encoding="utf-8").splitlines()[1:]

    def _lines(self) -> tuple[str, str]:
        """What the run is, and where its model is from."""
        run = terminal.one_line(self.name) if self.name else "a run that isn't in MLflow yet: `surefoot sync` brings it"
        return run, f"model of epoch {self.chosen_epoch} of {self.epochs}"

    def __repr__(self) -> str:
        run, model = self._lines()
        places = [f"MLflow: run {self.run_id}"] if self.run_id else []
        places += [f"        {self.page}"] if self.page else []
        return "\n".join([run, *terminal.table_lines(self._rows(), right=(1, 2)), model, *places])

    def _repr_html_(self) -> str:
        run, model = self._lines()
        head, *body = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._rows())
        table = (
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"
        )
        link = f' &middot; <a href="{escape(self.page)}">in MLflow</a>' if self.page else ""
        shown, *others = (_image(name, data) for name, data in self.plots.items())
        summary = f"<summary>{number_of(len(others), 'more plot')}</summary>"
        more = f"<details>{summary}{''.join(others)}</details>" if others else ""
        return f"<p><b>{escape(run)}</b><br>{escape(model)}{link}</p>{table}{shown}{more}"


def _image(name: str, data: bytes) -> str:
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


@contextmanager
def _importing_from(code: Path) -> Iterator[None]:
    """Import modules of the code that a run was trained with, whatever was imported from the project before, or is in
    its files by now.
    """
    tops = {path.stem for path in code.iterdir()} if code.is_dir() else set()
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in tops}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(code))
    try:
        yield
    finally:
        sys.path.remove(str(code))
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def _random_as_it_was() -> Iterator[None]:
    """First weights are drawn, and thrown away: the notebook's own random numbers go on as if they hadn't been."""
    import numpy as np
    import torch

    pythons, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
