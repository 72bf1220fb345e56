"""`python -m benchmarks.scaling`: what docs/scaling.md says of more processes, from constants that were measured."""

from surefoot.evaluation.plots.figures import BLUE, GREY, ORANGE, new_figure, to_png

COMPUTE, OWN = 0.088, 0.001  # seconds a step of one process: forward and backward; optimizer and adding up
NUMBERS = 67_000  # that are added up
LATENCY, BYTES = 55e-6, 1.3e9  # of a message, in seconds; a second between two processes: gloo on loopback


MEASURED = {2: 78.2 / 47.4}  # times as fast as one process with as many shards: docs/scaling.md
PROCESSES = tuple(1 << power for power in range(11))
LARGER = 16  # times as many rows in a minibatch


def seconds_a_step(processes: int, rows: int = 1) -> float:
    """What a step takes; with so many times as many rows in a minibatch."""
    compute = rows * COMPUTE
    if processes == 1:
        return compute + OWN
    messages = 2 * LATENCY * (processes - 1)
    return compute / processes + messages + 8 * NUMBERS * (processes - 1) / processes / BYTES + OWN


def times_as_fast(processes: int, rows: int = 1) -> float:
    """How many steps are taken in the time of one by one process."""
    return seconds_a_step(1, rows) / seconds_a_step(processes, rows)


def scaling_table() -> list[str]:
    """The table as Markdown."""
    lines = ["| processes | ms a step | times as fast | of the ideal |", "| --- | --- | --- | --- |"]
    for processes in PROCESSES:
        faster = times_as_fast(processes)
        lines.append(
            f"| {processes:,} | {1000 * seconds_a_step(processes):.1f} | {faster:.1f} | {faster / processes:.0%} |"
        )
    return lines


def scaling_plot() -> bytes:
    """The same as a picture, beside larger minibatches and what was measured."""
    figure, (axes,) = new_figure(7, 3.8)
    axes.plot(PROCESSES, PROCESSES, color=GREY, linestyle="--", label="ideal")
    for rows, colour in ((LARGER, ORANGE), (1, BLUE)):
        label = f"batches of {256 * rows:,}, computed"
        axes.plot(PROCESSES, [times_as_fast(count, rows) for count in PROCESSES], color=colour, label=label)
    axes.plot(list(MEASURED), list(MEASURED.values()), "o", color=BLUE, label="batches of 256, measured")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_ylim(0.5, 256)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("processes")
    axes.set_ylabel("times as fast as one")
    axes.set_title("A step of networks.cnn on images of 28 x 28")
    axes.legend()
    axes.grid(alpha=0.3)
    return to_png(figure)


if __name__ == "__main__":
    print("\n".join(scaling_table()))
