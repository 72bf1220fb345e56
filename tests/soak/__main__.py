"""Run the soak: `python -m tests.soak [--rounds N] [--seed S] [--case CASE]`."""

import argparse
import queue
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.soak import corruption, disk, kill, outage, start
from tests.soak.workspace import Workspace, Wrong


class Soak:
    """Counts rounds, and keeps the workspace of each that went wrong."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.arguments, self.directory = arguments, directory
        self.rounds = self.kills = self.right = 0
        self.began = time.monotonic()
        self.kept: list[Path] = []

    def count(
        self, case: str, what: str, kills: int = 0, wrong: Exception | None = None, workspace: Workspace | None = None
    ) -> None:
        """Count a round, and say how it ended."""
        self.rounds, self.kills, self.right = self.rounds + 1, self.kills + kills, self.right + (wrong is None)
        print(
            f"{time.monotonic() - self.began:7.1f} s  {case}: {what}: {'right' if wrong is None else 'WRONG'}",
            flush=True,
        )
        if wrong is not None:
            print("".join(traceback.format_exception(wrong)) if not isinstance(wrong, Wrong) else f"    {wrong}")
            if workspace:
                kept = self.directory / f"wrong-{len(self.kept)}" / "project"
                shutil.copytree(workspace.path, kept, symlinks=True)
                shutil.copy(workspace.log, kept.with_name("project.log"))
                self.kept.append(kept)
                print(f"    kept: {kept}, and what was printed beside it", flush=True)

    def kill(self) -> None:
        """Kill at random moments."""
        arguments = self.arguments
        print("kill: preparing workspaces and references", flush=True)
        first = Workspace.make(self.directory / "kill-0" / "project")
        rounds = [
            kill.draw(arguments.seed, number) for number in range(arguments.first, arguments.first + arguments.rounds)
        ]
        references = {
            variant: first.reference(**kill.VARIANTS[variant]) for variant in {drawn.variant for drawn in rounds}
        }
        free: queue.Queue[Workspace] = queue.Queue()
        for number in range(min(arguments.jobs, arguments.rounds)):
            free.put(first if number == 0 else first.copy(self.directory / f"kill-{number}" / "project"))

        def play(drawn: kill.Round) -> None:
            workspace = free.get()
            number, hit, inside, wrong = drawn.number, 0, 0, None
            try:
                hit, inside = kill.play(workspace, drawn, references)
            except Exception as error:
                wrong = error
            what = ", ".join(
                f"{blow.whom}{f' of {blow.processes}' if blow.processes else ''} at {blow.when}"
                f" {blow.number if blow.when in ('write', 'record') else ''}+{blow.delay:.3f} s"
                for blow in drawn.kills
            )
            again = (
                f" (python -m tests.soak --case kill --seed {arguments.seed} --first {number} --rounds 1)"
                if wrong
                else ""
            )
            self.count(
                "kill", f"round {number}, {what}, {hit} hit, {inside} inside a write{again}", hit, wrong, workspace
            )
            free.put(workspace)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(play, rounds))

    def corruption(self) -> None:
        """Damage what the store holds."""
        corruption.run(
            self.directory / "corruption" / "project",
            self.count,
            every_byte=self.arguments.rounds >= 10,
            stages=self.arguments.rounds >= 10,
        )

    def disk(self) -> None:
        """Run out of space."""
        disk.run(self.directory / "disk" / "project", self.count, short=self.arguments.rounds < 10)

    def outage(self) -> None:
        """Lose the tracking server."""
        outage.run(self.directory / "outage" / "project", self.count)

    def start(self) -> None:
        """Start many at once on an empty store."""
        start.run(self.directory / "start" / "project", self.count)


CASES = ("kill", "corruption", "disk", "outage", "start")


def main() -> int:
    """Returns the exit code: 0 if every round ended right."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=100,
        help="rounds of kills; below 10 the other cases are cut short, too (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides all that is random (default: %(default)s)")
    parser.add_argument(
        "--case", choices=CASES, action="append", help="only this one; may be given several times (default: all)"
    )
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="number of the first round of kills, to play one again (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="rounds of kills that are played at once (default: %(default)s)"
    )
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="surefoot-soak-"))
    soak = Soak(arguments, directory)
    for case in arguments.case or CASES:
        try:
            getattr(soak, case)()
        except Exception as error:  # in the middle of a case: what was played before it still counts
            soak.count(case, f"broke off (seed {arguments.seed}; see {directory / case})", wrong=error)
            soak.kept.append(directory / case)
    if not soak.kept and soak.right == soak.rounds:
        shutil.rmtree(directory)
    else:
        print(f"kept: {directory}")
    print(f"soak: {soak.rounds} rounds, {soak.kills} kills, {soak.right} ended right", flush=True)
    return int(soak.right != soak.rounds)


if __name__ == "__main__":
    sys.exit(main())
