"""What must hold whatever happens: `python -m tests.soak`.

Each round is drawn from (seed, round), so that it can be run again.
"""
