"""The side of the trajectory store that machines share: records and states alone, which never change.

    URL/ORIGIN/KEY.json           a record, as in the local store; ORIGIN is what the run's first key was made from
    URL/ORIGIN/KEY.safetensors    a state

Nothing is locked there: whoever comes first stands. What is missing there is noted in the local store until it is
brought (`surefoot.run.sharing.bring`):

    .surefoot/unshared/DIGEST OF THE URL/ORIGIN/...     an empty file for each record and state
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import uuid4

from surefoot.base import digests, terminal
from surefoot.base.errors import UserError
from surefoot.base.object_store import ObjectStore, TooLarge, Unavailable, open_object_store
from surefoot.base.wording import number_of

Found = TypeVar("Found")
REFUSALS = 3  # after which nothing more is asked for: it isn't one object alone that is refused


class SharedStore:
    """What machines share of the runs of one origin, as one process saw it when it first looked.

    Args:
        url: of the shared store.
        local: the local store's directory.
        origin: the digest of the origin.
    """

    def __init__(self, url: str, local: Path, origin: str) -> None:
        self.url, self._local, self._origin = url, local, origin
        self.notes = notes_of(local, url)
        self.wake: Callable[[], None] = lambda: None  # called when something is noted
        self.told = False  # that it can't be read
        self._telling, self._refused = Lock(), count()
        self._objects: ObjectStore | None = None
        self._sizes: dict[str, int] | None = None  # by file name
        self._newest: Path | None = None  # the note of the state that was trained last

    def connect(self) -> None:
        """Look what is there.

        Raises:
            UserError: the URL can't be opened, or who answers there refuses; where nobody answers, that is only said.
        """
        self._sizes = {}
        self._objects = open_object_store(self.url)
        try:
            found = self._objects.list(self._origin)
        except Unavailable as error:
            if error.refused:
                raise UserError(f"SUREFOOT_STORE: {self._objects.url}: {error}") from None
            self._give_up(error)
        else:
            self._sizes = {name.removeprefix(f"{self._origin}/"): size for name, size in found.items()}

    def sizes(self) -> dict[str, int]:
        """The files that are there, and their sizes in bytes."""
        if self._sizes is None:
            try:
                self.connect()
            except UserError as error:
                terminal.warn(f"{error}; it isn't used")
        assert self._sizes is not None
        return self._sizes

    def fetch(self, path: Path, read: Callable[[Path], Found | None], largest: int) -> Found | None:
        """What `read` finds in a file that is there, which takes its place in the local store; None where there is
        none, or it is damaged.

        Args:
            path: of the file in the local store.
            read: gives None for what isn't sound.
            largest: bytes that are taken.

        Raises:
            UserError: the local disk is full.
        """
        size = self.sizes().get(path.name)
        if size is None or self._objects is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid4().hex}.{os.getpid()}.partial")  # as `store --prune` knows it
        try:
            trouble = "is damaged" if size > largest else ""
            if size > shutil.disk_usage(path.parent).free:
                trouble = f"has {size:,} bytes, more than are free here"
            if not trouble and self._objects.get(f"{self._origin}/{path.name}", beside, size):
                found = read(beside)
                if found is not None:
                    beside.replace(path)
                    return found
                trouble = "is damaged"
            self._leave_aside(path.name, trouble)
        except TooLarge:  # larger than it was listed
            self._leave_aside(path.name, "is damaged")
        except Unavailable as error:
            if error.refused and next(self._refused) < REFUSALS:  # of this one, it may be
                self._leave_aside(path.name, f"can't be read: {error}")
            else:
                self._give_up(error)
        finally:
            beside.unlink(missing_ok=True)
        return None

    def also_in(self, name: str) -> str:
        """Where a file of this name lies there, to go on with after where it lies here; empty where it doesn't."""
        return f" and {self._objects.url}/{self._origin}/{name}" if name in self.sizes() and self._objects else ""

    def offer(self, path: Path) -> None:
        """Note that a file of the local store is to be brought there, unless it is there."""
        if path.name not in self.sizes():
            self._note(path)
            self.wake()

    def offer_trained(self, record: Path, state: Path) -> None:
        """Note what was just trained. A state that is newer takes the place of one that wasn't brought yet."""
        if self._newest:
            self._newest.unlink(missing_ok=True)
        self._newest = self._note(state) if state.name not in self.sizes() else None
        self.offer(record)

    def _note(self, path: Path) -> Path:
        note = self.notes / self._origin / path.name
        with suppress(OSError):  # the disk is full, as the store will say
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        return note

    def _leave_aside(self, name: str, trouble: str) -> None:
        self.sizes().pop(name, None)
        if trouble and self._objects:  # else it was deleted meanwhile
            terminal.warn(f"{self._objects.url}/{self._origin}/{name} {trouble}; it isn't used")

    def _give_up(self, error: Unavailable) -> None:
        self._sizes = {}
        with self._telling:  # several threads fetch
            told, self.told = self.told, True
        if not told and self._objects:
            terminal.warn(f"{self._objects.url} can't be read: {error}; going on with what {self._local} has")


def notes_of(local: Path, url: str) -> Path:
    """Where the local store notes what is to be brought to a shared one."""
    return local / "unshared" / digests.sha256(url.rstrip("/").encode())[:16]


def notes_of_others(local: Path, url: str | None) -> dict[Path, int]:
    """Where the local store notes what is to be brought to another shared store than this one, and how many files."""
    found = {notes: len(noted(notes)) for notes in sorted((local / "unshared").glob("*"))}
    return {notes: count for notes, count in found.items() if count and not (url and notes == notes_of(local, url))}


def noted(notes: Path) -> list[str]:
    """What is to be brought, as names in the shared store: first records, in the order in which they were noted, then
    states, the latest first, as a run would go on from that.
    """
    return [name for *_, name in sorted(_by_order(notes))]


def _by_order(notes: Path) -> Iterator[tuple[bool, int, str]]:
    for note in notes.glob("*/*"):
        with suppress(FileNotFoundError):  # another process may have brought it meanwhile
            is_state, when = note.suffix != ".json", note.stat().st_mtime_ns
            yield is_state, -when if is_state else when, note.relative_to(notes).as_posix()


def unshared(local: Path, url: str) -> str:
    """What is to be brought, in words; empty where nothing is."""
    names = noted(notes_of(local, url))
    states = sum(name.endswith(".safetensors") for name in names)
    counts = [(len(names) - states, "record"), (states, "state")]
    return " and ".join(number_of(count, noun) for count, noun in counts if count)
