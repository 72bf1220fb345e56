"""`surefoot store`: what lies in the trajectory store, what runs share, and freeing space."""

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import PurePosixPath

from surefoot.base import paths, terminal
from surefoot.base.errors import UserError
from surefoot.base.object_store import Unavailable, open_object_store
from surefoot.base.wording import number_of
from surefoot.run.record import RunRecord
from surefoot.run.sharing.shared_store import notes_of_others, unshared
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import find_runs, tag_names

SECONDS_OF_A_WRITE = 3600  # in which a file that is being written is touched


def main(prune: bool, forget: list[str] | None) -> None:
    """List, prune or forget what lies in the trajectory store."""
    store = TrajectoryStore(paths.trajectory_store())
    for run in forget or []:
        terminal.print_lines(f"forgotten: {forget_run(store, run)}")
    if prune:
        states, size = prune_states(store)
        terminal.print_lines(f"{states} states deleted, {size / 1e6:,.1f} MB freed")
    if not (prune or forget):
        url = paths.shared_store()
        there, lines = _shared(url, store) if url else (None, [])
        for notes, count in notes_of_others(store.path, url).items():
            lines.append(
                f"{paths.from_here(notes)} notes {number_of(count, 'file')} for another SUREFOOT_STORE, to be brought"
                " when that is set again; delete it if it isn't used any more"
            )
        terminal.print_lines(*terminal.table_lines(runs_table(store, there)), total_size(store), *lines)


def _shared(url: str, store: TrajectoryStore) -> tuple[set[str], list[str]]:
    """The keys of the states in the store that machines share; what it has of all their runs, and lacks of this
    machine's.
    """
    objects, lacking = open_object_store(url), unshared(store.path, url)
    lines = [f"{objects.url} lacks {lacking}, kept here; `surefoot sync` brings them"] if lacking else []
    try:
        sizes = objects.list()
    except Unavailable as error:
        terminal.warn(f"{objects.url} can't be read: {error}")
        return set(), lines
    keys = {PurePosixPath(name).stem for name in sizes if name.endswith(".safetensors")}
    return keys, [f"{len(keys)} states, {_megabytes(sum(sizes.values()))} in {objects.url}, for all machines", *lines]


def runs_table(store: TrajectoryStore, there: Collection[str] | None = None) -> list[list[str]]:
    """A row a run: id, name, epochs, states, their size, and what it shares with which run before it.

    `there`: the keys of the states that lie in a shared store, if there is one; each row says how many these are.
    """
    sizes, runs = store.state_sizes(), store.runs()
    rows = [["RUN", "EPOCHS", "STATES", *(["THERE"] if there is not None else []), "SIZE", "NAME", "SHARES"]]
    done = {identity: _epochs_done(store, run) for identity, run in runs.items()}
    before: list[str] = []
    for identity in sorted(runs, key=lambda identity: (runs[identity].description.name, done[identity])):
        run = runs[identity]
        keys = [key for key in run.epoch_keys if key in sizes]
        epochs = f"{done[identity]}/{run.epochs or len(run.epoch_keys)}"
        shared = max(((_common(runs[other], run, done[identity]), other) for other in before), default=(0, ""))
        shares = f"epochs 1-{shared[0]} with {shared[1][:8]}" if shared[0] else ""
        rows.append(
            [
                identity[:8],
                epochs,
                str(len(keys)),
                *([str(sum(key in there for key in run.epoch_keys))] if there is not None else []),
                _megabytes(sum(sizes[key] for key in keys)),
                run.description.name,
                shares,
            ]
        )
        before.append(identity)
    return rows


def total_size(store: TrajectoryStore) -> str:
    """The store's size in a line."""
    sizes = store.state_sizes()
    return (
        f"{len(sizes)} states, {_megabytes(sum(sizes.values()))} in {store.path}; free on that disk:"
        f" {_megabytes(store.free_bytes())}"
    )


def prune_states(store: TrajectoryStore) -> tuple[int, int]:
    """Delete every state that no run needs, and what killed writers left; returns how many states and bytes that freed.

    A finished run needs its best and its last state, an unfinished one the latest: it goes on from there. Records stay.
    """
    needed = {key for run in store.runs().values() for key in _needed(store, run)}
    sizes = store.state_sizes()
    dropped = [key for key in sizes if key not in needed]
    for key in dropped:
        store.drop_state(key)
    for leftover in store.path.glob("*/.*.partial"):
        with suppress(FileNotFoundError):  # it was whole just now
            # Of another machine's process, which may write here, too, the number says nothing.
            old = time.time() - leftover.stat().st_mtime > SECONDS_OF_A_WRITE
            if old and not _lives(int(leftover.suffixes[-2][1:])):
                leftover.unlink()
    return len(dropped), sum(sizes[key] for key in dropped)


def forget_run(store: TrajectoryStore, wanted: str) -> str:
    """Forget a run, by an id as `find_runs.find_run` takes it; its states go with the next pruning unless another run
    needs them. Returns its name.

    Raises:
        UserError: there is no such run, or more than one.
    """
    runs = store.runs()
    found = [identity for identity in runs if wanted and identity.startswith(wanted)] or _of_mlflow(wanted)
    if len(found) != 1 or found[0] not in runs:
        raise UserError(
            f"--forget {wanted}: {len(found) if len(found) > 1 else 'no'} runs of the store start so; `surefoot store`"
            " lists them"
        )
    store.run_path(found[0]).unlink()
    for kept in ("plots", "checkpoints"):  # for MLflow
        shutil.rmtree(store.path / kept / found[0], ignore_errors=True)
    return runs[found[0]].description.name


def _of_mlflow(wanted: str) -> list[str]:
    """The identity of the run that MLflow knows by this id."""
    if not find_runs.ID.fullmatch(wanted):
        return []
    try:
        with find_runs.reading_mlflow() as client:
            identity = find_runs.find_run(client, wanted).data.tags.get(tag_names.IDENTITY)
    except UserError as error:
        if str(error).startswith(("there is no run", "MLflow at ")):
            return []
        raise
    return [identity] if identity else []


def _epochs_done(store: TrajectoryStore, run: RunRecord) -> int:
    keys = run.epoch_keys
    return (
        len(keys)
        if run.last
        else next((n for n, key in enumerate(keys) if not store.record_path(key).is_file()), len(keys))
    )


def _common(one: RunRecord, other: RunRecord, done: int) -> int:
    pairs = zip(one.epoch_keys[:done], other.epoch_keys[:done], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one.epoch_keys), done))


def _needed(store: TrajectoryStore, run: RunRecord) -> list[str]:
    if run.last:
        return sorted(run.needed)
    sizes = store.state_sizes()
    latest = next((key for key in reversed(run.epoch_keys) if key in sizes), None)
    # States within the epoch that was cut off follow the latest whole one, or the start.
    records = (store.record(key) for key in sizes if key not in run.epoch_keys)
    within = [record.key for record in records if record and not record.metrics]
    return ([latest] if latest else []) + within


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
