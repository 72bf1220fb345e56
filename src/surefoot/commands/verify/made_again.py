"""A run made again, the whole or some epochs of it, and what came of it beside what was recorded."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from surefoot.base import digests, paths, reading, writing
from surefoot.base.documents import Digest, Document, Kind, Malformed, parse_document
from surefoot.base.errors import CannotSay
from surefoot.commands.verify import verdict
from surefoot.commands.verify.remake import Remake
from surefoot.commands.verify.verdict import Row
from surefoot.data import kept_preparation
from surefoot.reproduction import checkout
from surefoot.run import start_from
from surefoot.run.record import Account, Epoch, make_account
from surefoot.run.recorded_run import Recorded
from surefoot.run.start_note import StartNote
from surefoot.run.trajectory_store import TrajectoryStore, open_trajectory_store
from surefoot.tracking.checkpoint_artifacts import checkpoint_path
from surefoot.tracking.intervals_artifact import Intervals


class MetricsFile(Document):
    """`reports/metrics.json`."""

    test: dict[str, float]


class IndexDigest(Document):
    """`data/batches/index.json`, as far as it is looked into."""

    digest: Digest


@dataclass
class Findings:
    """What came of making a run again."""

    rows: list[Row]  # the table
    origin: dict[str, Any]  # what determined it, this time
    symptoms: list[str] = field(default_factory=list)
    made: list[Epoch] = field(default_factory=list)  # the records of its epochs


def whole_run(remake: Remake, recorded: Recorded, account: Account) -> Findings:
    """All stages, from the raw data to the test metrics."""
    store = TrajectoryStore(remake.scratch.path / "store")
    _bring_start(remake, store, recorded, account)
    remake.reproduce("evaluate", store=store.path)
    made = next((make_account(run, store) for run in store.runs().values() if run.last), None)
    if made is None:
        raise CannotSay("the stages ran again, but left no record of it")
    if made.incomplete:
        raise CannotSay(
            f"made again, it came to no end: {made.incomplete}; `--epochs 1-{len(account.epochs)}` knows no such limit"
        )
    metrics = _read_made(MetricsFile, remake, paths.METRICS).test
    # An older Surefoot makes no intervals.
    ranges = _read_made(Intervals, remake, paths.INTERVALS).ends() if (remake.path / paths.INTERVALS).is_file() else {}
    data, symptoms = verdict.data_row(account.data.plain(), made.data.plain())
    said, again = account.epochs, made.epochs
    epochs, first = verdict.epochs_row(said, again, 1, max(len(said), len(again)))
    curves, other_curve = verdict.curves_row(said, recorded.curves())
    published = recorded.artifact(f"checkpoints/{account.select}.safetensors", reading.LARGEST_WEIGHTS)
    rows = [
        data,
        epochs,
        curves,
        verdict.model_row("model", account.model, made.model),
        verdict.model_row("model in MLflow", digests.sha256(published) if published else None, made.model),
        *verdict.metric_rows(recorded.results, {f"test/{name}": value for name, value in metrics.items()}),
        *verdict.interval_rows(recorded.intervals, ranges),
    ]
    if first:
        symptoms.append(_first_difference(recorded, account, store, again, first))
    return Findings(rows, made.origin.plain(), [*symptoms, *([other_curve] if other_curve else [])], again)


def some_epochs(remake: Remake, recorded: Recorded, account: Account, ranges: list[tuple[int, int]]) -> Findings:
    """Some epochs, each range of them from the stored state before it, in parallel processes."""
    _bring_start(remake, TrajectoryStore(remake.path / ".surefoot"), recorded, account)
    _bring_data(remake, account)
    tasks = [_seed(remake.scratch.path / f"epochs-{first}-{last}", account, first, last) for first, last in ranges]
    _retrain(remake, tasks, account.origin.numerics.threads)
    shown = recorded.curves()
    found = Findings([], {})
    for first, last, path in sorted(tasks):
        store = TrajectoryStore(path)
        said = account.epochs[first - 1 : last]
        made = [record for record in (store.record(epoch.key) for epoch in said) if record]
        found.origin = json.loads((path / "origin.json").read_text())
        found.made += made
        row, differs = verdict.epochs_row(account.epochs, made, first, last)
        curves, other_curve = verdict.curves_row(said, shown[first - 1 : last])
        found.rows += [row] if curves.same else [row, curves]
        found.symptoms += [_first_difference(recorded, account, store, made, differs)] if differs and made else []
        found.symptoms += [other_curve] if other_curve else []
    return found


def _read_made(kind: type[Kind], remake: Remake, path: Path) -> Kind:
    """A document that the run's own code has left.

    Raises:
        CannotSay: it isn't such a document.
    """
    try:
        return parse_document(kind, reading.read_file(remake.path / path))
    except (OSError, Malformed) as error:
        raise CannotSay(f"{path}, which its code has made again, can't be read: {error}") from None


def _bring_start(remake: Remake, store: TrajectoryStore, recorded: Recorded, account: Account) -> None:
    """The model that it started from (`train.start_from`), where its stages look for it: the runs and files of this
    workspace aren't there.
    """
    noted = account.start
    if not noted.wanted:
        return
    weights = (
        recorded.artifact(f"{start_from.ARTIFACTS}/{start_from.WEIGHTS}", reading.LARGEST_WEIGHTS)
        if noted.weights
        else None
    )
    if noted.weights and (weights is None or digests.sha256(weights) != noted.weights):
        what = "isn't in MLflow" if weights is None else "is damaged in MLflow"
        raise CannotSay(f"the model that it started from, {start_from.ARTIFACTS}/{start_from.WEIGHTS}, {what}")
    try:
        said = recorded.artifact(f"{start_from.ARTIFACTS}/{start_from.NOTE}")
        note = StartNote.model_validate_json(said) if said else noted
        note = note.model_copy(update={"fixed": True, "keeps": None})
        given = (
            recorded.artifact(f"{start_from.ARTIFACTS}/{start_from.PREPARATION}", kept_preparation.BYTES)
            if noted.keeps
            else None
        )
        preparation = kept_preparation.KeptPreparation.model_validate_json(given) if given else None
    except ValidationError:
        raise CannotSay(
            f"what MLflow has of the model that it started from, {start_from.ARTIFACTS}/, is damaged"
        ) from None
    if noted.keeps and not preparation:
        raise CannotSay(
            "how the inputs of the model that it started from were prepared,"
            f" {start_from.ARTIFACTS}/{start_from.PREPARATION}, isn't in MLflow"
        )
    if noted.keeps is None:  # a run of an older Surefoot, which looks for it in the store
        store.note_start(str(noted.key), note.said())
        if weights is not None:
            store.keep_start(str(noted.weights), weights)
        return
    with writing.new_directory(remake.path / paths.START_FROM) as out:
        for name, data in start_from.Start(note, weights, preparation).contents().items():
            writing.write_bytes(out / name, data)


def _retrain(remake: Remake, tasks: list[tuple[int, int, Path]], threads: int) -> None:
    """Train the epochs of each task, as many at once as there are processors for."""
    processes = max(
        1, len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) // threads
    )
    # The longest first, one after another to each process.
    tasks = sorted(tasks, key=lambda task: task[0] - task[1])
    shares = [share for share in (tasks[number::processes] for number in range(processes)) if share]
    arguments = [[text for first, last, store in share for text in (f"{first}-{last}", str(store))] for share in shares]
    module = checkout.command_module(remake.path, "retrain")
    if remake.scratch.finish([remake.python("-m", module, *some) for some in arguments]):
        raise CannotSay("these epochs can't be trained again at its commit; what went wrong is above")


def _bring_data(remake: Remake, account: Account) -> None:
    """The batches: this workspace's, if they are the recorded ones, or else made again."""
    try:
        here = parse_document(IndexDigest, reading.read_file(paths.BATCHES / "index.json"))
        same = here.digest == account.data.digest and all(
            digests.sha256_file(paths.BATCHES / split / f"{name}.npy") == digest
            for split, arrays in (("train", account.data.train), ("validation", account.data.validation))
            for name, digest in (("inputs", arrays.inputs), ("targets", arrays.targets))
        )
    except (OSError, Malformed):
        same = False
    if same:
        (remake.path / paths.BATCHES).symlink_to(paths.BATCHES.resolve())
        return
    remake.reproduce("batch", store=remake.scratch.path / "store")
    if _read_made(IndexDigest, remake, paths.BATCHES / "index.json").digest != account.data.digest:
        raise CannotSay(
            "the batches that come of its data are others than were recorded; verify the whole run to see where"
        )


