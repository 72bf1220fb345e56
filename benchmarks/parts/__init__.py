"""The parts of `make bench`: what each measures in turn, its rows in the table, and their targets."""
