"""One trial of a search: the stage train, which may be pruned after each epoch.

    python -m surefoot.commands.search.trial TRIAL.json

The file says `metric`, `rises` and `bars`; afterwards it also says what came out: `state`, `value`, `epochs`, `why`;
and `metrics`, those that there are.
"""

import json
import sys
from pathlib import Path
from typing import Any

from surefoot.base import errors, paths, writing
from surefoot.params.params_yaml import load_params
from surefoot.run.choose_epoch import choose_epoch
from surefoot.run.record import Record
from surefoot.run.stopping import Pruned
from surefoot.stages import train

LATER = "validation/average_"  # metrics that begin with train.average.start


def main() -> None:
    """Run the stage train in the current directory."""
    path = Path(sys.argv[1])
    trial: dict[str, Any] = json.loads(path.read_text())
    metric, bars, rises = trial["metric"], trial["bars"], trial["rises"]
    records: list[Record] = []

    def values() -> list[float | None]:
        return [record.metrics.get(metric) for record in records]

    def judge(record: Record) -> str | None:
        records.append(record)
        if metric not in record.metrics and not metric.startswith(LATER):
            return f"no metric {metric!r} is logged"
        bar = bars[len(records) - 1] if len(records) <= len(bars) else None
        known = [value for value in values() if value is not None]
        if bar is None or not known:
            return None
        best = max(known) if rises else min(known)
        worse = best < bar if rises else best > bar
        return f"{metric} {best:.4g} is worse than {bar:.4g}, the median of the trials before" if worse else None

    state, value, why = "complete", None, ""
    try:
        train.main(judge)
        value = choose_epoch(load_params(paths.PARAMS).train.select, records).metrics.get(metric)
    except Pruned as pruned:
        state, why = "pruned", str(pruned)
    metrics = sorted({name for record in records for name in record.metrics})
    writing.write_json(
        path, trial | {"state": state, "value": value, "epochs": values(), "why": why, "metrics": metrics}
    )


if __name__ == "__main__":
    errors.run_process(main)
