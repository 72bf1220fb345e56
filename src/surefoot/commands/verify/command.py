"""The steps of `surefoot verify`, in the order in which they happen."""

import errno
import json
import os
import platform
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from surefoot.base import digests, paths, reading, terminal, writing
from surefoot.base.errors import CannotSay, UserError
from surefoot.commands import A_RUN, option
from surefoot.commands.verify import trust, verdict
from surefoot.commands.verify import verdict as verdict_module
from surefoot.commands.verify.account import check_keys, read_account
from surefoot.commands.verify.remake import Remake
from surefoot.commands.verify.verdict import (
    CANNOT_SAY,
    EXIT_CODES,
    IDENTICAL,
    Row,
    params_row,
    table,
    told,
    unexplained,
    what_is_identical,
)
from surefoot.data import kept_preparation
from surefoot.reproduction import checkout, packages
from surefoot.reproduction.provenance import Machine
from surefoot.reproduction.scratch import Scratch
from surefoot.run import publish, record, start_from
from surefoot.run.record import Account, HowComputed
from surefoot.run.recorded_run import Recorded, find_recorded
from surefoot.run.start_note import StartNote
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.tracking import find_runs, tracker
from surefoot.tracking.mlflow_client import Failure

REQUIREMENTS = "environment/requirements.txt"


@dataclass
class Findings:
    """What came of making a run again."""

    rows: list[Row]  # the table
    origin: dict[str, Any]  # what determined it, this time
    symptoms: list[str] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)  # the records of its epochs


@option("run", nargs="?", metavar="RUN", help=f"{A_RUN} (default: this workspace's last run)")
@option("--epochs", metavar="A-B", help="look at these epochs alone, from the stored state before A")
@option("--sample", type=int, metavar="N", help="look at N epochs drawn at random, in parallel processes")
@option(
    "--anyway",
    action="store_true",
    help="go on where this machine or its packages differ, and show how far the results do",
)
@option(
    "--environment",
    action="store_true",
    help="where the packages differ, build the recorded ones in a temporary environment; takes minutes",
)
@option(
    trust.OPTION,
    dest="trusted",
    action="store_true",
    help=(
        "run code, too, that MLflow has and this repository's history doesn't: a run's uncommitted changes, a commit"
        " of no branch"
    ),
)
def main(
    run: str | None, epochs: str | None, sample: int | None, anyway: bool, environment: bool, trusted: bool
) -> None:
    """Make a run again and compare bits."""
    sys.exit(verify(run, epochs=epochs, sample=sample, anyway=anyway, environment=environment, trusted=trusted))


def verify(
    wanted: str | None,
    *,
    epochs: str | None = None,
    sample: int | None = None,
    anyway: bool = False,
    environment: bool = False,
    trusted: bool = False,
) -> int:
    """Make a run again and compare; prints a table and the verdict, and tags the run with it. Returns the exit code.

    Args:
        wanted: an MLflow run's id or name, or a DVC experiment's; None for the last run.
        epochs: `A-B`: only these, from the stored state before A.
        sample: only so many epochs, drawn at random.
        anyway: go on where the machine or packages differ, and compare what comes of it.
        environment: build the recorded environment if it isn't this one.
        trusted: run code, too, that MLflow has and this repository's history doesn't.

    Raises:
        UserError: there is no such run; wrong options; the temporary directory is full.
    """
    if epochs and sample is not None:
        raise UserError("--epochs and --sample: give one of them")
    try:
        with Scratch() as scratch:
            recorded = find_recorded(wanted)
            terminal.print_lines(f"verifying {recorded.title}")
            scope = f"epochs {epochs}" if epochs else f"a sample of {sample} epochs" if sample is not None else "run"
            try:
                account = read_account(recorded.account(), recorded.run.data.tags)
                if account.incomplete and not epochs and sample is None:
                    last = len(account.epochs)
                    raise CannotSay(f"it isn't complete: {account.incomplete}; `--epochs 1-{last}` makes those again")
                ranges = _ranges(epochs, sample, account)
                scope = (
                    scope
                    if ranges is None
                    else "epochs "
                    + ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)
                )
                verdict, reasons = _make_again(Remake(scratch), recorded, account, ranges, anyway, environment, trusted)
            except CannotSay as reason:
                verdict, reasons = CANNOT_SAY, list(reason.args)
            terminal.print_lines(f"{verdict}: {reasons[0]}", *reasons[1:])
            _tag(recorded, verdict, scope, reasons)
            return EXIT_CODES[verdict]
    except BrokenPipeError:
        raise
    except OSError as error:
        elsewhere = (
            ["TMPDIR names another directory for what is temporary"]
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            else []
        )
        raise UserError(f"{error.filename or 'a file'} can't be used: {error.strerror or error}", *elsewhere) from None


