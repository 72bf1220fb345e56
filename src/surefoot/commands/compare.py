"""`surefoot compare`: runs side by side in the terminal, and their curves in one picture."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.base import paths, terminal, writing
from surefoot.base.documents import Malformed
from surefoot.base.errors import UserError
from surefoot.run import page
from surefoot.tracking import find_runs, intervals_artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from surefoot.evaluation.plots.runs_overlaid import MetricCurve

PANELS = ("train/loss", "validation/loss")  # first; then what the task measures on the validation rows
LAST_PANELS = ("lr", "gradient_norm")
WIDTH = 24  # of a cell


def main(runs: list[str], out: Path | None) -> None:
    """Show runs side by side.

    Raises:
        UserError: there is but one; and see `compare_runs`.
    """
    if len(runs) < 2:
        raise UserError(
            "compare takes two runs or more: surefoot compare RUN RUN; RUN is an MLflow run's id or name, or a DVC"
            " experiment's name"
        )
    terminal.print_lines(*compare_runs(runs, out))


def compare_runs(wanted: list[str], out: Path | None) -> list[str]:
    """The lines of a table of the runs: params that differ, metrics with intervals; and a picture of their curves,
    written to `out`.

    Raises:
        UserError: a run isn't there, or is meant twice; none has a metric yet; the picture can't be written.
    """
    with find_runs.reading_mlflow() as client:
        runs = [find_runs.find_run(client, name) for name in wanted]
        for number, run in enumerate(runs):
            if run.info.run_id in [other.info.run_id for other in runs[:number]]:
                raise UserError(
                    f"{wanted[number]!r} is a run that was named before: {run.info.run_name} ({run.info.run_id}); give"
                    " different ones"
                )
        names = {name for run in runs for name in run.data.metrics}
        if not names:
            raise UserError("none of these runs has a metric yet: wait until an epoch is trained")
        curves, ranges = [_curves(client, run) for run in runs], [_intervals(client, run) for run in runs]
    params = page.differing_params([run.data.params for run in runs])
    lines = [*_blocks(_rows(runs, params, curves, ranges), shutil.get_terminal_size((120, 24)).columns), ""]
    if any(curves):
        from surefoot.evaluation.plots.runs_overlaid import overlaid_plot

        path = out or paths.trajectory_store() / "compare.png"
        measured = sorted(name for name in names if name.startswith("validation/") and name not in PANELS)
        writing.write_bytes(
            path,
            overlaid_plot(list(zip(_labels(runs, params), curves, strict=True)), [*PANELS, *measured, *LAST_PANELS]),
        )
        lines.append(f"curves: {paths.from_here(path)}")
    else:
        lines.append("no run has a curve, so there is no picture")
    return lines


def _intervals(client: "MlflowClient", run: "Run") -> dict[str, float]:
    try:
        return intervals_artifact.recorded_intervals(client, run)
    except Malformed as error:
        raise UserError(
            f"{intervals_artifact.ARTIFACT} of the run {run.info.run_name} ({run.info.run_id}) in MLflow is damaged:"
            f" {error}"
        ) from None


def _curves(client: "MlflowClient", run: "Run") -> "dict[str, MetricCurve]":
    """The metrics that run over epochs, which count from 1."""
    wanted = [name for name in run.data.metrics if name in LAST_PANELS or name.startswith(("train/", "validation/"))]
    found = {
        name: [
            (point.step, point.value)
            for point in client.get_metric_history(run.info.run_id, name)
            if math.isfinite(point.value)
        ]
        for name in wanted
    }
    return {name: sorted(points) for name, points in found.items() if points}


def _rows(
    runs: "list[Run]", params: list[str], curves: "list[dict[str, MetricCurve]]", ranges: list[dict[str, float]]
) -> list[list[str]]:
    """A row for each thing said, a column for each run."""
    columns = [{"run": run.info.run_name or "", "id": run.info.run_id[:8], "status": run.info.status} for run in runs]
    for column, run, of_run, intervals in zip(columns, runs, curves, ranges, strict=True):
        column |= {name: run.data.params.get(name, "-") for name in params}
        column |= {
            f"test/{name}": text for name, text in page.metric_texts(run.data.metrics | intervals, "test/").items()
        }
        for name, points in of_run.items():
            if name.startswith("validation/"):
                pick = min if name.endswith(("loss", "mae", "rmse")) else max
                epoch, value = pick(points, key=lambda point: point[1])
                column[f"best {name}"] = f"{value:.4g} (epoch {epoch})"
        if of_run:
            column["epochs"] = str(max(points[-1][0] for points in of_run.values()))
    found = {name for column in columns for name in column}
    order = [
        "run",
        "id",
        "status",
        *params,
        "epochs",
        *(name for start in ("test/", "best ") for name in sorted(found) if name.startswith(start)),
    ]
    return [[name, *(column.get(name, "-") for column in columns)] for name in order if name in found]


def _blocks(rows: list[list[str]], width: int) -> list[str]:
    """The table as lines; where it is wider than the terminal, the runs are told in several blocks."""
    cut = [[terminal.one_line(cell, WIDTH) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        if blocks[-1] and widths[0] + sum(2 + widths[other] for other in [*blocks[-1], column]) > width:
            blocks.append([])
        blocks[-1].append(column)
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines)
        lines += ["  ".join(row[column].ljust(widths[column]) for column in (0, *block)).rstrip() for row in cut]
    return lines


def _labels(runs: "list[Run]", params: list[str]) -> list[str]:
    """What tells the runs apart: the params that differ, or their names; with the id's start where that
    isn't enough.
    """
    short = [
        (
            ", ".join(f"{name.removeprefix('train.')}={run.data.params.get(name, '-')}" for name in params)
            if len(params) <= 4
            else ""
        )
        for run in runs
    ]
    labels = [label or run.info.run_name or "" for label, run in zip(short, runs, strict=True)]
    return [
        label if labels.count(label) == 1 else f"{label} {run.info.run_id[:8]}".strip()
        for label, run in zip(labels, runs, strict=True)
    ]
