"""The end of a run whose metric improves no more."""

from collections.abc import Callable

from surefoot.run.segments import Metrics


def early_stopping(metric: str, patience: int | None, min_delta: float, rises: bool) -> Callable[[Metrics], str | None]:
    """What ends a run after `patience` epochs without an improvement of a metric by more than `min_delta`; it is told
    each epoch's metrics in turn.
    """
    best: float | None = None
    since = 0

    def ends(metrics: Metrics) -> str | None:
        nonlocal best, since
        value = metrics.get(metric)
        if patience is None or value is None:  # an average has no metrics before its first epoch
            return None
        gain = None if best is None else value - best if rises else best - value
        best, since = (value, 0) if gain is None or gain > min_delta else (best, since + 1)
        return f"{metric} has not improved for {patience} epochs (train.early_stopping)" if since >= patience else None

    return ends
