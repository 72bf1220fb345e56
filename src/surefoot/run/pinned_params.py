"""The params of this workspace, and numerics as they say."""

from pathlib import Path

from surefoot.base import paths
from surefoot.base.quick_imports import quick_imports
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from surefoot.training import numerics


def load_and_pin(path: Path = paths.PARAMS) -> Params:
    """Read `params.yaml`, or a copy of it, and pin numerics by it: call this before anything imports torch.

    Raises:
        UserError: a param is wrong; this machine can't compute so.
    """
    params = load_params(path)
    pin_by(params)
    return params


def pin_by(params: Params) -> None:
    """Pin numerics as these params say.

    Raises:
        UserError: this machine can't compute so.
    """
    with quick_imports("torch"):
        numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
