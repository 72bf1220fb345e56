"""The trajectory store on disk: under each key a record, kept for good, and a state, kept by policy.

    .surefoot/chain/KEY.json               a line with the digest of the rest, then the record as JSON
    .surefoot/chain/KEY.safetensors        the state; its digest is in the record
    .surefoot/runs/IDENTITY.json           all that is known of a run (`surefoot.run.record`)
    .surefoot/patches/DIGEST.patch         what differed from the commit that runs were made at
    .surefoot/starts/DIGEST.safetensors    weights that a training started from (`train.start_from`)
    .surefoot/checkpoints/IDENTITY/        states of a run until MLflow has their networks (`train.save_every`)
    .surefoot/plots/IDENTITY/              plots of a run until MLflow has them
    .surefoot/lock                         a byte for each key: the process that trains it holds that byte's lock

Records and states can have a side that machines share (`surefoot.run.sharing`): what is missing here comes from there,
and what is trained here goes there.

A digest is checked before anything is parsed: what is damaged counts as missing, with a warning that names the file.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from surefoot.base import digests, paths, reading, terminal, writing
from surefoot.base.documents import Document, Malformed, parse_document
from surefoot.base.wording import without_password
from surefoot.run.record import Epoch, Record, RunRecord, read_mark
from surefoot.run.sharing.shared_store import SharedStore

Parsed = TypeVar("Parsed")
REQUESTS = 8  # to a shared store at a time, each for a record
MANY = 200  # records, which may take seconds


class TrajectoryStore:
    """Records and states in the directory `path`, which needn't exist. Several processes may use it at once.

    `shared`: the side that machines share, if there is one.
    """

    def __init__(self, path: Path, shared: SharedStore | None = None) -> None:
        self.path, self.shared = path, shared
        self.fits: Callable[[bytes], bool] = lambda state: True  # whether a shared state can be one of this run's
        self._warned: set[Path] = set()
        # By file of a run: when it was written, and the keys of the states that it needs.
        self._needed: dict[Path, tuple[int, set[str]]] = {}

    def record(self, key: str) -> Record | None:
        """The record under a key, or None if it is missing or damaged."""
        path = self.record_path(key)
        record = self._sealed(path, lambda body: _parse_record(body, key))
        if record is None and self.shared:
            record = self.shared.fetch(path, lambda there: read_record(there, key), reading.LARGEST_WHOLE)
        return record

    def bring_records(self, keys: Iterable[str]) -> None:
        """Bring the records under these keys that others share, several at a time.

        Raises:
            UserError: there is no such shared store, or it refuses.
        """
        if self.shared:
            self.shared.connect()
            keys = list(keys)
            sizes = self.shared.sizes()
            wanted = sum(f"{key}.json" in sizes and not self.record_path(key).is_file() for key in keys)
            if wanted > MANY:
                terminal.print_lines(f"fetching {wanted:,} records from {without_password(self.shared.url)}")
            with ThreadPoolExecutor(REQUESTS, "records") as pool:
                for _ in pool.map(self.record, keys):
                    pass

    def count_records(self) -> int:
        """How many records there are, of all runs."""
        return sum(1 for _ in (self.path / "chain").glob("*.json"))

    def state(self, record: Record) -> bytes | None:
        """The state that a record tells of, or None if it is missing or damaged."""
        path = self.state_path(record.key)
        state = self._state_in(path, record)
        if state is None and self.shared:

            def read(there: Path) -> bytes | None:
                data = _read(there)
                sound = data is not None and digests.sha256(data) == record.state and self.fits(data)
                return data if sound else None

            state = self.shared.fetch(path, read, reading.LARGEST_WEIGHTS)
        return state

    def _state_in(self, path: Path, record: Record) -> bytes | None:
        data = _read(path)
        if data is not None and digests.sha256(data) != record.state:
            self._warn(path)
            return None
        return data

    def state_of(self, key: str) -> bytes | None:
        """The state under a key, or None if it or its record is missing or damaged."""
        record = self.record(key)
        return self.state(record) if record else None

    def write(self, record: Record, state: bytes) -> None:
        """Write a state and its record, durably, each whole or not at all.

        Raises:
            UserError: the disk is full, or can't be written.
        """
        with _clear_errors():
            state_path, record_path = self.state_path(record.key), self.record_path(record.key)
            sealed = _seal(digests.canonical_json(record.plain()))
            writing.write_durably(state_path.parent, {state_path.name: state, record_path.name: sealed})
        if self.shared:
            self.shared.offer_trained(record_path, state_path)

    def share_record(self, key: str) -> None:
        """Let other machines have a record, which may be older than what they share."""
        if self.shared:
            self.shared.offer(self.record_path(key))

    def write_record(self, record: Epoch) -> None:
        """Write a record whose state isn't at hand."""
        with _clear_errors():
            path = self.record_path(record.key)
            writing.write_durably(path.parent, {path.name: _seal(digests.canonical_json(record.plain()))})

    def drop_state(self, key: str) -> None:
        """Delete a state here; its record stays."""
        self.state_path(key).unlink(missing_ok=True)

    def mark_run(self, run: RunRecord) -> None:
        """Remember a run: its `epoch_keys`, and once it is finished `last` and `best`, whose states are kept from then
        on.
        """
        with _clear_errors():
            writing.write_durably(self.path / "runs", {f"{run.identity}.json": _seal(run.mark())})
        if self.shared:
            for path in map(self.state_path, sorted(run.needed)):
                if path.exists():
                    self.shared.offer(path)

    def keep_checkpoint(self, identity: str, key: str) -> None:
        """Keep a state, if it is there, until MLflow has the network in it as a run's checkpoint: `drop_state` may come
        first.
        """
        kept = self.kept_checkpoint(identity, key)
        with _clear_errors(), suppress(FileNotFoundError, FileExistsError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.state_path(key), kept)
            except FileExistsError:
                raise
            except OSError:  # no such links on this disk
                writing.write_bytes(kept, self.state_path(key).read_bytes())

    def checkpoint_state(self, identity: str, key: str) -> bytes | None:
        """The state under a key that a run is to have as a checkpoint, or None if it is missing or damaged."""
        record = self.record(key)
        if record is None:
            return None
        kept = self.kept_checkpoint(identity, key)
        return self._state_in(kept, record) if kept.exists() else self.state(record)

    def checkpoints_size(self, identity: str) -> int:
        """The bytes of the states that are kept so for a run."""
        return sum(about.st_size for _, about in _files(self.path / "checkpoints" / identity, "*.safetensors"))

    def kept_checkpoint(self, identity: str, key: str) -> Path:
        """Where a state is kept until MLflow has its network as a run's checkpoint."""
        return self.path / "checkpoints" / identity / f"{key}.safetensors"

    def keep_start(self, digest: str, weights: bytes) -> None:
        """Keep the weights of this digest, which a training starts from."""
        path = self.start_path(digest)
        if not path.is_file() or path.stat().st_size != len(weights) or digests.sha256_file(path) != digest:
            with _clear_errors():
                writing.write_durably(path.parent, {path.name: weights})

    def note_start(self, key: str, start: dict[str, Any]) -> None:
        """Note what a training starts from as an older Surefoot looks for it, whose code `surefoot verify` may run."""
        with _clear_errors():
            writing.write_durably(self.path / "starts", {f"{key}.json": _seal(digests.canonical_json(start))})

    def start_weights(self, digest: str) -> bytes | None:
        """The weights of this digest that a training started from, or None if they are missing or damaged."""
        path = self.start_path(digest)
        data = _read(path)
        if data is not None and digests.sha256(data) != digest:
            self._warn(path)
            return None
        return data

    def start_path(self, digest: str) -> Path:
        """Where the weights of this digest lie that a training started from."""
        return self.path / "starts" / f"{digest}.safetensors"

    def run_path(self, identity: str) -> Path:
        """Where a run is remembered."""
        return self.path / "runs" / f"{identity}.json"

    def run(self, identity: str) -> RunRecord | None:
        """What is remembered of a run, or None if that is missing or damaged."""
        return self._run(self.run_path(identity))

    def runs(self) -> dict[str, RunRecord]:
        """All runs by identity; `run` reads one alone."""
        return {path.stem: run for path, _ in _files(self.path / "runs", "*.json") if (run := self._run(path))}

    def _run(self, path: Path) -> RunRecord | None:
        return self._sealed(path, lambda body: read_mark(path.stem, body))

    def needed(self) -> set[str]:
        """The keys of the states that all finished runs need."""
        for path, about in _files(self.path / "runs", "*.json"):
            if self._needed.get(path, (0,))[0] != about.st_mtime_ns:
                run = self._run(path)
                self._needed[path] = (about.st_mtime_ns, run.needed if run else set())
        return set().union(*(keys for path, (_, keys) in self._needed.items() if path.exists()))

    def state_sizes(self) -> dict[str, int]:
        """The size of each state that is stored here in bytes, by key."""
        return {path.stem: about.st_size for path, about in _files(self.path / "chain", "*.safetensors")}

    def keys_of_states(self) -> set[str]:
        """The keys of all states that are stored here, or shared."""
        shared = self.shared.sizes() if self.shared else {}
        return {*self.state_sizes(), *(Path(name).stem for name in shared if name.endswith(".safetensors"))}

    def free_bytes(self) -> int:
        """Free space on the store's disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.path).free

    def record_path(self, key: str) -> Path:
        """Where the record under a key lies."""
        return self.path / "chain" / f"{key}.json"

    def where_recorded(self, key: str) -> str:
        """Where the record under a key lies, here and in the shared store, in words."""
        path = self.record_path(key)
        return f"{path}{self.shared.also_in(path.name) if self.shared else ''}"

    def state_path(self, key: str) -> Path:
        """Where the state under a key lies."""
        return self.path / "chain" / f"{key}.safetensors"

    def _sealed(self, path: Path, parse: Callable[[bytes], Parsed]) -> Parsed | None:
        data = _read(path)
        found = _unsealed(data, parse)
        if found is None and data is not None:
            self._warn(path)
        return found

    def _warn(self, path: Path) -> None:
        if path not in self._warned:
            self._warned.add(path)
            terminal.warn(f"{path} is damaged; it isn't used")


def open_trajectory_store(origin: Document | Mapping[str, Any] | None) -> TrajectoryStore:
    """This repository's store; with the side that machines share, of runs of this origin, where SUREFOOT_STORE is a
    URL. Nothing is asked of that before it is needed.
    """
    path, url = paths.trajectory_store(), paths.shared_store()
    if url is None or origin is None:
        return TrajectoryStore(path)
    plain = origin.plain() if isinstance(origin, Document) else origin
    return TrajectoryStore(path, SharedStore(url, path, digests.sha256(digests.canonical_json(plain))))


def read_record(path: Path, key: str) -> Record | None:
    """The record under a key in a file that came from elsewhere, or None if it is missing or damaged."""
    return _unsealed(_read(path), lambda body: _parse_record(body, key))


def _parse_record(body: bytes, key: str) -> Record:
    record = parse_document(Record, body)
    if record.key != key:
        raise Malformed("it is the record of another state")
    return record


def _unsealed(data: bytes | None, parse: Callable[[bytes], Parsed]) -> Parsed | None:
    digest, _, body = (data or b"").partition(b"\n")
    try:
        return parse(body) if digests.sha256(body).encode() == digest else None
    except Malformed:
        return None


def _seal(body: bytes) -> bytes:
    return digests.sha256(body).encode() + b"\n" + body


def _files(directory: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(directory.glob(pattern)):
        with suppress(FileNotFoundError):  # another process may delete one meanwhile
            yield path, path.stat()


def _read(path: Path) -> bytes | None:
    try:
        return reading.read_file(path, reading.LARGEST_WEIGHTS)
    except FileNotFoundError:
        return None
    except OSError as error:
        terminal.warn(f"{path} can't be read ({error.strerror}); it isn't used")
        return None


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise writing.unwritable(error.filename or "the trajectory store", error) from None
