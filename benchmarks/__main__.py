"""`python -m benchmarks`: measure, then print a table of figures beside their targets."""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks import day, pipeline, scale, tables
from benchmarks.workload import ROOT, Workload, call_worker
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params

EPOCH_OVER_BARE = 1.05
EPOCH_OVER_TUTORIAL = 0.65
MEMORY_OVER_BARE = 1.1
PIPELINE_OVER_PARTS = 1.5
DAY_OVER_PARTS = 2
DAY_OVER_SCRIPT = 0.9
DAY_CPU = 12  # seconds
FIRST_EPOCH_CPU = 2.5
KEPT_OVER_NOT = 1.03
RECORDED_OVER_EAGER = {  # by workload and profile
    ("large", "native"): 0.52,
    ("large", "portable"): 0.60,
    ("small", "native"): 0.38,
    ("cnn", "native"): 0.95,
}
RECORDED_OVER_JAX = 1.3
FEATURE_OVER_HAND = 1.05
BATCH_OVER_COPY = 2.5
LIMITED_OVER_FREE = 1.3
PREPARE_OVER_PYARROW = 2.5
PARTS_OVER_ONE = 1.5
LARGE_OVER_SMALL = 1.1
SHARDS_OVER_ONE = 1.25
PROCESSES_OVER_ONE = 0.556  # 1.8 times as fast
SENT_OVER_RING = 1.1
MEMORY = 500e6  # bytes above what the imports take

SLOW_ROUNDS = 3  # at most, of memory and pipeline, where a round takes long

LARGE = Workload("60,000 x 784", 60_000, (784,), 10, 64, "networks.mlp:mlp", {"hidden": [128]}, {"lr": 0.01}, epochs=1)
SMALL = replace(LARGE, name="20,000 x 64", rows=20_000, shape=(64,), arguments={"hidden": [256]})
CNN = replace(
    LARGE, name="CNN, 4,096 x 28 x 28", rows=4_096, shape=(1, 28, 28), factory="networks.cnn:cnn", arguments={}
)
LABELS = {
    "tutorial": "tutorial loop",
    "lightning": "Lightning",
    "bare": "bare loop",
    "eager": "ours, eager",
    "ours": "ours, recorded",
    "kept": "ours, eager, chain kept",
    "compiled": "torch.compile",
    "jax": "JAX, lax.scan",
    "products": "the matrix products alone",
}
INSTALL = {"jax": "pip install jax", "lightning": "pip install '.[bench]'"}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    figure: str
    target: str = ""
    verdict: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Surefoot beside the loops that people write otherwise."
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to measure, of: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=11,
        help=f"rounds to take the median of (default: %(default)s); the others than loops take at most {SLOW_ROUNDS}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rows and epochs: to see that it runs, not for figures to quote"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="loops and processes in CPU seconds of the process, not wall: for a machine that isn't idle",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    params = load_params(ROOT / "params.yaml")
    workloads = {"large": LARGE, "small": SMALL, "digits": digits(params, epochs=10), "cnn": CNN}
    if arguments.quick:
        workloads = {
            "large": replace(LARGE, name="2,000 x 784", rows=2_000),
            "small": replace(SMALL, name="2,000 x 64", rows=2_000),
            "cnn": replace(CNN, name="CNN, 256 x 28 x 28", rows=256),
            "digits": replace(workloads["digits"], epochs=2),
        }
    rows: list[Row] = []
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="surefoot-bench-") as scratch:
            rounds = (
                arguments.rounds if part in ("loops", "features", "processes") else min(arguments.rounds, SLOW_ROUNDS)
            )
            more = {"clock": "process_time"} if part in ("loops", "processes") and arguments.cpu else {}
            rows += PARTS[part](workloads, params, rounds, Path(scratch), **more)
    print(machine(arguments.rounds, arguments.quick) + "\n")
    print(table(rows))


def digits(params: Params, epochs: int) -> Workload:
    """The project's own run: as many rows as the training split has, the network and optimizer of params.yaml."""
    train = params.train
    with (ROOT / "data" / "raw" / "digits.csv").open() as file:
        rows = round((sum(1 for _ in file) - 1) * (1 - params.prepare.validation - params.prepare.test))
    optimizer = train.model_dump(include={"lr", "momentum", "nesterov", "dampening", "weight_decay"})
    return Workload(
        "digits",
        rows,
        params.batch.shape or (64,),
        10,
        params.batch.size,
        train.model.factory,
        train.model.arguments,
        optimizer,
        epochs,
    )


