"""The stages of `dvc.yaml`, each of them load, compute, save. Run one by `python -m surefoot.stages.NAME`."""
