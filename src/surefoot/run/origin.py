"""What determines a run, but for the schedule: all of it in one place, and nothing else."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from surefoot.base import code_digests, digests

# The code of Surefoot's that computes a state, by labels that stay when a module is moved or renamed. Other modules
# choose what it computes from: rows, settings, first weights. These are in the origin by their values; who changes how
# they are chosen counts FORMAT up.
TRAINING_CODE = {
    "average": "surefoot.training.weight_average",
    "linear": "surefoot.training.openblas_linear",
    "loop": "surefoot.training.loop",
    "minibatches": "surefoot.training.minibatches",
    "network": "surefoot.training.network",
    "numerics": "surefoot.training.numerics",
    "objective": "surefoot.training.objective",
    "optimizer": "surefoot.training.optimizer",
    "order": "surefoot.data.order",
    "roots": "surefoot.training.exact_roots",
    "splitmix64": "surefoot.data.splitmix64",
    "state": "surefoot.training.state",
    "step": "surefoot.training.step",
}
# And where minibatches are cut into shards.
SHARDED_CODE = {
    "shards.step": "surefoot.training.sharded.sharded_step",
    "shards.trainer": "surefoot.training.sharded.sharded_trainer",
    "shards.tree": "surefoot.training.sharded.tree",
}
# And on a GPU.
CUDA_CODE = {"cuda": "surefoot.training.on_cuda"}
FORMAT = 3  # 1 and 2 named modules


def make_origin(
    *,
    seed: int,
    numerics: dict[str, Any],
    factory: str,
    arguments: dict[str, Any],
    first_state: bytes,
    loss: dict[str, Any],
    optimizer: dict[str, Any],
    step: dict[str, Any],
    average: dict[str, Any],
    schedule: dict[str, Any],
    data: dict[str, Any],
    start: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the first key is the digest of.

    Args:
        seed: the seed of the run.
        numerics: how this machine computes: profile, threads, device, deterministic, and the fingerprint of these.
        factory: import path of the network, whose source counts, and that of the project's modules that it imports.
        arguments: of the factory.
        first_state: the state before the first step, as safetensors; covers whatever the factory read or drew.
        loss: its name, arguments and class weights; where it is the project's own, its source counts, too.
        optimizer: its name and arguments, but for the learning rate, and its groups of parameters.
        step: what goes into a step beside it: accumulation, clipping, precision; `shards`, where there are several.
        average: how weights are averaged; {} if they aren't.
        schedule: what is scheduled, by group and name, and the metric that it follows; the values are in the keys.
        start: the digest of the weights that another training left (`train.start_from`); None where there are none.
        data: digests of the training and validation arrays, their scale, how they are batched and shuffled, and what
            the factory was told of them.
    """
    own, packages = code_digests.modules_behind([factory])
    of_loss, more = code_digests.modules_behind(code_digests.functions_in(loss["name"]))
    return {
        "format": FORMAT,
        "seed": seed,
        "numerics": numerics,
        "versions": {name: _version(name) for name in sorted({"torch", "numpy"} | packages | more)},
        "code": {label: _digest(module) for label, module in _code(step, numerics).items()},
        "model": {"factory": factory, "arguments": arguments, "source": code_digests.module_digests(own)},
        "first_state": digests.sha256(first_state),
        "loss": {**loss, "source": code_digests.module_digests(of_loss)},
        "optimizer": optimizer,
        "step": step,
        "average": average,
        "schedule": schedule,
        "data": data,
        **({"start": start} if start else {}),
    }


def source_digests(*functions: str) -> dict[str, str]:
    """The digests of the project's own modules behind `module:function`s, of a network say, and of the data files
    beside them.
    """
    own, _ = code_digests.modules_behind(functions)
    return code_digests.module_digests(own)


def _code(step: dict[str, Any], numerics: dict[str, Any]) -> dict[str, str]:
    cuda = CUDA_CODE if numerics.get("device") == "cuda" else {}
    return TRAINING_CODE | (SHARDED_CODE if "shards" in step else {}) | cuda


def _digest(module: str) -> str:
    path = code_digests.module_file(module)
    assert path
    return digests.sha256(code_digests.arithmetic_source(path, "surefoot").encode())


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:  # imported under another name than it is installed by
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
