"""95 % intervals of test metrics: how far they may be off because the test rows are these and not others."""

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from surefoot.evaluation.metrics import Classes, Floats, Scored

Interval = tuple[float, float]
Indices = NDArray[np.int64]

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations
RESAMPLES = 1000
ROWS = 10_000  # in a resample at most: of more rows it takes a sample, and its spread is scaled down
UNBOUNDED = ("loss", "mae", "rmse")  # what can be more than 1
CELLS = 4_000_000  # numbers in memory at a time


def wilson(successes: float, trials: float) -> Interval:
    """Wilson's score interval of a share. It holds for few trials, too, and at 0 and 1; without any it is 0 to 1."""
    # Not scipy's, which gives other last bits in three of four cases, and takes seconds to import.
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, Z * Z / trials
    middle, half = share + square / 2, Z * sqrt(share * (1 - share) / trials + square / trials / 4)
    # At the ends rounding would leave 1e-17 of it.
    return (0.0 if successes == 0 else (middle - half) / (1 + square)), (
        1.0 if successes == trials else (middle + half) / (1 + square)
    )


def metric_intervals(tested: Scored, seed: int) -> dict[str, Interval]:
    """Intervals of the test metrics, and of the loss where it is a mean over rows: Wilson's for shares of rows, else by
    the bootstrap.

    None for the calibration error, which resampling raises. To six digits, so that they are the same on every
    processor.
    """
    statistics, shares = OF_TASK[tested.task](tested)
    if tested.losses is not None:
        losses, weights = tested.losses, tested.weights
        weighted = losses if weights is None else losses * weights
        statistics["loss"] = lambda rows: weighted[rows].mean(1) / (1 if weights is None else weights[rows].mean(1))
    found = shares | bootstrap(statistics, len(tested.actual), seed, max(1, len(tested.classes)))
    return {name: (float(f"{low:.6g}"), float(f"{high:.6g}")) for name, (low, high) in found.items()}


Statistics = dict[str, Callable[[Indices], Floats]]


def bootstrap(statistics: Statistics, rows: int, seed: int, width: int = 1) -> dict[str, Interval]:
    """Intervals of statistics of rows, by the percentiles of the same resamples for all.

    Args:
        statistics: by name, functions of row numbers (resamples, n) that give a number for each resample; NaN where it
            has none.
        rows: how many there are to draw from.
        seed: of the draws.
        width: how many numbers of a resample a statistic holds in memory beside its rows.
    """
    size = min(rows, ROWS)
    every = np.arange(rows)[None]
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    with np.errstate(invalid="ignore", divide="ignore"):
        for some in _resamples(rows, size, seed, max(size, width)):
            for name, statistic in statistics.items():
                drawn[name].append(statistic(some))
        found = {}
        for name, values in drawn.items():
            there = np.concatenate(values)
            there = there[np.isfinite(there)]
            value = float(statistics[name](every)[0])
            # Where all are the same, at 1 say, an interval would claim what can't be known.
            if len(there) and np.isfinite(value) and there.min() < there.max():
                # Around the value itself, as resamples of few rows a class lie below it; and narrower by the root of
                # how many more rows there are.
                low, middle, high = np.quantile(there, [0.025, 0.5, 0.975])
                ends = value + (low - middle) * sqrt(size / rows), value + (high - middle) * sqrt(size / rows)
                limits = (-np.inf if there.min() < 0 else 0.0, np.inf if name in UNBOUNDED else 1.0)
                found[name] = (float(max(ends[0], limits[0])), float(min(ends[1], limits[1])))
    return found


