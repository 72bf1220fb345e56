"""The environment and the machine that a run is made again in, against those that made it."""

import platform
import sys
from pathlib import Path

from surefoot.base import terminal
from surefoot.base.errors import CannotSay
from surefoot.commands.verify import trust
from surefoot.commands.verify.remake import Remake
from surefoot.reproduction import packages
from surefoot.reproduction.machine import Machine
from surefoot.run.record import Account, HowComputed
from surefoot.run.recorded_run import Recorded

REQUIREMENTS = "environment/requirements.txt"


def settle_environment(remake: Remake, recorded: Recorded, account: Account, build: bool, trusted: bool) -> list[str]:
    """Choose the environment to run in; returns what speaks against getting the same bits there."""
    wanted = (recorded.artifact(REQUIREMENTS) or b"").decode(errors="replace")
    python = (recorded.document(Machine, "environment/machine.json") or Machine()).python
    pinned, others_than_pins = packages.pins(wanted)
    if build and others_than_pins:
        raise CannotSay(
            f"{REQUIREMENTS} in MLflow has lines that aren't name==version, which are never handed to pip:"
            f" {terminal.first_few(others_than_pins)}"
        )

    # What its network's code imports, and what the Surefoot of its commit depends on.
    matter = account.origin.versions.keys() | packages.direct_dependencies(remake.path)

    def others(environment: Path, now: str | None) -> list[str]:
        return packages.other_python(python, now) + packages.other_packages(
            wanted, packages.installed_in(environment), matter
        )

    environment = Path(sys.prefix)
    doubts = others(environment, platform.python_version())
    if build and not wanted:
        raise CannotSay("its environment isn't recorded, so it can't be built again")
    if build and doubts:
        unknown = sorted(pinned.keys() - packages.pins(packages.installed_in(Path(sys.prefix)))[0].keys())
        trust.allow(
            (
                [
                    f"packages that aren't installed here, but named in {REQUIREMENTS} in MLflow:"
                    f" {terminal.first_few(unknown)}"
                ]
                if unknown
                else []
            ),
            trusted,
        )
        environment = packages.build_environment(remake.scratch, wanted, python or platform.python_version())
        doubts = others(environment, python)
    remake.use_environment(environment)
    odd = (
        [f"{REQUIREMENTS} in MLflow has lines that aren't name==version: {terminal.first_few(others_than_pins)}"]
        if others_than_pins
        else []
    )
    return odd + [f"another version of {package}" for package in doubts]


def other_rounding(remake: Remake, numerics: HowComputed) -> list[str]:
    """Whether this machine rounds otherwise than the one that made the run, before anything is trained."""
    profile, threads = (remake.params.get(key, default) for key, default in (("numerics", "portable"), ("threads", 1)))
    if (profile, threads) != (numerics.profile, numerics.threads):
        return []  # other params: no wonder
    out = remake.scratch.path / "fingerprint"
    # Under the profile and threads of the run's own params.yaml.
    with out.open("w") as file:
        if remake.scratch.finish([remake.python("-m", "surefoot", "fingerprint", out=file)]):
            raise CannotSay("the numerics fingerprint can't be computed at its commit; what went wrong is above")
    now = out.read_text().strip()
    recorded = numerics.fingerprint
    return (
        []
        if now == recorded
        else [
            f"another numerics fingerprint (recorded {recorded[:12]}, now {now[:12]}): this machine rounds differently"
        ]
    )
