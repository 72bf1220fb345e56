"""train: minibatch SGD from the batch store to the chosen model."""

import csv
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from surefoot import errors, files, onnx_export, runs, tracking
from surefoot.data.store import Store, open_store
from surefoot.errors import Stopped, UserError
from surefoot.params import Params, load
from surefoot.training import numerics

if TYPE_CHECKING:
    from surefoot.training.sgd import Batches
    from surefoot.training.trajectory import Chain, Segment
    from surefoot.training.trajectory_store import Record, TrajectoryStore


def main() -> None:
    """Read `data/batches/`; write the chosen model and the history; bring the run to MLflow."""
    check = _parent_check()  # before the imports, which take seconds
    params = load(files.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic)
    from surefoot.training.model import to_bytes
    from surefoot.training.trajectory import network_of
    from surefoot.training.trajectory_store import TrajectoryStore

    batches = open_store(files.BATCHES)
    plan = runs.plan(params, batches)
    store = TrajectoryStore(files.trajectory())
    locks = files.Locks(store.path / "lock")
    run = runs.mark(params, batches, plan) | {"continues": _continued(store, plan)}
    if params.train.onnx:  # before hours of training: can it be exported?
        onnx_export.export(network_of(to_bytes(plan.make().state())), run["model"], run["examples"])
    tracker = tracking.Tracker(plan.identity, tracking.Description(**run["description"]), locks)
    known = store.runs().get(plan.identity, run)
    run["results"] = known.get("results", {})
    store.mark_run(plan.identity, known)
    try:
        tracker.open("RUNNING")
        for identity, epoch in run["continues"]:
            tracker.continues(identity, epoch)
        with _chain(params, batches, plan, store, locks, check) as chain:
            history = _follow(chain, tracker, params.train.epochs, params.train.save_every)
            run |= {"last": history[-1]["key"], "best": min(history, key=lambda record: record["metrics"]["validation/loss"])["key"]}
            weights = chain.weights(run[params.train.select])
            run["weights"] = files.sha256(weights)
            files.write_bytes(files.MODEL, weights)
        files.write_bytes(files.HISTORY, _table(history))
        store.mark_run(plan.identity, run)
        tracker.open()  # once more, if MLflow was out of reach
        runs.complete(tracker, run, store)
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, Stopped) else "FAILED")
        raise


def _follow(chain: "Chain", tracker: tracking.Tracker, epochs: int, save_every: int) -> "list[Record]":
    """Walk the chain to its end; each epoch goes to the terminal and to MLflow. Returns the record of each."""
    from surefoot.training.sgd import Diverged

    history: list[Record] = []
    there = tracker.artifacts("checkpoints") if save_every else set()
    try:
        for reached in chain.follow():
            history.append(reached.record)
            tracker.add(runs.points(reached.record))
            if reached.trained:
                _report(reached.record, epochs)
            path = runs.checkpoint(len(history))
            if save_every and len(history) % save_every == 0 and path not in there:
                weights = chain.stored_weights(reached.record["key"])  # now, as `keep_states` may drop the state before the end
                if weights:
                    tracker.artifact(path, weights)
    except (Diverged, Stopped) as stopped:
        weights = chain.stored_weights(history[-1]["key"]) if history else None
        if weights:
            tracker.artifact("checkpoints/last.safetensors", weights)
        if isinstance(stopped, Stopped):
            raise
        kept = f"the state of epoch {len(history)} is kept" if history else "no epoch was finished, so no state is kept"
        where = f", and as checkpoints/last.safetensors in the MLflow run {tracker.run_id}" if history and tracker.run_id else ""
        raise UserError(f"training diverged in epoch {stopped.epoch}: {stopped}; try a smaller train.lr\n{kept}{where}") from None
    return history


def _chain(params: Params, batches: Store, plan: runs.Plan, store: "TrajectoryStore", locks: files.Locks, check: Callable[[], None]) -> "Chain":
    def lock(key: str) -> AbstractContextManager[None]:
        return locks.held(key, lambda pid: print(f"waiting: process {pid or 'unknown'} is training these steps", flush=True))

    return runs.chain(
        params,
        batches,
        plan,
        store,
        keep_states=params.train.keep_states,
        lock=lock,
        check=check,
        watch=lambda minibatches, segment: _progress_bar(minibatches, segment, params.train.epochs),
        say=lambda text: print(text, flush=True),
    )


def _parent_check() -> Callable[[], None]:
    """Stops a training whose DVC was killed: `dvc repro` would start a second one beside it."""
    parent = os.getppid() if "DVC_STAGE" in os.environ else None

    def check() -> None:
        if parent and os.getppid() != parent:
            print("the dvc process that started this training is gone", file=sys.stderr)
            raise Stopped(signal.SIGHUP)

    return check


def _continued(store: "TrajectoryStore", plan: runs.Plan) -> list[list[Any]]:
    """The longest finished run that this one goes on from, if there is one, and the epoch at which that ended."""
    keys = {key: epoch for epoch, key in enumerate(plan.epoch_keys[:-1], 1)}
    shorter: list[list[Any]] = [[identity, keys[run["last"]]] for identity, run in store.runs().items() if run["last"] in keys]
    return sorted(shorter, key=lambda found: found[1])[-1:]


def _report(record: "Record", epochs: int) -> None:
    metrics = "  ".join(f"{name} {record['metrics'][name]:.4f}" for name in runs.metric_names(record)[:-1])
    seconds, rows = record["seconds"], record["rows"]
    print(f"epoch {record['epoch']:{len(str(epochs))}}/{epochs}  {metrics}  ({seconds:.2f} s, {rows / seconds:,.0f} rows/s)", flush=True)


def _progress_bar(minibatches: "Batches", segment: "Segment", epochs: int) -> "Batches":
    """A bar over the minibatches where a terminal is attached; it vanishes when they are done."""
    if not sys.stderr.isatty():
        return minibatches
    from tqdm import tqdm

    return tqdm(minibatches, desc=f"epoch {segment.epoch}/{epochs}", total=len(segment.lrs), unit="batch", leave=False)


def _table(history: "list[Record]") -> bytes:
    """The history as CSV; floats as the shortest text that reads back as the same number."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ("epoch", *runs.metric_names(history[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": record["epoch"], **record["metrics"]} for record in history)
    return text.getvalue().encode()


if __name__ == "__main__":
    errors.run(main)