def measure_loops(
    workloads: dict[str, Workload], _params: Params, rounds: int, scratch: Path, clock: str = "perf_counter"
) -> Iterator[Row]:
    for key, workload in workloads.items():
        (scratch / key).mkdir()
        call_worker("write_data", workload, scratch / key)
        native = [name for name in LABELS if name != "products" or key != "cnn"]
        for profile, contenders in (("native", native), ("portable", ["bare", "eager", "ours", "kept"])):
            progress(f"{workload.name}, {profile}: {', '.join(LABELS[name] for name in contenders)}")
            options = {"contenders": contenders, "rounds": rounds, "clock": clock}
            seconds = call_worker("time_loops", workload, scratch / key, profile, **options)
            where = f"{workload.name}, {profile}"
            for name, some in seconds.items():
                took = f"{statistics.median(some) * 1000:,.1f} ms an epoch" if some else ""
                yield Row(f"{where}: {LABELS[name]}", took or f"not installed ({INSTALL[name]})")
            yield from _loop_ratios(key, profile, where, seconds)


def _loop_ratios(key: str, profile: str, where: str, seconds: dict[str, list[float]]) -> Iterator[Row]:
    """What the loops of a workload took beside one another."""
    of_large = key == "large"
    for ours, theirs, at_most in (
        ("ours", "tutorial", EPOCH_OVER_TUTORIAL if key != "cnn" else None),  # in which nearly all is arithmetic
        ("ours", "bare", EPOCH_OVER_BARE),
        ("ours", "eager", RECORDED_OVER_EAGER.get((key, profile))),
        ("ours", "compiled", None),
        ("ours", "jax", RECORDED_OVER_JAX if of_large else None),
        ("ours", "products", None),
        # Epochs of a few milliseconds are shorter than making one durable: the target is for the large workload.
        ("kept", "eager", KEPT_OVER_NOT if of_large else None),
    ):
        if seconds.get(theirs):
            what = f"{where}: {LABELS[ours]} / {LABELS[theirs]}"
            yield ratio_row(what, seconds[ours], seconds[theirs], at_most)


