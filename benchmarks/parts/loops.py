"""Ways to train the same network on the same rows, in turn."""

import statistics
from collections.abc import Iterator

from benchmarks.report import Row, progress, ratio_row
from benchmarks.workload import Asked, call_worker

OVER_TUTORIAL, OVER_BARE, OVER_JAX, KEPT_OVER_NOT = 0.65, 1.05, 1.3, 1.03
RECORDED_OVER_EAGER = {  # by workload and profile
    ("large", "native"): 0.52,
    ("large", "portable"): 0.60,
    ("small", "native"): 0.38,
    ("cnn", "native"): 0.95,
}
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


def measure(asked: Asked) -> Iterator[Row]:
    """The rows of this part."""
    for key, workload in asked.workloads.items():
        (asked.scratch / key).mkdir()
        call_worker("write_data", workload, asked.scratch / key)
        native = [name for name in LABELS if name != "products" or key != "cnn"]
        for profile, contenders in (("native", native), ("portable", ["bare", "eager", "ours", "kept"])):
            progress(f"{workload.name}, {profile}: {', '.join(LABELS[name] for name in contenders)}")
            options = {"contenders": contenders, "rounds": asked.rounds, "clock": asked.clock}
            seconds = call_worker("time_loops", workload, asked.scratch / key, profile, **options)
            where = f"{workload.name}, {profile}"
            for name, some in seconds.items():
                took = f"{statistics.median(some) * 1000:,.1f} ms an epoch" if some else ""
                yield Row(f"{where}: {LABELS[name]}", took or f"not installed ({INSTALL[name]})")
            yield from _loop_ratios(key, profile, where, seconds)


def _loop_ratios(key: str, profile: str, where: str, seconds: dict[str, list[float]]) -> Iterator[Row]:
    """What the loops of a workload took beside one another."""
    of_large = key == "large"
    for ours, theirs, at_most in (
        ("ours", "tutorial", OVER_TUTORIAL if key != "cnn" else None),  # in which nearly all is arithmetic
        ("ours", "bare", OVER_BARE),
        ("ours", "eager", RECORDED_OVER_EAGER.get((key, profile))),
        ("ours", "compiled", None),
        ("ours", "jax", OVER_JAX if of_large else None),
        ("ours", "products", None),
        # Epochs of a few milliseconds are shorter than making one durable: the target is for the large workload.
        ("kept", "eager", KEPT_OVER_NOT if of_large else None),
    ):
        if seconds.get(theirs):
            what = f"{where}: {LABELS[ours]} / {LABELS[theirs]}"
            yield ratio_row(what, seconds[ours], seconds[theirs], at_most)
