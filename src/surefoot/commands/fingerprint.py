"""`surefoot fingerprint`: what bits this machine computes."""

from surefoot.base import paths, terminal
from surefoot.params.reading import load
from surefoot.training import numerics


def main() -> None:
    """Print the numerics fingerprint of this machine, under the profile of params.yaml."""
    params = load(paths.PARAMS)
    numerics.pin(params.numerics, params.threads, params.deterministic, params.device)
    terminal.print_lines(numerics.fingerprint(params.device, params.train.precision))