def measure_memory(workloads: dict[str, Workload], params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    workload = workloads["large"]
    call_worker("write_data", workload, scratch)
    peaks: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(rounds):
        progress(f"peak memory: round {number + 1} of {rounds}")
        for contender, some in peaks.items():
            some.append(call_worker("peak_memory", workload, scratch, params.numerics, contender=contender))
    for contender, some in peaks.items():
        how = (
            "rows in memory"
            if contender == "bare"
            else "rows memory-mapped; the pages of the file that were read count"
        )
        yield Row(
            f"{workload.name}: peak memory of {LABELS[contender]}",
            f"{statistics.median(some) / 2**20:,.0f} MiB ({how})",
        )
    yield ratio_row(f"{workload.name}: peak memory, ours / bare", peaks["ours"], peaks["bare"], MEMORY_OVER_BARE)


def measure_pipeline(workloads: dict[str, Workload], params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    # The same run, so as many epochs as the pipeline trains.
    workload = replace(workloads["digits"], epochs=params.train.epochs)
    measured: list[dict[str, float]] = []
    for number in range(rounds + 1):  # the first warms the file cache up
        progress(f"dvc repro: round {number} of {rounds}" if number else "dvc repro: warm-up")
        with tempfile.TemporaryDirectory(dir=scratch) as project:
            measured.append(pipeline.measure_round(Path(project), workload, params.numerics))
    seconds = {name: [one[name] for one in measured[1:]] for name in measured[0]}

    def median(name: str) -> str:
        return f"{statistics.median(seconds[name]):.2f} s"

    yield Row("dvc repro, lr bumped", median("lr bumped"))
    yield Row("dvc repro, nothing to do", median("nothing to do"))
    yield Row("dvc repro, from scratch", median("scratch"))
    each = ", ".join(f"{name} {median('import ' + name)}" for name in pipeline.IMPORTS)
    yield Row("imports of its five processes", f"{median('imports')} ({each})")
    yield Row(f"bare training of the same run, {workload.epochs} epochs", median("bare training"))
    parts = [imports + training for imports, training in zip(seconds["imports"], seconds["bare training"], strict=True)]
    yield ratio_row(
        "dvc repro from scratch / imports and bare training", seconds["scratch"], parts, PIPELINE_OVER_PARTS
    )


def measure_day(workloads: dict[str, Workload], params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    workload = replace(workloads["digits"], epochs=params.train.epochs)
    project = scratch / "project"
    project.mkdir()
    pipeline.copy(project)
    pipeline.repro(project)
    measured = []
    for number in range(rounds + 1):  # the first warms the file cache up
        progress(f"the loop of a day: round {number} of {rounds}" if number else "the loop of a day: warm-up")
        measured.append(day.measure_round(project, workload, params.numerics, number + 1))
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
    yield ratio_row("a day: dvc repro / torch twice, DVC and the bare training", clock["ours"], parts, DAY_OVER_PARTS)
    yield ratio_row("a day: dvc repro / the script", clock["ours"], clock["script"], DAY_OVER_SCRIPT)
    for what, name, most in (
        ("a day: CPU of dvc repro", "ours", DAY_CPU),
        ("a day: CPU of train's own process to its first epoch", "first epoch", FIRST_EPOCH_CPU),
    ):
        middle = statistics.median(cpu[name])
        verdict = "reached" if middle <= most else "missed"
        yield Row(what, f"{middle:.2f} s", f"at most {most:g} s", verdict)
    pipeline.bump_lr(project, 0.02)
    for stage in ("train", "evaluate"):
        shares = (f"{name} {seconds:.2f} s" for name, seconds in day.profile(project, stage).items() if seconds > 0.02)
        yield Row(f"a day: seconds of {stage}", ", ".join(shares))


def measure_scale(workloads: dict[str, Workload], params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    quick = workloads["large"].rows < LARGE.rows
    small, large = sizes = (300_000_000, 600_000_000) if quick else (500_000_000, 5_000_000_000)
    names = " and ".join(f"{size / 1e9:g} GB" for size in sizes)
    workload = workloads["large"]
    found = []
    for number in range(rounds):
        progress(f"data of {names}: round {number + 1} of {rounds}")
        found.append(scale.measure(workload, scratch, params.numerics, sizes))
    seconds = [one["batch"][-1]["seconds"] for one in found]
    yield ratio_row(
        f"batch of {large / 1e9:g} GB / copying it to the same disk",
        seconds,
        [one["copy"] for one in found],
        BATCH_OVER_COPY,
    )
    for what, name in (("batch", "batch"), ("full", "train, full"), ("blocks", "train, blocks")):
        peaks = [[one[what][place]["bytes"] for one in found] for place in (0, 1)]
        most = max(map(max, peaks))
        verdict = "reached" if most < MEMORY else "missed"
        yield Row(
            f"{name}: peak memory above its imports, {names}",
            f"{most / 1e6:,.0f} MB",
            f"at most {MEMORY / 1e6:.0f} MB",
            verdict,
        )
        yield ratio_row(
            f"{name}: that of {large / 1e9:g} GB / of {small / 1e9:g} GB", peaks[1], peaks[0], LARGE_OVER_SMALL
        )
    what = "train, blocks: memory of a quarter of its data / no limit"
    if all(one["limited"] for one in found):
        yield ratio_row(what, [one["limited"] for one in found], [one["free"] for one in found], LIMITED_OVER_FREE)
    else:
        yield Row(what, "no control group can be made here")
    progress("digits, 10 seeds: full and blocks")
    some = call_worker("accuracy", replace(workloads["digits"], epochs=30), scratch, seeds=2 if quick else 10)
    for name, values in some.items():
        off = statistics.stdev(values) / len(values) ** 0.5
        yield Row(f"digits, {name}: test accuracy", f"{statistics.mean(values):.4f} ± {off:.4f}")
    differences = [ours - theirs for ours, theirs in zip(*list(some.values())[:2], strict=True)]
    noise = 2 * statistics.stdev(differences) / len(differences) ** 0.5
    middle = statistics.mean(differences)
    yield Row(
        "digits: full - blocks",
        f"{middle:+.4f}",
        f"within {noise:.4f}, two standard errors",
        "reached" if abs(middle) <= noise else "missed",
    )


def measure_tables(workloads: dict[str, Workload], _params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    quick = workloads["large"].rows < LARGE.rows
    sizes = (20_000_000, 50_000_000) if quick else (500_000_000, 5_000_000_000)
    names = " and ".join(f"{size / 1e9:g} GB" for size in sizes)
    found = []
    for number in range(rounds):
        progress(f"CSV of {names}: round {number + 1} of {rounds}")
        found.append([tables.measure(scratch, size) for size in sizes])
    large = f"{sizes[1] / 1e9:g} GB of CSV"

    def seconds(name: str) -> list[float]:
        return [one[1][name][0] for one in found]

    yield ratio_row(
        f"prepare of {large} / pyarrow, CSV to Parquet", seconds("prepare"), seconds("pyarrow"), PREPARE_OVER_PYARROW
    )
    yield ratio_row(
        f"the stage batch after it, reading tables and all / copying its output, {large}",
        seconds("batch"),
        seconds("copy"),
        BATCH_OVER_COPY,
    )
    for name in ("prepare", "batch"):
        peaks = [[one[place][name][1] - one[place]["imports"][1] for one in found] for place in (0, 1)]
        most = max(map(max, peaks))
        yield Row(
            f"{name}: peak memory above its imports, {names}",
            f"{most / 1e6:,.0f} MB",
            f"at most {MEMORY / 1e6:.0f} MB",
            "reached" if most < MEMORY else "missed",
        )
        whole = [[one[place][name][1] for one in found] for place in (0, 1)]
        yield ratio_row(
            f"{name}: peak memory, {sizes[1] / 1e9:g} GB / {sizes[0] / 1e9:g} GB", whole[1], whole[0], LARGE_OVER_SMALL
        )
    size, parts = (20_000_000, 1_000) if quick else (500_000_000, tables.PARTS)
    some = []
    for number in range(rounds):
        progress(f"{parts:,} part files: round {number + 1} of {rounds}")
        some.append(tables.measure_parts(scratch, size, parts))
    yield ratio_row(
        f"prepare of {parts:,} part files / of one, {size / 1e6:.0f} MB",
        [one["many"] for one in some],
        [one["one"] for one in some],
        PARTS_OVER_ONE,
    )


def measure_features(workloads: dict[str, Workload], _params: Params, rounds: int, scratch: Path) -> Iterator[Row]:
    workload = workloads["large"]
    call_worker("write_data", workload, scratch)
    progress(f"{workload.name}: features of a step")
    for name, seconds in call_worker("time_features", workload, scratch, rounds=rounds).items():
        yield ratio_row(
            f"{workload.name}, native, {name}: ours / by hand", seconds["ours"], seconds["hand"], FEATURE_OVER_HAND
        )


def measure_processes(
    workloads: dict[str, Workload], params: Params, rounds: int, scratch: Path, clock: str = "perf_counter"
) -> Iterator[Row]:
    progress("processes: the CNN by 1, 2 and 8 shards, by one process and by two")
    found = call_worker("time_processes", workloads["cnn"], scratch, params.numerics, rounds=rounds)
    name = "wall" if clock == "perf_counter" else "cpu"
    where = "CNN, batches of 256"
    for way, values in found.items():
        yield Row(f"{where}: {way}", f"{1000 * statistics.median(values[name]):.1f} ms a step")
    for ours, theirs, at_most in (
        ("8 shards", "1 shard, eager", SHARDS_OVER_ONE),
        ("2 shards, 2 processes", "2 shards", PROCESSES_OVER_ONE),
    ):
        yield ratio_row(f"{where}: {ours} / {theirs}", found[ours][name], found[theirs][name], at_most)
    sent = found["2 shards, 2 processes"]["sent"]
    yield ratio_row(f"{where}: bytes sent / by a ring all-reduce", sent, [1.0] * len(sent), SENT_OVER_RING)


PARTS = {
    "loops": measure_loops,
    "features": measure_features,
    "memory": measure_memory,
    "pipeline": measure_pipeline,
    "day": measure_day,
    "scale": measure_scale,
    "tables": measure_tables,
    "processes": measure_processes,
}


def ratio_row(what: str, ours: list[float], theirs: list[float], at_most: float | None) -> Row:
    """The median of the ratios within each round, and their range."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(ratios)
    figure = f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    if at_most is None:
        return Row(what, figure)
    return Row(what, figure, f"at most {at_most}", "reached" if middle <= at_most else "missed")


def machine(rounds: int, quick: bool) -> str:
    """One line on what was measured on."""
    try:
        cpu = next(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    quoting = "; --quick: not for quoting" if quick else ""
    return (
        f"{cpu}, {os.cpu_count()} cores; {versions}; medians of {rounds} rounds (but for loops:"
        f" {min(rounds, SLOW_ROUNDS)}){quoting}"
    )


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table that reads well as plain text."""
    cells = [("what", "measured", "target", ""), *((row.what, row.figure, row.target, row.verdict) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
