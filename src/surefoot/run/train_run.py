"""One training: from the batches to the chosen model, the history, and the run in MLflow."""

from collections.abc import Callable

from surefoot.base import paths, terminal, writing
from surefoot.base.locks import Locks
from surefoot.data.batch_store import open_store
from surefoot.params import dvc_yaml
from surefoot.params.sections import Params
from surefoot.run import start_from
from surefoot.run.choose_epoch import choose_epoch
from surefoot.run.follow import follow_chain, open_chain, tracked_run
from surefoot.run.history import history_csv
from surefoot.run.plan.planning import Plan, plan_run
from surefoot.run.processes.leader import Leader
from surefoot.run.record import Record, RunRecord
from surefoot.run.record_training import begun_record, finished_record, note_epochs
from surefoot.run.run_file import write_run_file
from surefoot.run.sharing.start_sharing import sharing
from surefoot.run.start_tracking import Tracking
from surefoot.run.stopping import time_check
from surefoot.run.trajectory_store import TrajectoryStore, open_trajectory_store
from surefoot.tracking import tag_names


def train_run(
    params: Params,
    leader: Leader | None,
    tracking: Tracking,
    check_parent: Callable[[], None],
    judge: Callable[[Record], str | None],
) -> None:
    """Read `data/batches/`; write the chosen model and the history; bring the run to MLflow.

    Args:
        params: by which numerics are pinned.
        leader: of the processes that train, where they are several.
        tracking: the process that writes to MLflow.
        check_parent: is called now and then; raises `Stopped` where nobody waits for this process any more.
        judge: as the stage train takes it.

    Raises:
        Pruned: as `judge` says.
    """
    writing.remove_measured()
    dvc_yaml.require_watched(params, "train")
    plan = plan_run(params, open_store(paths.BATCHES), leader)
    if leader:
        leader.begin(plan.origin)
    store = open_trajectory_store(plan.origin)
    if store.shared:
        store.fits = plan.state_check()
    _keep_start(plan, store)
    run, known = begun_record(plan, store)
    store.bring_records(run.epoch_keys)
    _announce(plan, run)
    if params.train.onnx:  # before hours of training: can it be exported?
        from surefoot.serving import onnx_export

        onnx_export.export(plan.first_network(), run.network, run.examples)
    store.mark_run(known)
    checks, locks = (check_parent, time_check(params.train.max_minutes)), Locks(store.path / "lock")
    with sharing(store), tracked_run(tracking, plan, run, known):
        if params.train.shards > 1:
            tracking.tell("set_tags", tags={tag_names.PROCESSES: str(leader.size if leader else 1)})
        with open_chain(plan, store, locks, tracking, checks) as chain:
            history, incomplete = follow_chain(chain, plan, tracking, judge, note_epochs(run, known, store))
            chosen = choose_epoch(params.train.select, history)
            weights = chain.weights(chosen.key, params.train.select.endswith("_average"))
        finished = finished_record(run, history, chosen, weights, incomplete, store)
        writing.write_bytes(paths.MODEL, weights)
        write_run_file(plan, finished, chain.segments)
        writing.write_bytes(paths.HISTORY, history_csv(history))
        store.mark_run(finished)
        tracking.finish("publish_training", size=len(weights))


def _keep_start(plan: Plan, store: TrajectoryStore) -> None:
    """Keep what it starts from, for the run in MLflow, now or by `surefoot sync`."""
    start = plan.inputs.start
    if start and start.weights is not None:
        store.keep_start(str(start.note.weights), start.weights)


def _announce(plan: Plan, run: RunRecord) -> None:
    """Say what is worth knowing before the first epoch."""
    inputs, train = plan.inputs, plan.inputs.params.train
    if inputs.start:
        terminal.print_lines(start_from.start_line(inputs.start.note, inputs.batches, inputs.batches.only))
    if train.lr_reference_batch:
        terminal.print_lines(
            f"lr {train.lr:g} for {train.lr_reference_batch} rows in a step is scaled to {inputs.lr:g} for"
            f" {inputs.rows_per_step} (train.lr_reference_batch)"
        )
    if why := run.description.tags.get(tag_names.NO_GIT):
        terminal.warn(
            f"this run is recorded without its commit and changes, so `surefoot verify` can't make it again: {why}"
        )