def _resamples(rows: int, size: int, seed: int, width: int) -> Iterator[Indices]:
    generator = np.random.default_rng(seed)
    left = RESAMPLES
    while left:
        some = min(left, max(1, CELLS // width))
        yield generator.integers(rows, size=(some, size))
        left -= some


def _classification(tested: Scored) -> tuple[Statistics, dict[str, Interval]]:
    actual, predicted, classes = tested.actual.astype(np.int64), tested.predicted.astype(np.int64), len(tested.classes)
    right = actual == predicted
    there = np.bincount(actual, minlength=classes) > 0

    def counts(values: Classes, rows: Indices, among: NDArray[np.bool_] | None = None) -> Floats:
        places = values[rows] + np.arange(len(rows))[:, None] * classes
        counted = np.bincount(places.ravel() if among is None else places[among[rows]], minlength=len(rows) * classes)
        return counted.reshape(-1, classes)[:, there].astype(np.float64)

    def macro(share: Callable[[Floats, Floats, Floats], Floats]) -> Callable[[Indices], Floats]:
        def statistic(rows: Indices) -> Floats:
            of, taken, hits = counts(actual, rows), counts(predicted, rows), counts(actual, rows, right)
            present = of > 0
            mean: Floats = np.where(present, np.nan_to_num(share(hits, of, taken)), 0).sum(1) / present.sum(1)
            return mean

        return statistic

    statistics = {
        "precision_macro": macro(lambda hits, of, taken: hits / taken),
        "recall_macro": macro(lambda hits, of, taken: hits / of),
        "f1_macro": macro(lambda hits, of, taken: 2 * hits / (of + taken)),
    }
    return statistics, {"accuracy": wilson(right.sum(), len(right))}


def _binary(tested: Scored) -> tuple[Statistics, dict[str, Interval]]:
    actual, predicted = tested.actual > 0, tested.predicted > 0
    hits, of, taken = int((actual & predicted).sum()), int(actual.sum()), int(predicted.sum())
    shares = {
        "accuracy": wilson(int((actual == predicted).sum()), len(actual)),
        "precision": wilson(hits, taken),
        "recall": wilson(hits, of),
    }

    def f1(rows: Indices) -> Floats:
        found: Floats = np.nan_to_num(
            2 * (actual & predicted)[rows].sum(1) / (actual[rows].sum(1) + predicted[rows].sum(1))
        )
        return found

    statistics: Statistics = {"f1": f1}
    if 0 < of < len(actual):
        # Ranks from the highest score on, the same for the same scores; of very many, neighbours count as the same.
        unique, rank = np.unique(-tested.scores[:, 0], return_inverse=True)
        groups = min(len(unique), ROWS)
        rank = rank * groups // len(unique)

        def counts(rows: Indices) -> tuple[Floats, Floats]:
            places = rank[rows] + np.arange(len(rows))[:, None] * groups
            all_of, positive = (
                np.bincount(some, minlength=len(rows) * groups).reshape(-1, groups)
                for some in (places.ravel(), places[actual[rows]])
            )
            return positive.astype(np.float64), (all_of - positive).astype(np.float64)

        def roc_auc(rows: Indices) -> Floats:
            positive, negative = counts(rows)
            after = negative.sum(1, keepdims=True) - negative.cumsum(1)
            found: Floats = (positive * (after + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))
            return found

        def average_precision(rows: Indices) -> Floats:
            positive, negative = counts(rows)
            above = positive.cumsum(1)
            found: Floats = (positive * np.nan_to_num(above / (above + negative.cumsum(1)))).sum(1) / positive.sum(1)
            return found

        statistics |= {"roc_auc": roc_auc, "average_precision": average_precision}
    return statistics, shares


def _regression(tested: Scored) -> tuple[Statistics, dict[str, Interval]]:
    actual = tested.actual.astype(np.float64)
    errors = tested.predicted - actual
    statistics: Statistics = {
        "mae": lambda rows: np.abs(errors)[rows].mean(1),
        "rmse": lambda rows: np.sqrt((errors**2)[rows].mean(1)),
    }
    if actual.var():
        statistics["r2"] = lambda rows: 1 - (errors**2)[rows].mean(1) / actual[rows].var(1)
    return statistics, {}


OF_TASK = {"classification": _classification, "binary": _binary, "regression": _regression}
