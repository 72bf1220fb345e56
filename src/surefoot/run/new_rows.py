"""Rows that the model which training starts from hasn't seen (`train.rows`, `train.start_from`): told by the part files
that they come from.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from surefoot.base.errors import UserError
from surefoot.data.batch_index import BatchIndex
from surefoot.data.batch_store import Store
from surefoot.data.part_files import PartFile, rows_in, rows_of_parts
from surefoot.run.start_note import Seen, StartNote


def seen_parts(index: BatchIndex, before: Seen | None) -> Seen:
    """What a model has seen that is trained on these batches, and started from one that had seen what `before` says."""
    source = Path(index.preparation.source)
    parts = [[part.path, part.digest] for part in index.parts if Path(part.path).is_relative_to(source)]
    others = {part.digest for part in index.parts} | (before.digests() if before else set())
    return Seen(parts=parts, others=sorted(others - {digest for _, digest in parts}), split=index.preparation.split)


def is_new_part(known: Seen | None) -> Callable[[PartFile], bool]:
    """Whether a part is none of those that are known."""
    digests = known.digests() if known else set()
    return lambda part: part.digest not in digests


def select_rows(which: str, batches: Store, start: StartNote | None) -> Store:
    """The batches with the rows that are trained on: `which` is `train.rows`, `start` what is said of the start.

    Raises:
        UserError: rows that the start was trained on are among those of another split now; there is no new row, or it
        can't be known.
    """
    if start is None or start.weights is None:  # from fresh weights: every row is new
        return batches
    parts, source = batches.index.parts, batches.index.preparation.source
    if start.seen:
        _check_split(start.seen, seen_parts(batches.index, None), str(start.name))
    if which == "all":
        return batches
    if not parts:
        raise UserError(
            f"train.rows: new: {source} has no part files, so which rows are new can't be told; make it a directory of"
            " CSV or Parquet files"
        )
    if not start.seen:
        raise UserError(
            f"train.rows: new: which rows {start.name} has seen isn't known; start from a run, or set rows: all"
        )
    only = rows_of_parts(parts, "train", is_new_part(start.seen))
    chosen = replace(batches, only=only)
    if not only:
        raise UserError(
            f"train.rows: new: {start.name} has seen every part file of {source}; add one, or set rows: all"
        )
    if not chosen.rows_per_epoch:
        raise UserError(
            f"train.rows: new: there are {rows_in(only)} new training rows, less than batch.size, and batch.drop_last"
            " leaves none"
        )
    return chosen


def _check_split(before: Seen, now: Seen, name: str) -> None:
    """See whether rows that the start has seen are in the splits in which they were.

    Raises:
        UserError: they aren't, so that it would be tested on rows that it was trained on.
    """
    key = "train.start_from"
    known = [digest for _, digest in before.parts]
    shared = [number for number, (_, digest) in enumerate(now.parts) if digest in known]
    if not shared:
        return
    moved = f"so rows that {name} was trained on could be among the test rows now"
    was = ", ".join(
        f"{param} was {before.split[param]}"
        for param, value in now.split.items()
        if _differs(before.split.get(param, value), value)
    )
    if was:
        raise UserError(f"{key}: {was}, {moved}; put that back, or start from null")
    # Then a row's split follows from its own group, or moves on with time, as it should.
    if now.split["prepare.split"]["by"] in ("group", "time"):
        return
    for number in range(shared[-1] + 1):
        path, digest = now.parts[number]
        if number >= len(known) or known[number] != digest:
            new = digest not in known and path not in {path for path, _ in before.parts}
            other = (
                f"{path} is new, and its name sorts before {now.parts[shared[-1]][0]}"
                if new
                else f"{before.parts[number][0]} isn't there as it was"
            )
            mend = "rename it so that it sorts last" if new else "put it back"
            raise UserError(
                f"{key}: {other}, {moved}: a row's split depends on the rows before it (prepare.split.by)",
                f"{mend}, or start from null",
            )


def _differs(before: Any, now: Any) -> bool:
    """Whether a param is another one now; a key that an older Surefoot didn't know doesn't count."""
    if isinstance(before, dict) and isinstance(now, dict):
        return any(_differs(before.get(key, value), value) for key, value in now.items())
    return bool(before != now)
