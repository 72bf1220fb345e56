"""The stages of `dvc.yaml`, each of them load, compute, save. Run one by `python -m surefoot.stages.NAME`."""

import sys

from surefoot.base import errors

if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for the module that it is to run
    errors.begin_process()
