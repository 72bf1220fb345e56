"""The environment and the machine that a run is made again in, against those that made it."""

import platform
import sys
from contextlib import suppress
from pathlib import Path

from surefoot.base import terminal
from surefoot.base.errors import CannotSay
from surefoot.commands.verify import trust
from surefoot.commands.verify.remake import Remake
from surefoot.reproduction import packages, surefoot_package
from surefoot.reproduction.machine import Machine
from surefoot.reproduction.scratch import Scratch
from surefoot.reproduction.surefoot_package import SurefootPackage
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

    doubts = others(Path(sys.prefix), platform.python_version())
    if build and not wanted:
        raise CannotSay("its environment isn't recorded, so it can't be built again")
    # A run of a clone has its own Surefoot, in src.
    theirs = None if (remake.path / "src/surefoot").is_dir() else _package(recorded, pinned)
    whole = build and bool(doubts)
    if whole:
        environment = _built(remake.scratch, wanted, python or platform.python_version(), trusted)
        doubts = others(environment, python)
    elif theirs and not theirs.is_same(surefoot_package.running_package()):
        environment = surefoot_package.environment_like_this(remake.scratch)
    else:
        environment = Path(sys.prefix)
    remake.use_environment(environment)
    odd = (
        [f"{REQUIREMENTS} in MLflow has lines that aren't name==version: {terminal.first_few(others_than_pins)}"]
        if others_than_pins
        else []
    )
    odd += [f"another version of {package}" for package in doubts]
    built = environment != Path(sys.prefix)
    return odd + (_install(remake, environment, theirs, trusted) if theirs and built else [])


def _built(scratch: Scratch, wanted: str, python: str, trusted: bool) -> Path:
    """The recorded environment, where the user trusts what is in it."""
    unknown = sorted(packages.pins(wanted)[0].keys() - packages.pins(packages.installed_in(Path(sys.prefix)))[0].keys())
    named = f"packages that aren't installed here, but named in {REQUIREMENTS} in MLflow: {terminal.first_few(unknown)}"
    trust.allow([named] if unknown else [], trusted)
    return packages.build_environment(scratch, wanted, python)


def _package(recorded: Recorded, pinned: dict[str, str]) -> SurefootPackage | None:
    """The package that made the run, by what MLflow has of it: how it was installed, or at least its version."""
    found = recorded.document(SurefootPackage, surefoot_package.ARTIFACT)
    if found is None and "surefoot" in pinned:
        with suppress(ValueError):
            found = SurefootPackage(version=pinned["surefoot"])
    return found


def _install(remake: Remake, environment: Path, theirs: SurefootPackage, trusted: bool) -> list[str]:
    """Install the package that made the run; one of a URL, or of another version than its commit's params.yaml says,
    only if the user trusts that.
    """
    foreign = theirs.git or theirs.version != remake.surefoot_version
    trust.allow([f"{theirs.title}, named in {surefoot_package.ARTIFACT} in MLflow"] if foreign else [], trusted)
    terminal.print_lines(f"installing {theirs.title}, which made it")
    return surefoot_package.install_package(remake.scratch, environment, theirs)


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
