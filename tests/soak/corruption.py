"""Flip bytes and cut files in the trajectory store: all is found, none is used, and the result is right."""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.workspace import OUTPUTS, Workspace, Wrong

if TYPE_CHECKING:
    from surefoot.run.chain import Chain
    from surefoot.run.trajectory_store import TrajectoryStore

Damage = tuple[str, Callable[[bytes], bytes]]  # its name, and what it does to a file

EPOCHS, BROKEN = 4, 2  # the state and the record at the end of this epoch are damaged
CUT = 4096


def run(path: Path, count: Callable[..., None], *, every_byte: bool, stages: bool) -> None:
    """Damage a small chain in this process; with `stages` also a real one under the train stage."""
    _in_process(path.parent / "chain", count, every_byte)
    if stages:
        _stages(path, count)


def regions(state: bytes) -> Iterator[tuple[str, int, int]]:
    """The parts of a safetensors file: name, first byte, and the one after its last."""
    size = int.from_bytes(state[:8], "little")
    yield "length", 0, 8
    yield "header", 8, 8 + size
    for name, said in json.loads(state[8 : 8 + size]).items():
        if name != "__metadata__":
            first, end = said["data_offsets"]
            yield name, 8 + size + first, 8 + size + end


def record_regions(record: bytes) -> Iterator[tuple[str, int, int]]:
    """The parts of a record: its digest, the newline, and each entry of the JSON with what follows it."""
    newline = record.index(b"\n")
    yield "digest", 0, newline
    yield "newline", newline, newline + 1
    places = sorted(record.index(b'"%s":' % name.encode()) for name in json.loads(record[newline + 1 :]))
    for first, end in zip([newline + 1, *places], [*places, len(record)], strict=True):
        yield f"JSON from {record[first : first + 12]!r}", first, end


