"""The steps of `surefoot verify`, in the order in which they happen."""

import errno
import random
import re
import sys
from pathlib import Path

from surefoot.base import terminal
from surefoot.base.errors import CannotSay, UserError
from surefoot.commands.verify import trust
from surefoot.commands.verify.account import check_keys, read_account
from surefoot.commands.verify.made_again import some_epochs, whole_run
from surefoot.commands.verify.remake import Remake
from surefoot.commands.verify.surroundings import other_rounding, settle_environment
from surefoot.commands.verify.verdict import (
    CANNOT_SAY,
    EXIT_CODES,
    IDENTICAL,
    causes_to_tell,
    differing_origins,
    give_verdict,
    lines_of_rows,
    params_row,
    unexplained,
    what_is_identical,
)
from surefoot.reproduction import checkout
from surefoot.reproduction.scratch import Scratch
from surefoot.run.record import Account
from surefoot.run.recorded_run import Recorded, find_recorded
from surefoot.run.trajectory_store import open_trajectory_store
from surefoot.tracking.mlflow_client import Failure
from surefoot.tracking.patch_artifact import PATCH


def main(
    run: str | None, epochs: str | None, sample: int | None, anyway: bool, environment: bool, trusted: bool
) -> None:
    """Make a run again and compare: print a table and the verdict, and tag the run with it. The process ends with the
    verdict's exit code.

    Args:
        run: an MLflow run's id or name, or a DVC experiment's; None for the last run.
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
            verdict = _verify(scratch, find_recorded(run), epochs, sample, anyway, environment, trusted)
    except BrokenPipeError:
        raise
    except OSError as error:
        elsewhere = (
            ["TMPDIR names another directory for what is temporary"]
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            else []
        )
        raise UserError(f"{error.filename or 'a file'} can't be used: {error.strerror or error}", *elsewhere) from None
    sys.exit(EXIT_CODES[verdict])


def _verify(
    scratch: Scratch,
    recorded: Recorded,
    epochs: str | None,
    sample: int | None,
    anyway: bool,
    environment: bool,
    trusted: bool,
) -> str:
    """Make the run again, as far as it is asked for; say the verdict, and return it."""
    terminal.print_lines(f"verifying {recorded.title}")
    scope = f"epochs {epochs}" if epochs else f"a sample of {sample} epochs" if sample is not None else "run"
    try:
        account = read_account(recorded.account(), recorded.run.data.tags)
        if account.incomplete and not epochs and sample is None:
            last = len(account.epochs)
            raise CannotSay(f"it isn't complete: {account.incomplete}; `--epochs 1-{last}` makes those again")
        ranges = _ranges(epochs, sample, account)
        if ranges is not None:
            scope = f"epochs {', '.join(f'{first}-{last}' if last > first else f'{first}' for first, last in ranges)}"
        verdict, reasons = _make_again(Remake(scratch), recorded, account, ranges, anyway, environment, trusted)
    except CannotSay as reason:
        verdict, reasons = CANNOT_SAY, list(reason.args)
    terminal.print_lines(f"{verdict}: {reasons[0]}", *reasons[1:])
    _tag(recorded, verdict, scope, reasons)
    return verdict


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
    doubts += settle_environment(remake, recorded, account, build, trusted)
    if ranges is None and not doubts:  # with `ranges` the origin that comes of it says so, sooner
        doubts += other_rounding(remake, account.origin.numerics)
    if doubts and not anyway:
        more = (
            "; --environment builds its packages first"
            if any("another version" in doubt for doubt in doubts) and not build
            else ""
        )
        raise CannotSay(*doubts, f"--anyway makes it again and shows the differences{more}")
    params, other_params = params_row(account.params or recorded.run.data.params, remake.params)
    found = whole_run(remake, recorded, account) if ranges is None else some_epochs(remake, recorded, account, ranges)
    rows = [params, *found.rows]
    terminal.print_lines("", *lines_of_rows(rows), "")
    causes = differing_origins(account.origin.plain(), found.origin)
    verdict = give_verdict(rows, causes)
    check_keys(account, found.made, found.origin)
    if verdict == IDENTICAL:
        return verdict, what_is_identical(rows, list(causes.values()))
    reasons = [*doubts, *other_params, *causes_to_tell(causes, bool(other_params), found.symptoms), *found.symptoms]
    return CANNOT_SAY if doubts else verdict, reasons or unexplained(rows)


def _foreign(commit: str, patch: bytes) -> list[str]:
    """What of a run's code isn't in the history of this repository."""
    here = Path.cwd()
    found = [] if checkout.in_history(here, commit) else [f"its commit {commit}, which no branch or tag here holds"]
    if patch:
        changed = terminal.first_few(checkout.patched(here, patch)) or "what git can not read"
        found.append(f"its uncommitted changes, {PATCH} in MLflow, to {changed}")
    return found


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
    stored = open_trajectory_store(account.origin).keys_of_states()
    possible = [epoch for epoch in range(1, last + 1) if epoch == 1 or account.epochs[epoch - 2].key in stored]
    if len(possible) < last:
        terminal.print_lines(
            f"the state before an epoch is kept for {len(possible)} of {last} epochs (train.keep_states): drawing from"
            " those"
        )
    return [(epoch, epoch) for epoch in sorted(random.SystemRandom().sample(possible, min(sample, len(possible))))]


def _tag(recorded: Recorded, verdict: str, scope: str, reasons: list[str]) -> None:
    try:
        recorded.tag(verdict, scope, "\n".join(reasons))
    except Failure as error:
        terminal.warn(f"the verdict can't be written to MLflow: {error}")
