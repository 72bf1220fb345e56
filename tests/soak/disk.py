"""Run out of space while saving: exit code 2, the path named, what is older whole, and right once there
is space again.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.soak.workspace import OUTPUTS, Workspace, Wrong

# States of 4.9 MB, models of 2.5 MB: MLflow's database, of 1 MB, fits under the limits between them.
TRAIN: dict[str, Any] = {"lr": 0.01, "model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [8192]}}}
EPOCHS, BEFORE = 4, 2
STATE, MODEL = 4_000_000, 2_000_000  # limits that a state and a model don't fit under


def run(path: Path, count: Callable[..., None], *, short: bool = False) -> None:
    """A file-size limit, and a small tmpfs that is full."""
    workspace = Workspace.make(path)
    outputs = OUTPUTS[:3]
    workspace.params(**TRAIN, epochs=EPOCHS)
    workspace.stage("train")
    wanted = {name: (path / name).read_bytes() for name in outputs}

    def ends_right(**environ: str) -> None:
        workspace.stage("train", **environ)
        for name, data in wanted.items():
            if (path / name).read_bytes() != data:
                raise Wrong(f"with space again: {name} differs from that of the run that nothing disturbed")

    def play(what: str, scene: Callable[[], None]) -> None:
        workspace.reset()
        workspace.log.unlink(missing_ok=True)
        wrong = None
        try:
            scene()
        except Exception as error:
            wrong = error
        count("disk", what, wrong=wrong, workspace=workspace)

    def no_room_for_a_state() -> None:
        workspace.params(**TRAIN, epochs=BEFORE)
        workspace.stage("train")
        before = _contents(workspace.chain)
        workspace.params(**TRAIN, epochs=EPOCHS)
        _fails(workspace, workspace.chain, limit=STATE)
        _is_whole(before, _contents(workspace.chain))
        ends_right()

    def no_room_for_the_model() -> None:
        workspace.params(**TRAIN, epochs=EPOCHS)
        workspace.stage("train")
        (path / outputs[0]).unlink()
        before = _contents(workspace.chain)
        _fails(workspace, Path(outputs[0]), limit=MODEL)
        if (path / outputs[0]).exists():
            raise Wrong(f"{outputs[0]} is there, and can't be whole")
        _is_whole(before, _contents(workspace.chain))
        ends_right()

    def full_disk() -> None:
        workspace.params(**TRAIN, epochs=EPOCHS)
        with _tmpfs(path.with_name("tmpfs"), "8m") as small:
            store = {"SUREFOOT_STORE": str(small / "store")}
            _fails(workspace, small / "store" / "chain", **store)
            before = _contents(small / "store" / "chain")
            if not any(name.endswith(".safetensors") for name in before):
                raise Wrong("no older state is there")
            _fails(workspace, small / "store" / "chain", **store)
            _is_whole(before, _contents(small / "store" / "chain"))
            subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
            ends_right(**store)

    def disk_full_from_the_start() -> None:
        workspace.params(**TRAIN, epochs=EPOCHS)
        with _tmpfs(path.with_name("tmpfs"), "64k") as small:
            (small / "ballast").write_bytes(b"-" * 60 * 1024)
            store = {"SUREFOOT_STORE": str(small / "store")}
            _fails(workspace, small / "store", **store)
            subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
            ends_right(**store)

    play("a file-size limit that no state fits under", no_room_for_a_state)
    if short:
        return
    play("a file-size limit that the model doesn't fit under", no_room_for_the_model)
    if _may_mount(path.with_name("tmpfs")):
        play("a disk that is full after the first state", full_disk)
        play("a disk that is full from the start", disk_full_from_the_start)
    else:
        print("disk: SKIPPED the full tmpfs: mounting one takes root", flush=True)


def _fails(workspace: Workspace, where: Path, limit: int | None = None, **environ: str) -> None:
    """The train stage ends with exit code 2 and says in plain lines which path it couldn't write."""
    before = workspace.log.stat().st_size if workspace.log.exists() else 0

    def cap() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = workspace.start(
        [workspace.python, "-m", "surefoot.stages.train"], environ=workspace.alone | environ, preexec_fn=cap
    )
    code = workspace.ended(process)
    said = workspace.log.read_bytes()[before:].decode(errors="replace")
    error = next((line for line in said.splitlines() if line.startswith("error: ")), "")
    if code != 2 or str(where) not in error or "Traceback" in said:
        raise Wrong(f"exit code {code}, not 2 with an error that names {where}:\n{said[-3000:]}")


def _contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def _is_whole(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    if any(after.get(name) != data for name, data in before.items()):
        raise Wrong("what was stored before isn't whole")
    if extra := [name for name in after if name.endswith(".partial")]:
        raise Wrong(f"half-written files are left: {extra}")


def _may_mount(place: Path) -> bool:
    if not sys.platform.startswith("linux") or os.geteuid() or not shutil.which("mount"):
        return False
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


@contextmanager
def _tmpfs(place: Path, size: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