def _make_again(
    remake: Remake,
    recorded: Recorded,
    account: Account,
    ranges: list[tuple[int, int]] | None,
    anyway: bool,
    build: bool,
    trusted: bool,
) -> tuple[str, list[str]]:
    """Print the table; returns the verdict and the reasons for it."""
    commit, patch = recorded.commit, recorded.patch
    trust.allow(_foreign(commit, patch), trusted)
    remake.check_out(commit, patch, recorded.untracked_data)
    doubts = (
        [f"files that weren't in Git were too large to be recorded: {recorded.left_out}"] if recorded.left_out else []
    )
    doubts += _settle_environment(remake, recorded, account, build, trusted)
    if ranges is None and not doubts:  # with `ranges` the origin that comes of it says so, sooner
        doubts += _other_rounding(remake, account.origin.numerics)
    if doubts and not anyway:
        more = (
            "; --environment builds its packages first"
            if any("another version" in doubt for doubt in doubts) and not build
            else ""
        )
        raise CannotSay(*doubts, f"--anyway makes it again and shows the differences{more}")
    params, other_params = params_row(account.params or recorded.run.data.params, remake.params)
    found = _whole(remake, recorded, account) if ranges is None else _parts(remake, recorded, account, ranges)
    rows = [params, *found.rows]
    terminal.print_lines("", *table(rows), "")
    causes = verdict_module.causes(account.origin.plain(), found.origin)
    verdict = verdict_module.verdict(rows, causes)
    check_keys(account, found.made, found.origin)
    if verdict == IDENTICAL:
        return verdict, what_is_identical(rows, list(causes.values()))
    reasons = [*doubts, *other_params, *told(causes, bool(other_params), found.symptoms), *found.symptoms]
    return CANNOT_SAY if doubts else verdict, reasons or unexplained(rows)


def _foreign(commit: str, patch: bytes) -> list[str]:
    """What of a run's code isn't in the history of this repository."""
    here = Path.cwd()
    found = [] if checkout.in_history(here, commit) else [f"its commit {commit}, which no branch or tag here holds"]
    changed = checkout.patched(here, patch) if patch else []
    return found + (
        [
            f"its uncommitted changes, {tracker.PATCH} in MLflow, to"
            f" {terminal.first_few(changed) or 'what git can not read'}"
        ]
        if patch
        else []
    )


def _ranges(epochs: str | None, sample: int | None, account: Account) -> list[tuple[int, int]] | None:
    """The epochs to look at, as (first, last); None for the whole run."""
    last = len(account.epochs)
    if epochs:
        one, _, other = epochs.partition("-")
        if not (
            re.fullmatch("[0-9]{1,18}", one)
            and re.fullmatch("[0-9]{1,18}", other or one)
            and 1 <= int(one) <= int(other or one) <= last
        ):
            raise UserError(f"--epochs {epochs}: must be A-B, or A, from 1 to {last}")
        return [(int(one), int(other or one))]
    if sample is None:
        return None
    if sample < 1:
        raise UserError(f"--sample {sample}: must be at least 1")
    stored = TrajectoryStore(paths.trajectory_store()).state_sizes()
    possible = [epoch for epoch in range(1, last + 1) if epoch == 1 or account.epochs[epoch - 2].key in stored]
    if len(possible) < last:
        terminal.print_lines(
            f"the state before an epoch is kept for {len(possible)} of {last} epochs (train.keep_states): drawing from"
            " those"
        )
    return [(epoch, epoch) for epoch in sorted(random.SystemRandom().sample(possible, min(sample, len(possible))))]