def _seed(path: Path, account: Account, first: int, last: int) -> tuple[int, int, Path]:
    """A store for some epochs, with the state before them."""
    store = TrajectoryStore(path)
    path.mkdir()
    if first > 1:
        ours, before = open_trajectory_store(account.origin), account.epochs[first - 2]
        record = ours.record(before.key)
        state = ours.state(record) if record else None
        if not record or state is None:
            raise CannotSay(
                f"the state before epoch {first} isn't stored here; `surefoot verify` without --epochs trains from the"
                " start"
            )
        if record.state != before.state:
            raise CannotSay(f"the stored state before epoch {first} isn't the one that MLflow has recorded")
        store.write(record, state)
        if account.origin.schedule.follows:  # a metric of each epoch before
            for said in account.epochs[: first - 2]:
                store.write_record(said)
    return first, last, path


def _first_difference(
    recorded: Recorded, account: Account, store: TrajectoryStore, made: Sequence[Epoch], first: int
) -> str:
    """The first epoch that differs, and the first tensor in it, as far as both states are kept."""
    from surefoot.training.network import network_of

    ours, said = open_trajectory_store(account.origin), account.epochs
    keys = {record.epoch: record.key for record in made}
    for epoch in range(first, len(said) + 1):
        there = store.record(keys[epoch]) if epoch in keys else None
        again = store.state(there) if there else None
        record = ours.record(said[epoch - 1].key)
        before = ours.state(record) if record and record.state == said[epoch - 1].state else None
        if before is None:  # MLflow may have a checkpoint: the network without the optimizer
            before = recorded.artifact(checkpoint_path(epoch), reading.LARGEST_WEIGHTS)
            again = network_of(again) if again is not None else None
        tensor = verdict.first_tensor(before, again) if before is not None and again is not None else None
        if tensor:
            return (
                f"epoch {first} is the first that differs"
                + (f"; of those kept, epoch {epoch}" if epoch > first else "")
                + f": {tensor}"
            )
    one = said[first - 1].metrics
    other: dict[str, float] = next((record.metrics for record in made if record.epoch == first), {})
    metrics = ", ".join(
        f"{name} {one[name]:.6g}, now {other[name]:.6g}" for name in one if name in other and one[name] != other[name]
    )
    return f"epoch {first} is the first that differs; its states aren't kept, so no tensor can be named" + (
        f" ({metrics})" if metrics else ""
    )
