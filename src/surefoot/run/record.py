"""All that is known of a run."""

import getpass
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from surefoot.base import digests, paths
from surefoot.data.batch_store import Store
from surefoot.data.cleaning import describe_dropped
from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock, provenance
from surefoot.run import naming, new_rows
from surefoot.run.planning import Plan
from surefoot.tracking import tag_names, tracker

if TYPE_CHECKING:
    from surefoot.run.trajectory_store import TrajectoryStore

ACCOUNT = "trajectory.json"  # the artifact that `surefoot verify` compares with


def describe(params: Params, batches: Store, plan: Plan) -> tracker.Description:
    """What the run in MLflow says of itself."""
    experiment, trial = os.environ.get("DVC_EXP_NAME"), os.environ.get("SUREFOOT_TRIAL")
    group = naming.sweep(trial or experiment or "", os.environ.get("DVC_EXP_BASELINE_REV", ""))
    source = provenance.source(provenance.raw_places(flatten(params.model_dump(mode="json"))))
    preparation = batches.index["preparation"]
    git = {tag_names.NO_GIT: source.trouble}
    if source.commit:
        git |= {"mlflow.source.git.commit": source.commit, **_uncommitted(source)}
    return tracker.Description(
        name=naming.name(params, trial or experiment),
        params=flatten(params.model_dump(mode="json")),
        dataset={
            "path": preparation["source"],
            "dvc_path": str(paths.BATCHES),
            "digest": _data_digest(batches),
            "batches": batches.index["digest"],
            "rows": {split: described["rows"] for split, described in batches.index["splits"].items()},
            "dropped": preparation["dropped"],
        },
        tags={
            "mlflow.source.name": "src/surefoot/stages/train.py",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            **git,
            **({"DVC_EXP_NAME": experiment} if experiment else {}),
            **({tag_names.SWEEP: group} if group else {}),
            "surefoot.fingerprint": plan.origin["numerics"]["fingerprint"],
            "surefoot.data.digest": _data_digest(batches),
            "surefoot.data.dropped": describe_dropped(preparation["dropped"]) if preparation["dropped"] else "",
        },
        texts={
            "environment/requirements.txt": provenance.packages(),
            "environment/machine.json": json.dumps(provenance.machine(), indent=2) + "\n",
        },
    )


def _data_digest(batches: Store) -> str:
    """The digest of what was prepared of which data, whatever batches were made of it."""
    index = batches.index
    read = [part["digest"] for part in index["parts"]] or {
        split: described["targets"]["sha256"] for split, described in index["splits"].items()
    }
    return digests.sha256(
        digests.canonical_json([read, index["features"], index["classes"], index["preparation"]["split"]])
    )


def _uncommitted(source: provenance.Source) -> dict[str, str]:
    """Tags of what isn't committed; the patch itself goes to the trajectory store, and from there to MLflow."""
    # Each of them in any case: a run that is made again, from a clean tree, takes the tags over.
    return {
        "surefoot.git.dirty": str(bool(source.patch or source.left_out)).lower(),
        tag_names.PATCH_DIGEST: provenance.keep_patch(source.patch),
        "surefoot.git.left_out": ", ".join(source.left_out),
        "surefoot.git.data": provenance.data_digest(source.data),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())


def mark(params: Params, batches: Store, plan: Plan) -> dict[str, Any]:
    """What the store remembers of a run: enough to write all of its view in MLflow anew.

    `epoch_keys`, `last`, `best`, `chosen` and `weights` (the digest of the chosen model) come when it is finished,
    `results` when it is evaluated.
    """
    preparation, splits = batches.index["preparation"], batches.index["splits"]
    return {
        "description": asdict(describe(params, batches, plan)),
        "origin": plan.origin,
        "data": {
            "source": {"path": preparation["source"], "md5": dvc_lock.md5("prepare", "deps", paths.RAW)},
            "digest": batches.index["digest"],
            **{
                split: {name: described[name]["sha256"] for name in ("inputs", "targets")}
                for split, described in splits.items()
            },
        },
        "epochs": params.train.epochs,
        "epoch_keys": plan.epoch_keys(),
        "incomplete": None,
        "select": params.train.select,
        "save_every": params.train.save_every,
        "register": params.train.register,
        "onnx": params.train.onnx,
        "model": {
            "factory": params.train.model.factory,
            "arguments": params.train.model.arguments,
            **batches.preparation,
        },
        "examples": preparation["examples"],
        "start": plan.start,
        "seen": new_rows.seen(batches.index, (plan.start or {}).get("seen")),
        "continues": [],
        "last": None,
        "best": None,
        "chosen": None,
        "weights": None,
    }


def account(identity: str, run: dict[str, Any], store: "TrajectoryStore") -> dict[str, Any] | None:
    """All that was determined in a finished run, as digests and numbers; None where the store lacks records of it."""
    records = [store.record(key) for key in run["epoch_keys"]]
    if not run["last"] or not all(records):
        return None
    return {
        "identity": identity,
        "params": run["description"]["params"],  # whole: MLflow cuts long ones
        "origin": run["origin"],
        "data": run["data"],
        "epochs": [
            {name: record[name] for name in ("epoch", "step", "key", "state", "metrics")}
            for record in records
            if record
        ],
        "select": run["select"],
        "chosen": run.get("chosen"),
        "incomplete": run.get(
            "incomplete"
        ),  # a mark of an older Surefoot, whose code `surefoot verify` runs, has neither
        "start": {name: value for name, value in (run.get("start") or {}).items() if name != "seen"},
        "model": run["weights"],
    }
