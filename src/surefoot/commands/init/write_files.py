"""All files of a new pipeline, or none: what exists is never overwritten, and lines are only added to ignore files."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.base import writing
from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names


@dataclass(frozen=True)
class FilesToWrite:
    """What is to be written, by its path below the directory."""

    texts: dict[str, str]
    """New files."""
    lines: dict[str, list[str]]
    """Lines that a file, which may be there, must have."""
    copies: dict[str, Path] = field(default_factory=dict)
    """New files and directories, each a copy."""
    outputs: list[str] = field(default_factory=list)
    """Files and directories that stages make: DVC removes what it finds there."""

    @property
    def new(self) -> list[str]:
        """The paths where nothing may be yet."""
        return [*self.texts, *self.copies, *self.outputs]


def refuse_existing(directory: Path, files: FilesToWrite) -> None:
    """See whether anything would be overwritten.

    Raises:
        UserError: naming all that is there.
    """
    if there := [name for name in files.new if _exists(directory / name)]:
        raise UserError(
            f"{directory}: there is {listed_names(there)} already, and nothing is overwritten: move it away, or name a"
            " folder of the pipeline's own: `surefoot init DIR`"
        )


def write_all(directory: Path, files: FilesToWrite, then: Callable[[], None]) -> None:
    """Write the files, then do what comes `then`; if either fails, all is as it was before.

    Raises:
        UserError: something can't be written; what `then` raises.
    """
    made: list[Path] = []
    before: dict[Path, bytes] = {}
    try:
        for name, copied in files.copies.items():
            _claim(directory / name, made)
            _copy(copied, directory / name)
        for name, text in files.texts.items():
            _claim(directory / name, made)
            writing.write_bytes(directory / name, text.encode())
        for name, lines in files.lines.items():
            _add_lines((directory / name).resolve(), lines, made, before)  # a link stays one
        then()
    except BaseException:
        for path in reversed(made):
            _undo(path, path in [directory / name for name in files.copies])
        for path, data in before.items():  # after what was removed, as the disk may be full
            with suppress(UserError):
                writing.write_bytes(path, data)
        raise


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _claim(path: Path, made: list[Path]) -> None:
    """Note a path as made here; but not one that somebody else has made by now, as data may take long to copy."""
    _make_parents(path, made)
    if _exists(path):
        raise UserError(f"{path}: is there by now, and nothing is overwritten; try again")
    made.append(path)


def _make_parents(path: Path, made: list[Path]) -> None:
    for parent in reversed([parent for parent in path.parents if not parent.exists()]):
        try:
            parent.mkdir()
        except OSError as error:
            raise writing.unwritable(parent, error) from None
        made.append(parent)


def _copy(source: Path, path: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
    except (OSError, shutil.Error) as error:
        # Of a directory, shutil tells of each file in it; of a pipe or device it says what that is.
        said = error.args[0][0][2] if isinstance(error, shutil.Error) and isinstance(error.args[0], list) else error
        raise writing.unwritable(path, error if error.strerror else OSError(said)) from None


def _add_lines(path: Path, lines: list[str], made: list[Path], before: dict[Path, bytes]) -> None:
    old = path.read_bytes() if path.is_file() else b""
    there = set(old.decode(errors="replace").splitlines())
    lacking = "".join(f"{line}\n" for line in lines if line not in there)
    if not lacking:
        return
    if path.is_file():
        before[path] = old
    elif not path.exists():
        _make_parents(path, made)
        made.append(path)
    between = b"\n" if old and not old.endswith(b"\n") else b""
    writing.write_bytes(path, old + between + lacking.encode())


def _undo(path: Path, whole: bool) -> None:
    """Remove what was made; a directory for others only while it is empty."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path) if whole else path.rmdir()
        else:
            path.unlink(missing_ok=True)
