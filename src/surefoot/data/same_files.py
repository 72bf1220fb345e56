"""Whether sources are the same files: by name, by a link, or by their bytes."""

import filecmp
from itertools import combinations
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.data.readers.raw_files import is_beside
from surefoot.params.prepare_section import PrepareParams


def refuse_same(prepare: PrepareParams) -> None:
    """Refuse a separate source that is another source: by name, by another path or a link, or by its bytes.

    Raises:
        UserError: naming both.
    """
    for one, other in combinations(prepare.sources, 2):
        if prepare.arrays.of(one.split) != prepare.arrays.of(other.split):
            continue
        shared = one.source if one.source == other.source else _shared_file(Path(one.source), Path(other.source))
        if shared is not None:
            why = (
                "then the test says nothing of rows that are new, as training and the choice of its epoch have seen"
                " them"
                if other.split == "test"
                else "then the epoch is chosen by rows that are trained on"
            )
            what = "is the same" if Path(shared) == Path(other.source) else f"has the same rows, in {shared},"
            raise UserError(
                f"{other.source} ({other.key}) {what} as {one.source} ({one.key}); {why}. Name other rows, or give"
                " null: then a fraction is kept apart"
            )


def _shared_file(one: Path, other: Path) -> str | None:
    """A file that both are, or have, by place or by its bytes; of folders of images only where one lies
    in the other.
    """
    try:
        if not (one.exists() and other.exists()):
            return None
        if one.samefile(other):
            return str(other)
        of_one, of_other = _files(one), _files(other)
        if any(
            len(path.relative_to(top).parts) > 1
            for top, paths in ((one, of_one), (other, of_other))
            if top.is_dir()
            for path in paths
        ):
            nested = other.resolve().is_relative_to(one.resolve()) or one.resolve().is_relative_to(other.resolve())
            return str(other if len(of_other) <= len(of_one) else one) if nested else None
        sizes: dict[int, list[Path]] = {}
        for path in of_one:
            sizes.setdefault(path.stat().st_size, []).append(path)
        pairs = (
            (mine, path) for path in of_other for mine in sizes.get(path.stat().st_size, ()) if path.stat().st_size
        )
        found = next(
            (path for mine, path in pairs if mine.samefile(path) or filecmp.cmp(mine, path, shallow=False)), None
        )
    except OSError:  # which is told when it is read
        return None
    return None if found is None else str(found)


def _files(path: Path) -> list[Path]:
    return (
        [path]
        if not path.is_dir()
        else [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not file.name.startswith((".", "_")) and not is_beside(file, "")
        ]
    )
