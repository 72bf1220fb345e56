"""Functions that params.yaml may name in a schedule, right and wrong."""


def falls(n, slope=10):
    return 1 / (1 + n / slope)


def shrinks(n):
    return 0.9 if n % 2 else 0.8


def constant(x):
    return 0.5


def fails(n):
    raise ValueError("no such step")


def gives_nothing(n):
    return None


def infinite_at_first(n):
    return float("inf") if n == 0 else 1.0


def climbs(n):
    return -0.5


def exits(n):
    raise SystemExit(3)


def exits_later(n):
    return exits(n) if n else 1.0
