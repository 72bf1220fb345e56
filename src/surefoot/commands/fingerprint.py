"""`surefoot fingerprint`: what bits this machine computes."""

from surefoot.base import terminal
from surefoot.run.pinned_params import load_and_pin
from surefoot.training import numerics


def main() -> None:
    """Print the numerics fingerprint of this machine, under the profile of params.yaml."""
    params = load_and_pin()
    terminal.print_lines(numerics.fingerprint(params.device, params.train.precision))
