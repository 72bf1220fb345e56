"""Tables larger than memory: the stages prepare and batch as processes of their own, beside what they
can't do without.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.workload import ROOT
from tests.helpers import set_param

COLUMNS = 20
ROW_BYTES = 187  # of the CSV, about
BLOCK_ROWS = 50_000
PARTS = 10_000

# The same file read and written again, as Parquet, by pyarrow alone.
CONVERT = """
import sys
import pyarrow.csv as csv, pyarrow.parquet as pq
reader = csv.open_csv(sys.argv[1])
with pq.ParquetWriter(sys.argv[2], reader.schema) as writer:
    for batch in reader:
        writer.write_batch(batch)
"""
IMPORTS = "import surefoot.stages.prepare, surefoot.stages.batch"


def write_csv(path: Path, size: int) -> None:
    """About `size` bytes of numbers and a target of ten classes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as csv

    numbers = np.random.default_rng(0)
    names = [f"x{number}" for number in range(COLUMNS)]
    schema = pa.schema([(name, pa.float32()) for name in names] + [("y", pa.int64())])
    with csv.CSVWriter(path, schema) as writer:
        for _ in range(max(1, size // (ROW_BYTES * BLOCK_ROWS))):
            columns = numbers.standard_normal((COLUMNS, BLOCK_ROWS), dtype=np.float32).round(6)
            writer.write_batch(
                pa.record_batch([*map(pa.array, columns), pa.array(numbers.integers(10, size=BLOCK_ROWS))], schema)
            )


def cut(path: Path, parts: int) -> None:
    """The same rows in the directory `parts` beside it, as so many files with a header each."""
    directory = path.with_name("parts")
    directory.mkdir()
    lines = path.read_bytes().splitlines(keepends=True)
    size = -(-(len(lines) - 1) // parts)
    for number in range(parts):
        (directory / f"part-{number:05}.csv").write_bytes(
            lines[0] + b"".join(lines[1 + number * size : 1 + (number + 1) * size])
        )


def project(directory: Path) -> Path:
    """A place to run the stages in."""
    shutil.copy(ROOT / "params.yaml", directory)
    for key, value in {"prepare.target": "y", "batch.shape": "null"}.items():
        set_param(directory / "params.yaml", key, value)
    (directory / "data/raw").mkdir(parents=True)
    return directory


def stage(name: str, directory: Path, source: str = "data/raw/table.csv") -> tuple[float, int]:
    """Seconds that a stage takes, and its peak memory in bytes."""
    set_param(directory / "params.yaml", "prepare.source", source)
    return timed([sys.executable, "-m", f"surefoot.stages.{name}"], directory)


def timed(command: list[str], directory: Path) -> tuple[float, int]:
    """Seconds and peak memory of a process."""
    start = time.perf_counter()
    # Not this process's own peak, which a child that is forked begins with: `env` starts small.
    with subprocess.Popen(
        ["env", *command], cwd=directory, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command}: exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(scratch: Path, size: int) -> dict[str, tuple[float, int]]:
    """One round on a CSV file of about `size` bytes: seconds and peak memory of each."""
    (scratch / str(size)).mkdir()
    directory = project(scratch / str(size))
    table = directory / "data/raw/table.csv"
    write_csv(table, size)
    found = {
        "imports": timed([sys.executable, "-c", IMPORTS], directory),
        "pyarrow": timed([sys.executable, "-c", CONVERT, str(table), str(directory / "table.parquet")], directory),
        "prepare": stage("prepare", directory),
        "batch": stage("batch", directory),
    }
    copied = timed(["sh", "-c", "cp -r data/batches copied && sync copied/train/inputs.npy"], directory)
    shutil.rmtree(directory)
    return found | {"copy": copied}


def measure_parts(scratch: Path, size: int, parts: int) -> dict[str, float]:
    """One round: seconds of prepare on one file, and on the same rows in many."""
    (scratch / "many").mkdir()
    directory = project(scratch / "many")
    write_csv(directory / "data/raw/table.csv", size)
    cut(directory / "data/raw/table.csv", parts)
    found = {"one": stage("prepare", directory)[0], "many": stage("prepare", directory, "data/raw/parts")[0]}
    shutil.rmtree(directory)
    return found
