"""`surefoot predict`: its options, and where it may write."""

from contextlib import ExitStack, closing
from pathlib import Path

from surefoot.base import paths, terminal
from surefoot.base.errors import UserError
from surefoot.base.wording import number_of
from surefoot.commands.predict.predicted_rows import predicted_rows
from surefoot.commands.predict.which_model import model_in_mlflow, workspace_model
from surefoot.commands.predict.write_rows import write_rows
from surefoot.data.readers.open_source import open_rows
from surefoot.params.params_yaml import load_params
from surefoot.run.pinned_params import pin_by

ENDINGS = (".csv", ".parquet", ".pq")


def main(file: str, out: str | None, model: str | None, run: str | None) -> None:
    """Write predictions beside the rows of a file."""
    write_predictions(Path(file), Path(out) if out else None, model, run)


def write_predictions(source: Path, out: Path | None, model: str | None = None, run: str | None = None) -> None:
    """Write the rows of a file, each with its prediction, to another or, as CSV, to standard output; all of them, or
    nothing.

    Args:
        source: a file or directory of any format that prepare reads, without a target, or with one.
        out: a CSV or Parquet file, by its ending; None: standard output.
        model: a safetensors file for the network in params.yaml; or `models:/NAME@ALIAS` or the like in MLflow.
        run: the id or name of a run in MLflow, whose model it shall be. Neither: models/model.safetensors.

    Raises:
        UserError: there is no such model; the rows can't be read, or don't fit the model, naming row and column; `out`
        is there already.
    """
    if model and run:
        raise UserError("--model and --run: give one of them")
    _check_out(source, out)
    params = load_params(paths.PARAMS)
    opened = open_rows(params.prepare, source)
    with ExitStack() as stack:
        # A thread reads ahead: it must have ended when Python does.
        stack.enter_context(closing(opened.batches))  # type: ignore[type-var]
        pin_by(params.model_copy(update={"device": "cpu"}))  # whatever trains
        loaded = (
            model_in_mlflow(stack, model, run)
            if run or (model and ":/" in model)
            else workspace_model(params, Path(model) if model else None)
        )
        rows = write_rows(stack, predicted_rows(loaded, opened, source, params.prepare), out)
    if out:
        terminal.print_lines(f"{out}: {number_of(rows, 'row')} with the predictions of {loaded.name}")


def _check_out(source: Path, out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {out}: its ending must be one of {', '.join(ENDINGS)}: it says what is written")
    if out.exists():
        raise UserError(f"--out {out}: is there already; remove it, or give another name")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no directory {out.parent}")
    if out.resolve().is_relative_to(paths.RAW.resolve()) or (
        source.is_dir() and out.resolve().is_relative_to(source.resolve())
    ):
        raise UserError(
            f"--out {out}: would lie among the raw data, and the next run would take it for rows; write it elsewhere"
        )
