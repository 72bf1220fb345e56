"""Tables larger than memory, by the stages prepare and batch."""

from collections.abc import Iterator

from benchmarks import tables
from benchmarks.parts.scale import BATCH_OVER_COPY, LARGE_OVER_SMALL, MEMORY
from benchmarks.report import Row, figure_row, progress, ratio_row
from benchmarks.workload import Asked

PREPARE_OVER_PYARROW, PARTS_OVER_ONE = 2.5, 1.5


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    sizes = (20_000_000, 50_000_000) if asked.quick else (500_000_000, 5_000_000_000)
    names = " and ".join(f"{size / 1e9:g} GB" for size in sizes)
    found = []
    for number in range(asked.rounds):
        progress(f"CSV of {names}: round {number + 1} of {asked.rounds}")
        found.append([tables.measure(asked.scratch, size) for size in sizes])
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
        yield figure_row(f"{name}: peak memory above its imports, {names}", most / 1e6, MEMORY, "MB")
        whole = [[one[place][name][1] for one in found] for place in (0, 1)]
        yield ratio_row(
            f"{name}: peak memory, {sizes[1] / 1e9:g} GB / {sizes[0] / 1e9:g} GB", whole[1], whole[0], LARGE_OVER_SMALL
        )
    size, parts = (20_000_000, 1_000) if asked.quick else (500_000_000, tables.PARTS)
    some = []
    for number in range(asked.rounds):
        progress(f"{parts:,} part files: round {number + 1} of {asked.rounds}")
        some.append(tables.measure_parts(asked.scratch, size, parts))
    yield ratio_row(
        f"prepare of {parts:,} part files / of one, {size / 1e6:.0f} MB",
        [one["many"] for one in some],
        [one["one"] for one in some],
        PARTS_OVER_ONE,
    )
