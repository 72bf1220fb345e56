"""What Surefoot costs beside the loops that people write otherwise. `python -m benchmarks` prints the table."""
