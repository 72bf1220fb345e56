"""`python -m benchmarks`: measure, then print a table of figures beside their targets."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.parts import day, features, loops, memory, pipeline, processes, scale, tables
from benchmarks.report import Row, machine, table
from benchmarks.workload import ROOT, Asked, make_workloads
from surefoot.params.params_yaml import load_params

PARTS = {
    "loops": loops.measure,
    "features": features.measure,
    "memory": memory.measure,
    "pipeline": pipeline.measure,
    "day": day.measure,
    "scale": scale.measure,
    "tables": tables.measure,
    "processes": processes.measure,
}
OFTEN = ("loops", "features", "processes")
SLOW_ROUNDS = 3  # at most, of the others, where a round takes long


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
        help=f"rounds to take the median of (default: %(default)s); at most {SLOW_ROUNDS} but for {', '.join(OFTEN)}",
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
    workloads = make_workloads(params, arguments.quick)
    rows: list[Row] = []
    for part in arguments.parts or PARTS:
        rounds = arguments.rounds if part in OFTEN else min(arguments.rounds, SLOW_ROUNDS)
        clock = "process_time" if arguments.cpu else "perf_counter"
        with tempfile.TemporaryDirectory(prefix="surefoot-bench-") as scratch:
            rows += PARTS[part](Asked(workloads, params, rounds, Path(scratch), arguments.quick, clock))
    print(f"{machine(arguments.quick)}; medians of {arguments.rounds} rounds (at most {SLOW_ROUNDS} of slow parts)\n")
    print(table(rows))


if __name__ == "__main__":
    main()
