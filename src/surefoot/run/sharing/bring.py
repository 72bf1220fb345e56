"""Bringing to the shared store what is noted of the local one."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from surefoot.base import digests, paths, terminal
from surefoot.base.object_store import ObjectStore, TooLarge, Unavailable, open_object_store
from surefoot.run.record import Record
from surefoot.run.sharing.shared_store import noted, notes_of, unshared
from surefoot.run.trajectory_store import REQUESTS, TrajectoryStore, read_record


def bring_noted(objects: ObjectStore, store: TrajectoryStore, notes: Path) -> None:
    """Bring all that is noted, also what is noted meanwhile. What is gone from the local store, or damaged, isn't.

    Raises:
        Unavailable: the shared store can't be reached, or refuses; what wasn't brought stays noted.
    """

    def bring(name: str) -> None:
        _bring(objects, store, name)
        (notes / name).unlink(missing_ok=True)

    with ThreadPoolExecutor(REQUESTS, "bring") as pool:
        while names := noted(notes):
            records = [name for name in names if name.endswith(".json")]
            for _ in pool.map(bring, records or names[:1]):  # after each state: is there a newer one?
                pass


def bring_left() -> bool:
    """Bring what earlier trainings left, if SUREFOOT_STORE is a URL; returns whether nothing is lacking there.

    Raises:
        UserError: the URL can't be opened.
    """
    local, url = paths.trajectory_store(), paths.shared_store()
    lacking = unshared(local, url) if url else ""
    if not url or not lacking:
        return True
    objects = open_object_store(url)
    terminal.print_lines(f"bringing {lacking} to {objects.url}")
    try:
        bring_noted(objects, TrajectoryStore(local), notes_of(local, url))
    except Unavailable as error:
        terminal.warn(f"{objects.url} lacks {unshared(local, url)}: {error}")
        return False
    terminal.print_lines("brought")
    return True


def _bring(objects: ObjectStore, store: TrajectoryStore, name: str) -> None:
    key, is_record = PurePosixPath(name).stem, name.endswith(".json")
    path, record = store.record_path(key) if is_record else store.state_path(key), store.record(key)
    if record is None or not path.is_file() or (not is_record and digests.sha256_file(path) != record.state):
        return
    if not objects.put_if_absent(name, path) and is_record:
        _compare(objects, name, record, 2 * path.stat().st_size)


def _compare(objects: ObjectStore, name: str, ours: Record, largest: int) -> None:
    """See whether the record that is there tells of the same state, as it does unless something is wrong."""
    theirs = None
    with TemporaryDirectory() as scratch, suppress(TooLarge):
        path = Path(scratch) / "record.json"
        if not objects.get(name, path, largest):
            return
        theirs = read_record(path, ours.key)
    if theirs is None:
        terminal.warn(f"{objects.url}/{name} is damaged; delete it, so that it can be brought again")
    elif theirs.state != ours.state:
        terminal.warn(
            f"epoch {ours.epoch} came out otherwise here than recorded in {objects.url}/{name}: the network draws on"
            " something that its key doesn't know, such as time or its own random numbers"
        )
