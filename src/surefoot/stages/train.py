"""train: minibatch SGD from the batch store to the chosen model."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from surefoot.base import errors, paths, terminal, writing
from surefoot.base.locks import Locks
from surefoot.data.batch_store import open_store
from surefoot.params import dvc_yaml
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from surefoot.run import start_from
from surefoot.run.choose_epoch import choose_epoch
from surefoot.run.history import history_csv
from surefoot.run.pinned_params import load_and_pin, pin_by
from surefoot.run.processes import wanted
from surefoot.run.run_file import write_run_file
from surefoot.run.start_tracking import Tracking, start_tracking
from surefoot.run.stopping import parent_check, time_check
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.serving import onnx_export
from surefoot.tracking import tag_names

if TYPE_CHECKING:
    from surefoot.run.plan.planning import Plan
    from surefoot.run.processes.leader import Leader
    from surefoot.run.record import RunRecord
    from surefoot.run.trajectory_store import Record


def main(judge: "Callable[[Record], str | None]" = lambda record: None) -> None:
    """Read `data/batches/`; write the chosen model and the history; bring the run to MLflow.

    Args:
        judge: of a search; looks at each epoch in turn, and gives the reason why the trial is pruned after it, or None.

    Raises:
        Pruned: for that reason.
    """
    check_parent = parent_check()  # before the imports, which take seconds
    with start_tracking() as tracking:
        params = load_params(paths.PARAMS)
        terminal.print_lines(f"training {params.train.model.factory}")
        pin_by(params)
        from surefoot.run.processes.leader import joined_group

        with joined_group() as leader:
            _train(params, leader, tracking, check_parent, judge)


def main_of_processes() -> None:
    """As `main`; by several processes where `SUREFOOT_PROCESSES` says so, of which this may be one."""
    if not wanted.is_asked():
        main()
        return
    if wanted.is_launched() and wanted.rank() == 0:
        try:
            main()
        except errors.Stopped as stopped:  # the launcher says so
            sys.exit(128 + stopped.signum)
        return
    if wanted.is_launched():
        params = load_and_pin()
        from surefoot.run.processes.follower import follow_leader

        follow_leader(params)
        return
    check_parent, params = parent_check(), load_params(paths.PARAMS)
    processes = wanted.wanted_processes(params.train.shards, params.threads)
    if processes == 1:
        main()
        return
    wanted.seconds_to_wait()  # refused here, not by each
    from surefoot.run.processes.launch import launch

    launch(processes, params.device, check_parent, TrajectoryStore(paths.trajectory_store()).count_records)


def _train(
    params: Params,
    leader: "Leader | None",
    tracking: Tracking,
    check_parent: Callable[[], None],
    judge: "Callable[[Record], str | None]",
) -> None:
    writing.remove_measured()
    dvc_yaml.require_watched(params, "train")
    from surefoot.run.follow import follow_chain, open_chain, tracked_run
    from surefoot.run.plan.planning import plan_run
    from surefoot.run.record_training import begun_record, finished_record, note_epochs

    plan = plan_run(params, open_store(paths.BATCHES), leader)
    store = TrajectoryStore(paths.trajectory_store())
    _keep_start(plan, store)
    run, known = begun_record(plan, store)
    _announce(plan, run)
    if params.train.onnx:  # before hours of training: can it be exported?
        onnx_export.export(plan.first_network(), run.network, run.examples)
    store.mark_run(known)
    checks, locks = (check_parent, time_check(params.train.max_minutes)), Locks(store.path / "lock")
    with tracked_run(tracking, plan, run, known):
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


def _keep_start(plan: "Plan", store: TrajectoryStore) -> None:
    """Keep what it starts from, for the run in MLflow, now or by `surefoot sync`."""
    start = plan.inputs.start
    if start and start.weights is not None:
        store.keep_start(str(start.note.weights), start.weights)


def _announce(plan: "Plan", run: "RunRecord") -> None:
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


if __name__ == "__main__":
    errors.run_process(main_of_processes)
