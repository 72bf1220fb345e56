"""The record of a run that is about to be trained."""

import getpass
import json
import os

from surefoot.base import digests, installation, paths
from surefoot.base.wording import describe_dropped
from surefoot.data.batch_store import Store
from surefoot.params.dotted_keys import flatten
from surefoot.params.sections import Params
from surefoot.reproduction import dvc_lock, machine, packages, patches, provenance, raw_data, surefoot_package
from surefoot.run import naming, new_rows
from surefoot.run.record import VERSION, DataDigests, Origin, RunNetwork, RunRecord
from surefoot.run.start_note import StartNote
from surefoot.tracking import tag_names
from surefoot.tracking.description import DescribedData, Description


def description(params: Params, batches: Store, origin: Origin) -> Description:
    """What the run in MLflow says of itself."""
    experiment, trial = os.environ.get("DVC_EXP_NAME"), os.environ.get("SUREFOOT_TRIAL")
    group = naming.sweep_name(trial or experiment or "", os.environ.get("DVC_EXP_BASELINE_REV", ""))
    source = provenance.code_state(raw_data.raw_places(flatten(params.model_dump(mode="json"))))
    index, preparation = batches.index, batches.index.preparation
    package = surefoot_package.running_package()
    git = {tag_names.NO_GIT: source.trouble}
    if source.commit:
        git |= {"mlflow.source.git.commit": source.commit, **_uncommitted(source)}
    return Description(
        name=naming.run_name(params, trial or experiment),
        params=flatten(params.model_dump(mode="json")),
        dataset=DescribedData.model_validate(
            {
                "path": preparation.source,
                "dvc_path": str(paths.BATCHES),
                "digest": _data_digest(batches),
                "batches": index.digest,
                "rows": {split: files.rows for split, files in index.splits.items()},
                "dropped": preparation.dropped,
            }
        ),
        tags={
            "mlflow.source.name": installation.source_name("surefoot.stages.train"),
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            **git,
            **({"DVC_EXP_NAME": experiment} if experiment else {}),
            **({tag_names.SWEEP: group} if group else {}),
            "surefoot.fingerprint": origin.numerics.fingerprint,
            "surefoot.data.digest": _data_digest(batches),
            "surefoot.data.dropped": describe_dropped(preparation.dropped) if preparation.dropped else "",
        },
        texts={
            **({surefoot_package.ARTIFACT: json.dumps(package.plain(), indent=2) + "\n"} if package else {}),
            "environment/requirements.txt": packages.installed_packages(),
            "environment/machine.json": json.dumps(machine.describe_machine(), indent=2) + "\n",
        },
    )


def _data_digest(batches: Store) -> str:
    """The digest of what was prepared of which data, whatever batches were made of it."""
    index = batches.index
    read = [part.digest for part in index.parts] or {
        split: files.targets.sha256 for split, files in index.splits.items()
    }
    return digests.sha256(digests.canonical_json([read, index.features, index.classes, index.preparation.split]))


def _uncommitted(source: provenance.CodeState) -> dict[str, str]:
    """Tags of what isn't committed; the patch itself goes to the trajectory store, and from there to MLflow."""
    # Each of them in any case: a run that is made again, from a clean tree, takes the tags over.
    return {
        "surefoot.git.dirty": str(bool(source.patch or source.left_out)).lower(),
        tag_names.PATCH_DIGEST: patches.keep_patch(source.patch),
        "surefoot.git.left_out": ", ".join(source.left_out),
        "surefoot.git.data": raw_data.data_digest(source.data),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())


def new_record(
    params: Params,
    batches: Store,
    identity: str,
    origin: Origin,
    epoch_keys: list[str],
    start: StartNote | None,
) -> RunRecord:
    """What is known of a run before it is trained, or where nothing is known of its training."""
    index, preparation = batches.index, batches.index.preparation
    arrays = {
        split: {"inputs": files.inputs.sha256, "targets": files.targets.sha256} for split, files in index.splits.items()
    }
    source = {"path": preparation.source, "md5": dvc_lock.recorded_md5("prepare", "deps", paths.RAW)}
    network = {"factory": params.train.model.factory, "arguments": params.train.model.arguments}
    return RunRecord(
        version=VERSION,
        identity=identity,
        description=description(params, batches, origin),
        origin=origin,
        data=DataDigests.model_validate({"source": source, "digest": index.digest, **arrays}),
        epochs=params.train.epochs,
        epoch_keys=epoch_keys,
        incomplete=None,
        select=params.train.select,
        save_every=params.train.save_every,
        register=params.train.register,
        onnx=params.train.onnx,
        model=RunNetwork.model_validate(network | index.network_description()),
        examples=preparation.examples,
        start=start,
        seen=new_rows.seen_parts(index, start.seen if start else None),
        continues=[],
        last=None,
        best=None,
        chosen=None,
        weights=None,
    )
