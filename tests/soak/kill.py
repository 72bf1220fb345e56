"""Kill -9 at random moments, then `dvc repro`: the same bytes, and one MLflow run without gap or double."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil

from tests.soak.workspace import Reference, Workspace, gone, until

EPOCHS = 12
VARIANTS: list[dict[str, Any]] = [
    {
        "epochs": EPOCHS,
        "lr": 0.01,
        "model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [1024, 64], "dropout": 0.2}},
    },
    {
        "epochs": EPOCHS,
        "lr": 0.02,
        "model": {"factory": "networks.cnn:cnn", "arguments": {"channels": 8}},
        "select": "last",
        "nesterov": True,
    },
    {
        "epochs": EPOCHS,
        "lr": 0.05,
        "shards": 4,
        "model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [64], "dropout": 0.2}},
    },
]
SHARED = 2  # the variant that several processes train
PROCESSES = (1, 2, 2, 3, 4)
CHECKPOINT_EVERY = (0, 13, 20, 40)
STEPS = 79  # in an epoch of the digits, by 16
LONGEST = {"start": 9.0, "write": 0.004, "record": 0.1, "end": 8.0}  # seconds from then to the kill


@dataclass(frozen=True)
class Kill:
    """Whom to kill when."""

    # trainer | dvc | both | bare: a trainer that was started without DVC | tracker: what writes to MLflow | of several
    # processes rank: one of them, the one of this number | launcher: what started them
    whom: str
    # start: since the command was started | write, record: the n-th since then, begun or whole | end: all is trained
    when: str
    number: int
    delay: float  # seconds after it
    processes: int = 0  # that train; 0: it isn't said


@dataclass(frozen=True)
class Round:
    """What happens in a round: one command for each kill, then `dvc repro` to the end."""

    number: int
    variant: int
    checkpoint_every: int
    mlflow: bool  # an empty store is there, rather than none
    kills: list[Kill]
    processes: int = 0  # that train at the end


def draw(seed: int, number: int) -> Round:
    """A round, as a function of (seed, number)."""
    rng = random.Random(f"{seed}/{number}")
    checkpoint_every = rng.choice(CHECKPOINT_EVERY)
    segments = _segments(checkpoint_every)
    kills = []
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        whom = rng.choices(("trainer", "dvc", "both", "bare"), (30, 35, 20, 15))[0]
        when = rng.choices(("start", "write", "record", "end"), (10, 40, 35, 15))[0]
        delay = rng.choice((0, rng.random())) if when == "write" else rng.random()
        kills.append(Kill(whom, when, rng.randint(1, max(1, int(0.6 * segments))), delay * LONGEST[when]))
    drawn = Round(number, rng.randrange(SHARED), checkpoint_every, rng.random() < 0.85, kills)
    more = random.Random(f"{seed}/{number}/tracker")
    if more.random() < 0.4:
        when = more.choice(("record", "end"))
        kills.append(Kill("tracker", when, more.randint(1, max(1, int(0.6 * segments))), more.random() * LONGEST[when]))
    return _by_several(drawn, random.Random(f"{seed}/{number}/several"))


def _by_several(drawn: Round, rng: random.Random) -> Round:
    """In some rounds several processes train, of another number after each kill."""
    if rng.random() >= 0.25:
        return drawn
    kills = []
    for kill in drawn.kills:
        whom = (
            rng.choice(("rank", "rank", "launcher", "trainer"))
            if kill.whom in ("trainer", "bare", "both")
            else kill.whom
        )
        kills.append(replace(kill, whom=whom, processes=rng.choice(PROCESSES)))
    return replace(drawn, variant=SHARED, kills=kills, processes=rng.choice(PROCESSES))


def play(workspace: Workspace, drawn: Round, references: dict[int, Reference]) -> tuple[int, int]:
    """Play a round; returns how many kills hit, and how many of them inside a write.

    Raises:
        Wrong: it didn't end right.
    """
    reference = references[drawn.variant]
    workspace.params(**reference.train, checkpoint_every=drawn.checkpoint_every)
    workspace.reset(mlflow=drawn.mlflow)
    workspace.log.unlink(missing_ok=True)
    orphans: list[psutil.Process] = []
    try:
        hits = [_strike(workspace, kill, _segments(drawn.checkpoint_every), orphans) for kill in drawn.kills]
        workspace.repro(**_environ(drawn.processes))
        if any(kill.whom == "tracker" for kill in drawn.kills):
            workspace.run([workspace.python, "-m", "surefoot", "sync"], **workspace.alone)
        until("a trainer whose DVC was killed is still there", 60, lambda: all(map(gone, orphans)))
        workspace.check(reference)
    finally:
        for orphan in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
    return sum(hit for hit, _ in hits), sum(inside for _, inside in hits)


def _environ(processes: int) -> dict[str, str]:
    return {"SUREFOOT_PROCESSES": str(processes)} if processes else {}


def _segments(checkpoint_every: int) -> int:
    return EPOCHS * (-(-STEPS // checkpoint_every) if checkpoint_every else 1)


def _strike(workspace: Workspace, kill: Kill, segments: int, orphans: list[psutil.Process]) -> tuple[bool, bool]:
    """Start a command and kill it at its moment; whether it was still there then, and left a file half-written."""
    bare = kill.whom == "bare"
    command = [workspace.python, "-m", "surefoot.stages.train"] if bare else [*workspace.dvc, "repro"]
    older = _names(workspace, ".partial")
    process = workspace.start(command, environ=workspace.alone if bare else _environ(kill.processes))
    if not _moment(workspace, kill, segments, lambda: process.poll() is not None):
        workspace.ended(process)
        return False, False
    # Inside a write milliseconds count: whose it is stands in the file's name.
    writers = [
        writer for name in _names(workspace, ".partial") if (writer := _own(workspace, int(name.split(".")[-2])))
    ]
    stages = writers or ([] if bare else _started(process, "surefoot.stages"))
    if kill.whom == "tracker":
        stages = _started(process, "surefoot.run.tracking_process")
    if kill.processes and kill.whom == "launcher":
        orphans += _started(process, "surefoot.stages")  # in sessions of their own; they end by themselves
    if kill.whom in ("rank", "launcher"):
        stages = _one_of_several(kill, _started(process, "surefoot.stages.train"))
    if kill.whom in ("trainer", "tracker", "rank", "launcher") and stages:
        for stage in stages:
            with contextlib.suppress(psutil.NoSuchProcess):
                stage.kill()
        # DVC sees its stage fail, and ends; without a tracker it goes on, and so do several processes without a rank.
    elif kill.whom in ("tracker", "rank", "launcher"):
        pass
    elif kill.whom == "dvc":
        orphans += stages
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    workspace.ended(process)
    # Where only DVC was killed, its trainer finishes the write.
    left = _names(workspace, ".partial") - older
    with workspace.log.open("a") as log:
        log.write(f"\n--- kill -9: {kill}, running: {[stage.pid for stage in stages]}, half-written: {sorted(left)}\n")
    return True, bool(left) and kill.whom != "dvc"


def _one_of_several(kill: Kill, trainers: list[psutil.Process]) -> list[psutil.Process]:
    """The process to kill of those that train; the trainer, where that is one."""
    by_rank: dict[int, psutil.Process] = {}
    for trainer in trainers:
        with contextlib.suppress(psutil.Error):
            by_rank[int(trainer.environ().get("RANK", -1))] = trainer
    ranks = sorted(rank for rank in by_rank if rank >= 0)
    if kill.whom == "rank" and ranks:
        return [by_rank[ranks[kill.number % len(ranks)]]]
    return [by_rank[-1]] if -1 in by_rank else []


def _moment(workspace: Workspace, kill: Kill, segments: int, over: Callable[[], bool]) -> bool:
    """Wait for the moment of a kill; False if the command ends before."""
    leftovers, before = _names(workspace, ".partial"), _names(workspace, ".json")
    begun: set[str] = set()
    while kill.when != "start":
        begun |= _names(workspace, ".partial") - leftovers
        whole = _names(workspace, ".json")
        if {"write": len(begun), "record": len(whole - before), "end": len(whole) - segments + kill.number}[
            kill.when
        ] >= kill.number:
            break
        if over():
            return False
        time.sleep(0.0002 if whole != before or begun else 0.005)
    end = time.monotonic() + kill.delay
    while (left := end - time.monotonic()) > 0:
        if over():
            return False
        time.sleep(min(left, 0.05))
    return not over()


def _names(workspace: Workspace, end: str) -> set[str]:
    try:
        return {path.name for path in workspace.chain.iterdir() if path.name.endswith(end)}
    except FileNotFoundError:
        return set()


def _own(workspace: Workspace, pid: int) -> psutil.Process | None:
    """A process of this workspace; None if that number is, by now, nobody's or somebody else's."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if any(word.startswith(str(workspace.path)) for word in process.cmdline()):
            return process
    return None


def _started(process: "subprocess.Popen[bytes]", module: str) -> list[psutil.Process]:
    """The processes that run such a module, of those that a DVC has started."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word.startswith(module) for word in child.cmdline()):
                    found.append(child)
    return found