def damages(parts: Iterator[tuple[str, int, int]], size: int) -> Iterator[Damage]:
    """A flipped byte at the start, in the middle and at the end of each part; the file cut at every 4 KiB; a byte too
    many.
    """
    for name, first, end in parts:
        for place in sorted({first, (first + end) // 2, end - 1}):
            yield f"byte {place} ({name}) flipped", flip(place)
    for length in range(0, size, CUT):
        yield f"cut to {length} bytes", lambda data, length=length: data[:length]
    yield "cut by a byte", lambda data: data[:-1]
    yield "a byte too many", lambda data: data + b"\0"


def flip(place: int, bits: int = 0xFF) -> Callable[[bytes], bytes]:
    """Flip bits of the byte at a place."""
    return lambda data: data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def _in_process(directory: Path, count: Callable[..., None], every_byte: bool) -> None:
    from surefoot.training import numerics

    numerics.pin("portable", 1)
    from surefoot.run.trajectory_store import TrajectoryStore

    directory.mkdir(parents=True)
    whole = TrajectoryStore(directory / "whole")
    with _chain(whole) as chain:
        reached = [end.record for end in chain.follow()]
        weights = chain.weights(reached[-1].key)
    broken = reached[BROKEN - 1]
    state, record = whole.state_path(broken.key), whole.record_path(broken.key)
    todo = [(state, damage) for damage in damages(regions(state.read_bytes()), state.stat().st_size)]
    todo += [(record, damage) for damage in damages(record_regions(record.read_bytes()), record.stat().st_size)]
    found = 0
    for number, (file, (what, damage)) in enumerate(todo):
        store = TrajectoryStore(directory / str(number))
        shutil.copytree(whole.path, store.path)
        damaged = store.path / "chain" / file.name
        damaged.write_bytes(damage(file.read_bytes()))
        if file == state:  # a state is read where the chain goes on from it: let it
            for later in reached[BROKEN:]:
                store.record_path(later.key).unlink()
        said = io.StringIO()
        with contextlib.redirect_stderr(said), _chain(store) as chain:
            again = [end.record for end in chain.follow()]
            same = chain.weights(again[-1].key) == weights
        wrong = None
        if f"warning: {damaged} is damaged" not in said.getvalue():
            wrong = Wrong(f"{file.name}: {what}: not found; printed: {said.getvalue()!r}")
        elif (
            not same
            or [one.metrics for one in again] != [one.metrics for one in reached]
            or [one.state for one in again] != [one.state for one in reached]
        ):
            wrong = Wrong(f"{file.name}: {what}: found, but the result differs")
        elif damaged.read_bytes() == damage(file.read_bytes()) and file == record:
            wrong = Wrong(f"{file.name}: {what}: the damaged record is still there")
        if wrong:
            count("corruption", what, wrong=wrong)
        else:
            found += 1
        shutil.rmtree(store.path)
    count(
        "corruption",
        f"{found} of {len(todo)} damages to a state and a record found, and the chain trained right",
        wrong=None if found == len(todo) else Wrong("see above"),
    )
    if every_byte:
        _every_byte(whole, broken.key, count)


def _every_byte(store: "TrajectoryStore", key: str, count: Callable[..., None]) -> None:
    """Flip every byte of a state and of a record, one at a time: the store gives out none of them."""
    from surefoot.run.trajectory_store import TrajectoryStore

    record = store.record(key)
    assert record
    rng = random.Random(0)
    for path in (store.state_path(key), store.record_path(key)):
        data, passed = path.read_bytes(), []
        said = io.StringIO()
        for place in range(len(data)):
            path.write_bytes(flip(place, 1 << rng.randrange(8))(data))
            fresh = TrajectoryStore(store.path)
            with contextlib.redirect_stderr(said):
                if (fresh.state(record) if path.suffix == ".safetensors" else fresh.record(key)) is not None:
                    passed.append(place)
        path.write_bytes(data)
        found = said.getvalue().count(f"warning: {path} is damaged")
        wrong = Wrong(f"bytes {passed} flipped, and used; {found} warnings") if passed or found != len(data) else None
        count(
            "corruption",
            f"each of the {len(data)} bytes of a {'state' if path.suffix == '.safetensors' else 'record'} flipped by a"
            f" bit, {found} found",
            wrong=wrong,
        )


def _chain(store: "TrajectoryStore") -> "Chain":
    import numpy as np
    import torch
    from torch import nn

    from surefoot.run.chain import Chain
    from surefoot.run.segments import cut_into_segments
    from surefoot.training.loop import Trainer
    from surefoot.training.minibatches import Rows

    generator = torch.Generator().manual_seed(0)
    rows = [
        Rows(torch.randn(n, 24, generator=generator), torch.randint(5, (n,), generator=generator)) for n in (40, 10)
    ]

    def make() -> Trainer:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(24, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 5))
        return Trainer(network, torch.optim.SGD(network.parameters(), momentum=0.9), *rows, batch_size=8, seed=0)

    def order(epoch: int) -> torch.Tensor:
        return torch.randperm(40, generator=torch.Generator().manual_seed(epoch))

    next_segments = cut_into_segments({"soak": 1}, lambda _: np.full(5, 0.05), 0)
    return Chain(next_segments, EPOCHS, store, make, order)


def _stages(path: Path, count: Callable[..., None]) -> None:
    """The same through the train stage, on a run that isn't finished."""
    workspace = Workspace.make(path)
    outputs = OUTPUTS[:3]
    workspace.params(epochs=BROKEN)
    workspace.stage("train")
    shutil.copytree(path / ".surefoot", path.with_name("half"))
    workspace.params(epochs=EPOCHS)
    workspace.stage("train")
    wanted = {name: (path / name).read_bytes() for name in outputs}
    for suffix, what, damage in (
        (".safetensors", "a byte of the latest state flipped", lambda data: flip(len(data) // 2)(data)),
        (".safetensors", "the latest state cut to nothing", lambda _: b""),
        (".json", "a byte of the latest record flipped", flip(100)),
    ):
        shutil.rmtree(path / ".surefoot")
        shutil.copytree(path.with_name("half"), path / ".surefoot")
        for name in outputs:
            (path / name).unlink()
        latest = max(workspace.chain.glob(f"*{suffix}"), key=lambda file: file.stat().st_mtime_ns)
        latest.write_bytes(damage(latest.read_bytes()))
        wrong = None
        try:
            said = workspace.stage("train")
            if f"warning: {latest} is damaged" not in said:
                wrong = Wrong(f"no warning names {latest}:\n{said}")
            elif any((path / name).read_bytes() != data for name, data in wanted.items()):
                wrong = Wrong("the result differs")
        except Wrong as error:
            wrong = error
        count("corruption", f"train stage: {what}", wrong=wrong, workspace=workspace)
    (mark,) = (path / ".surefoot" / "runs").glob(f"{_identity(path)}.json")
    mark.write_bytes(flip(100)(mark.read_bytes()))
    wrong = None
    try:
        said = workspace.stage("evaluate")
        if f"warning: {mark} is damaged" not in said:
            wrong = Wrong(f"no warning names {mark}:\n{said}")
    except Wrong as error:
        wrong = error
    count(
        "corruption",
        "evaluate stage: a byte of what is remembered of the run flipped",
        wrong=wrong,
        workspace=workspace,
    )


def _identity(path: Path) -> str:
    """The run whose mark was written last."""
    return max((path / ".surefoot" / "runs").glob("*.json"), key=lambda file: file.stat().st_mtime_ns).stem
