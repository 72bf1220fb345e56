"""The loop of a day: `dvc repro` after another learning rate."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import day, pipeline
from benchmarks.report import Row, figure_row, progress, ratio_row
from benchmarks.workload import Asked

OVER_PARTS, OVER_SCRIPT = 2, 0.9
CPU, FIRST_EPOCH_CPU = 12, 2.5  # seconds


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    workload = replace(asked.workloads["digits"], epochs=asked.params.train.epochs)
    project = asked.scratch / "project"
    project.mkdir()
    pipeline.copy(project)
    pipeline.repro(project)
    measured = []
    for number in range(asked.rounds + 1):  # the first warms the file cache up
        progress(f"the loop of a day: round {number} of {asked.rounds}" if number else "the loop of a day: warm-up")
        measured.append(day.measure_round(project, workload, asked.params.numerics, number + 1))
    clock, cpu = ({name: [one[name][which] for one in measured[1:]] for name in measured[0]} for which in (0, 1))

    def row(what: str, name: str) -> Row:
        return Row(what, f"{statistics.median(clock[name]):.2f} s, {statistics.median(cpu[name]):.2f} s of CPU")

    yield row("a day: dvc repro after another lr", "ours")
    yield row("a day: a script that does the same in one process", "script")
    yield row("a day: DVC alone, with nothing to do", "dvc")
    yield row("a day: importing torch", "torch")
    yield Row(f"a day: bare training, {workload.epochs} epochs", f"{statistics.median(clock['training']):.2f} s")
    without = zip(clock["torch"], clock["dvc"], clock["training"], strict=True)
    parts = [2 * torch + dvc + training for torch, dvc, training in without]
    yield ratio_row("a day: dvc repro / torch twice, DVC and the bare training", clock["ours"], parts, OVER_PARTS)
    yield ratio_row("a day: dvc repro / the script", clock["ours"], clock["script"], OVER_SCRIPT)
    for what, name, most in (
        ("a day: CPU of dvc repro", "ours", CPU),
        ("a day: CPU of train's own process to its first epoch", "first epoch", FIRST_EPOCH_CPU),
    ):
        yield figure_row(what, statistics.median(cpu[name]), most, "s")
    pipeline.bump_lr(project, 0.02)
    for stage in ("train", "evaluate"):
        shares = (f"{name} {seconds:.2f} s" for name, seconds in day.profile(project, stage).items() if seconds > 0.02)
        yield Row(f"a day: seconds of {stage}", ", ".join(shares))