def _settle_environment(remake: Remake, recorded: Recorded, account: Account, build: bool, trusted: bool) -> list[str]:
    """Choose the environment to run in; returns what speaks against getting the same bits there."""
    wanted = (recorded.artifact(REQUIREMENTS) or b"").decode(errors="replace")
    python = (recorded.document(Machine, "environment/machine.json") or Machine()).python
    pinned, others_than_pins = packages.pins(wanted)
    if build and others_than_pins:
        raise CannotSay(
            f"{REQUIREMENTS} in MLflow has lines that aren't name==version, which are never handed to pip:"
            f" {terminal.first_few(others_than_pins)}"
        )

    def others(environment: Path, now: str | None) -> list[str]:
        return packages.other_python(python, now) + packages.other_packages(
            wanted, packages.installed_in(environment), account.origin.versions
        )

    environment = Path(sys.prefix)
    doubts = others(environment, platform.python_version())
    if build and not wanted:
        raise CannotSay("its environment isn't recorded, so it can't be built again")
    if build and doubts:
        unknown = sorted(pinned.keys() - packages.pins(packages.installed_in(Path(sys.prefix)))[0].keys())
        trust.allow(
            (
                [
                    f"packages that aren't installed here, but named in {REQUIREMENTS} in MLflow:"
                    f" {terminal.first_few(unknown)}"
                ]
                if unknown
                else []
            ),
            trusted,
        )
        environment = packages.build_environment(remake.scratch, wanted, python or platform.python_version())
        doubts = others(environment, python)
    remake.use_environment(environment)
    odd = (
        [f"{REQUIREMENTS} in MLflow has lines that aren't name==version: {terminal.first_few(others_than_pins)}"]
        if others_than_pins
        else []
    )
    return odd + [f"another version of {package}" for package in doubts]


def _other_rounding(remake: Remake, numerics: HowComputed) -> list[str]:
    """Whether this machine rounds otherwise than the one that made the run, before anything is trained."""
    profile, threads = (remake.params.get(key, default) for key, default in (("numerics", "portable"), ("threads", 1)))
    if (profile, threads) != (numerics.profile, numerics.threads):
        return []  # other params: no wonder
    out = remake.scratch.path / "fingerprint"
    # Under the profile and threads of the run's own params.yaml.
    with out.open("w") as file:
        if remake.scratch.finish([remake.python("-m", "surefoot", "fingerprint", out=file)]):
            raise CannotSay("the numerics fingerprint can't be computed at its commit; what went wrong is above")
    now = out.read_text().strip()
    recorded = numerics.fingerprint
    return (
        []
        if now == recorded
        else [
            f"another numerics fingerprint (recorded {recorded[:12]}, now {now[:12]}): this machine rounds differently"
        ]
    )


def _whole(remake: Remake, recorded: Recorded, account: Account) -> Findings:
    """All stages, from the raw data to the test metrics."""
    store = TrajectoryStore(remake.scratch.path / "store")
    _bring_start(remake, store, recorded, account)
    remake.reproduce("evaluate", store=store.path)
    made = next((record.account(run, store) for run in store.runs().values() if run.last), None)
    if made is None:
        raise CannotSay("the stages ran again, but left no record of it")
    if made.incomplete:
        raise CannotSay(
            f"made again, it came to no end: {made.incomplete}; `--epochs 1-{len(account.epochs)}` knows no such limit"
        )
    metrics = json.loads((remake.path / paths.METRICS).read_text())["test"]
    ranges = remake.path / paths.INTERVALS  # which an older Surefoot doesn't make
    intervals = find_runs.interval_ends(json.loads(ranges.read_text())["test"]) if ranges.is_file() else {}
    data, symptoms = verdict.data_row(account.data.plain(), made.data.plain())
    said, again = ([epoch.plain() for epoch in epochs] for epochs in (account.epochs, made.epochs))
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
        *verdict.interval_rows(recorded.intervals, intervals),
    ]
    if first:
        symptoms.append(_where(recorded, said, store, again, first))
    return Findings(rows, made.origin.plain(), [*symptoms, *([other_curve] if other_curve else [])], again)


def _parts(remake: Remake, recorded: Recorded, account: Account, ranges: list[tuple[int, int]]) -> Findings:
    """Some epochs, each range of them from the stored state before it, in parallel processes."""
    _bring_start(remake, TrajectoryStore(remake.path / ".surefoot"), recorded, account)
    _bring_data(remake, account)
    tasks = [_seed(remake.scratch.path / f"epochs-{first}-{last}", account, first, last) for first, last in ranges]
    _retrain(remake, tasks, account.origin.numerics.threads)
    shown = recorded.curves()
    found = Findings([], {})
    recorded_epochs = [epoch.plain() for epoch in account.epochs]
    for first, last, path in sorted(tasks):
        store = TrajectoryStore(path)
        said = recorded_epochs[first - 1 : last]
        made = [record for record in (store.record(epoch["key"]) for epoch in said) if record]
        found.origin = json.loads((path / "origin.json").read_text())
        found.made += made
        row, differs = verdict.epochs_row(recorded_epochs, made, first, last)
        curves, other_curve = verdict.curves_row(said, shown[first - 1 : last])
        found.rows += [row] if curves.same else [row, curves]
        found.symptoms += [_where(recorded, recorded_epochs, store, made, differs)] if differs and made else []
        found.symptoms += [other_curve] if other_curve else []
    return found


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
        preparation = kept_preparation.Kept.model_validate_json(given) if given else None
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
    # A commit of before the rooms has it at the top.
    old = (remake.path / "src/surefoot/retrain.py").exists()
    module = "surefoot.retrain" if old else "surefoot.commands.retrain"
    if remake.scratch.finish([remake.python("-m", module, *some) for some in arguments]):
        raise CannotSay("these epochs can't be trained again at its commit; what went wrong is above")


