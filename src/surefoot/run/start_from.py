"""What training starts from where it isn't fresh weights: a model that is there already (`train.start_from`).

The stage start_from looks up what that is and writes it to `data/start_from`, which prepare and train depend on:

start.json             what is said of it, as `StartNote` has it
weights.safetensors    its weights; empty where there are none
preparation.json       how its inputs are prepared (`surefoot.data.kept_preparation`); null where that isn't known
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from surefoot.base import digests, paths, reading
from surefoot.base.errors import UserError
from surefoot.data import kept_preparation
from surefoot.data.batch_store import Store
from surefoot.data.part_files import RowRange, rows_in
from surefoot.params.sections import Params
from surefoot.run import new_rows
from surefoot.run.record import RunRecord
from surefoot.run.start_note import StartNote

if TYPE_CHECKING:
    from surefoot.run.trajectory_store import TrajectoryStore

KEY = "train.start_from"
PREVIOUS = "previous"
NOTE, WEIGHTS, PREPARATION = "start.json", "weights.safetensors", "preparation.json"
ARTIFACTS = "start"  # the directory in MLflow that has these of the run that was started from them
SEEN = "data/parts.json"  # beside it: which part files the run has seen itself


@dataclass(frozen=True)
class Start:
    """A start: `weights` as safetensors, None for fresh ones; what is said of it; and its preparation, where it is
    known.
    """

    note: StartNote
    weights: bytes | None
    preparation: kept_preparation.KeptPreparation | None = None

    def contents(self) -> dict[str, bytes]:
        """The files of `data/start_from`."""
        return {
            NOTE: digests.canonical_json(self.note.said()),
            WEIGHTS: self.weights or b"",
            PREPARATION: digests.canonical_json(self.preparation.plain() if self.preparation else None),
        }


def read_start(files: Mapping[str, Path]) -> Start | None:
    """A start from its files; None where one of them isn't there, or isn't what it was written as."""
    try:
        note = StartNote.model_validate_json(reading.read_file(files[NOTE]))
        weights = reading.read_weights(files[WEIGHTS]) if note.weights else None
        preparation = reading.read_file(files[PREPARATION], kept_preparation.BYTES)
        if weights is not None and digests.sha256(weights) != note.weights:
            return None
        return Start(
            note,
            weights,
            None
            if preparation.strip() == b"null"
            else kept_preparation.KeptPreparation.model_validate_json(preparation),
        )
    except (OSError, KeyError, ValidationError):
        return None


def start_files(directory: Path = paths.START_FROM) -> dict[str, Path]:
    """Where the files of a start lie in a directory."""
    return {name: directory / name for name in (NOTE, WEIGHTS, PREPARATION)}


def load_start(params: Params, store: "TrajectoryStore") -> Start | None:
    """The start of a training, as the stage start_from has found it; None if params.yaml names none.

    Raises:
        UserError: that stage hasn't run for this `train.start_from`, or what it left is damaged.
    """
    wanted = params.train.start_from
    if wanted is None:
        return None
    found = read_start(start_files())
    if found is None and (paths.START_FROM / NOTE).exists():  # damaged: the store has the weights, too
        try:
            note = StartNote.model_validate_json(reading.read_file(paths.START_FROM / NOTE))
            weights = store.start_weights(note.weights) if note.weights else None
        except (OSError, ValidationError):
            note, weights = StartNote(), None
        if weights is None:
            raise UserError(f"{KEY}: {paths.START_FROM} is damaged; `dvc checkout {paths.START_FROM}` brings it back")
        found = Start(note, weights)
    if found is None or found.note.wanted != wanted:
        raise UserError(f"{KEY}: what {wanted} is wasn't looked up yet: run `dvc repro batch` first")
    return found


def start_artifacts(run: RunRecord, store: "TrajectoryStore") -> dict[str, bytes]:
    """What an MLflow run has of the start of a run of the store, and for those that are to start from it."""
    said, found = run.start, {}
    if run.seen and run.seen.parts:
        found[SEEN] = digests.canonical_json(run.seen.plain())
    if said and said.weights:
        weights = store.start_weights(said.weights)
        found[f"{ARTIFACTS}/{NOTE}"] = digests.canonical_json(said.plain())
        found |= {f"{ARTIFACTS}/{WEIGHTS}": weights} if weights is not None else {}
        # What was kept is what the run's own model has.
        preparation = kept_preparation.parse_preparation(run.network) if said.keeps else None
        found |= {f"{ARTIFACTS}/{PREPARATION}": digests.canonical_json(preparation.plain())} if preparation else {}
    return found


def start_line(start: StartNote, batches: Store, only: tuple[RowRange, ...] | None) -> str:
    """A line for the terminal."""
    if start.weights is None:
        return f"{KEY}: {start.wanted}: there is no run before this one, so training starts from fresh weights"
    new = [part.path for part in batches.index.parts if start.seen and new_rows.is_new_part(start.seen)(part)]
    parts = f"; new: {', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}" if new else ""
    trained = "" if only is None else f"; training on {rows_in(only):,} new rows of {len(batches.train.targets):,}"
    return f"training starts from {start.name} (weights {start.weights[:12]}){parts}{trained}"
