"""`python -m benchmarks.scaling`: what docs/scaling.md says of more processes, from constants that were measured."""

COMPUTE, OWN = 0.088, 0.001  # seconds a step of one process: forward and backward; optimizer and adding up
NUMBERS = 67_000  # that are added up
LATENCY, BYTES = 55e-6, 1.3e9  # of a message, in seconds; a second between two processes: gloo on loopback


def seconds_a_step(processes: int) -> float:
    """What a step takes."""
    if processes == 1:
        return COMPUTE + OWN
    messages = 2 * LATENCY * (processes - 1)
    return COMPUTE / processes + messages + 8 * NUMBERS * (processes - 1) / processes / BYTES + OWN


def scaling_table() -> list[str]:
    """The table as Markdown."""
    lines = ["| processes | ms a step | times as fast | of the ideal |", "| --- | --- | --- | --- |"]
    for power in range(11):
        processes = 1 << power
        seconds = seconds_a_step(processes)
        faster = seconds_a_step(1) / seconds
        lines.append(f"| {processes:,} | {1000 * seconds:.1f} | {faster:.1f} | {faster / processes:.0%} |")
    return lines


if __name__ == "__main__":
    print("\n".join(scaling_table()))