def _bring_data(remake: Remake, account: Account) -> None:
    """The batches: this workspace's, if they are the recorded ones, or else made again."""
    try:
        index = json.loads((paths.BATCHES / "index.json").read_text())
        same = index["digest"] == account.data.digest and all(
            digests.sha256_file(paths.BATCHES / split / f"{name}.npy") == digest
            for split, arrays in (("train", account.data.train), ("validation", account.data.validation))
            for name, digest in (("inputs", arrays.inputs), ("targets", arrays.targets))
        )
    except (OSError, ValueError, KeyError):
        same = False
    if same:
        (remake.path / paths.BATCHES).symlink_to(paths.BATCHES.resolve())
        return
    remake.reproduce("batch", store=remake.scratch.path / "store")
    index = json.loads((remake.path / paths.BATCHES / "index.json").read_text())
    if index["digest"] != account.data.digest:
        raise CannotSay(
            "the batches that come of its data are others than were recorded; verify the whole run to see where"
        )


def _seed(path: Path, account: Account, first: int, last: int) -> tuple[int, int, Path]:
    """A store for some epochs, with the state before them."""
    store = TrajectoryStore(path)
    path.mkdir()
    if first > 1:
        ours, before = TrajectoryStore(paths.trajectory_store()), account.epochs[first - 2]
        record = ours.record(before.key)
        state = ours.state(record) if record else None
        if not record or state is None:
            raise CannotSay(
                f"the state before epoch {first} isn't stored here; `surefoot verify` without --epochs trains from the"
                " start"
            )
        if record["state"] != before.state:
            raise CannotSay(f"the stored state before epoch {first} isn't the one that MLflow has recorded")
        store.write(record, state)
        if account.origin.schedule.follows:  # a metric of each epoch before
            for said in account.epochs[: first - 2]:
                store.write_record(said.plain())
    return first, last, path


def _where(
    recorded: Recorded, said: list[dict[str, Any]], store: TrajectoryStore, made: list[dict[str, Any]], first: int
) -> str:
    """The first epoch that differs, and the first tensor in it, as far as both states are kept."""
    from surefoot.run.chain import network_of

    ours = TrajectoryStore(paths.trajectory_store())
    keys = {record["epoch"]: record["key"] for record in made}
    for epoch in range(first, len(said) + 1):
        there = store.record(keys[epoch]) if epoch in keys else None
        again = store.state(there) if there else None
        record = ours.record(said[epoch - 1]["key"])
        before = ours.state(record) if record and record["state"] == said[epoch - 1]["state"] else None
        if before is None:  # MLflow may have a checkpoint: the network without the optimizer
            before = recorded.artifact(publish.checkpoint(epoch), reading.LARGEST_WEIGHTS)
            again = network_of(again) if again is not None else None
        tensor = verdict.first_tensor(before, again) if before is not None and again is not None else None
        if tensor:
            return (
                f"epoch {first} is the first that differs"
                + (f"; of those kept, epoch {epoch}" if epoch > first else "")
                + f": {tensor}"
            )
    one: dict[str, float] = said[first - 1]["metrics"]
    other: dict[str, float] = next((record["metrics"] for record in made if record["epoch"] == first), {})
    metrics = ", ".join(
        f"{name} {one[name]:.6g}, now {other[name]:.6g}" for name in one if name in other and one[name] != other[name]
    )
    return f"epoch {first} is the first that differs; its states aren't kept, so no tensor can be named" + (
        f" ({metrics})" if metrics else ""
    )


def _tag(recorded: Recorded, verdict: str, scope: str, reasons: list[str]) -> None:
    try:
        recorded.tag(verdict, scope, "\n".join(reasons))
    except Failure as error:
        terminal.warn(f"the verdict can't be written to MLflow: {error}")
