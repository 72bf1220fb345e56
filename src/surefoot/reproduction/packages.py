"""The packages that a run was made with, those that are here, and how to get the former."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import Distribution, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

from surefoot.base import terminal
from surefoot.base.errors import CannotSay
from surefoot.reproduction.scratch import Scratch

PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")
FIELD = re.compile(r"^(Name|Version): (\S+)$", re.MULTILINE)  # of a distribution's metadata
NEVER_BUILT = ("pip", "setuptools", "wheel", "surefoot")


def installed_packages() -> str:
    """Every installed distribution as `name==version`, a line each, sorted: `environment/requirements.txt` of a run."""
    named = map(_name_and_version, distributions())
    return "".join(sorted({f"{name}=={version}\n" for name, version in named if name}))


def _name_and_version(found: Distribution) -> tuple[str, str]:
    """As `found.name` and `found.version`, which take ten times as long: they read all of the metadata, twice."""
    head = (found.read_text("METADATA") or "").partition("\n\n")[0]
    fields = dict(FIELD.findall(head))
    if len(fields) == 2:
        return fields["Name"], fields["Version"]
    try:
        return found.name, found.version
    except Exception:  # of what lacks its metadata, by the finder that importlib_metadata brings along
        return "", ""


def direct_dependencies(place: Path) -> set[str]:
    """The names of the packages that Surefoot depends on directly: by the pyproject.toml at a place, where Surefoot of
    another time may lie, or else the installed one.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):  # of a file that says nothing of the kind
        project = tomllib.loads((place / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "surefoot":
            return _required(project["dependencies"])
    return _required(requires("surefoot") or [])


def _required(lines: Iterable[str]) -> set[str]:
    return {_normal(Requirement(line).name) for line in lines if "extra ==" not in line}


def other_packages(recorded: str, installed: str, matter: Iterable[str]) -> list[str]:
    """Which packages that a run's bits could depend on have other versions: each with both.

    Args:
        recorded: `environment/requirements.txt` of the run, lines `name==version`.
        installed: the same of the environment that it would be made again in.
        matter: the names of those that a bit could depend on; what isn't recorded doesn't count.
    """
    (one, _), (other, _) = pins(recorded), pins(installed)
    found = []
    for name in sorted({_normal(name) for name in matter} & one.keys()):
        if _public(one[name]) != _public(other.get(name, "")):
            found.append(f"{name} (recorded {one[name]}, now {other.get(name, 'not installed')})")
    return found


def other_python(recorded: str | None, now: str | None) -> list[str]:
    """Whether Python's minor version is another one, with both."""
    return (
        []
        if recorded is None or now is None or _minor(recorded) == _minor(now)
        else [f"Python (recorded {recorded}, now {now})"]
    )


def build_environment(scratch: Scratch, recorded: str, python: str) -> Path:
    """A virtual environment with the recorded packages; takes minutes.

    Args:
        scratch: where to make it.
        recorded: lines `name==version`.
        python: the version of Python, as `3.11.2`; the minor version must be found on the PATH.

    Raises:
        CannotSay: there is no such Python, or pip can't install a package.
    """
    minor = _minor(python)
    found = sys.executable if minor == _minor(platform.python_version()) else shutil.which(f"python{minor}")
    if not found:
        raise CannotSay(f"it was made with Python {python}; there is no python{minor} on the PATH")
    environment = scratch.path / "environment"
    wanted = scratch.path / "requirements.txt"
    # Without the local part (+cpu): which build of torch fits is for the machine's own settings of pip to say.
    wanted.write_text(
        "".join(
            f"{name}=={_public(version)}\n" for name, version in pins(recorded)[0].items() if name not in NEVER_BUILT
        )
    )
    terminal.print_lines(f"building an environment of {len(wanted.read_text().splitlines())} packages")
    pip = [
        str(environment / "bin/python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--requirement",
        str(wanted),
    ]
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if scratch.run([found, "-m", "venv", str(environment)], scratch.path, surroundings) or scratch.run(
        pip, scratch.path, surroundings
    ):
        raise CannotSay("its environment can't be built again; what pip says is above")
    return environment


def installed_in(environment: Path) -> str:
    """`installed_packages()` of a virtual environment."""
    if environment.resolve() == Path(sys.prefix).resolve():
        return installed_packages()
    lister = "from importlib.metadata import distributions\nfor d in distributions(): print(f'{d.name}=={d.version}')"
    return subprocess.run(
        [str(environment / "bin/python"), "-I", "-c", lister], capture_output=True, check=True, text=True
    ).stdout


def pins(requirements: str) -> tuple[dict[str, str], list[str]]:
    """The versions by name, of lines `name==version`; and the other lines, which might be options, paths or addresses
    to pip.
    """
    found, others = {}, []
    for line in filter(None, requirements.splitlines()):
        pin = PIN.fullmatch(line)
        if pin:
            found[_normal(pin[1])] = pin[2]
        else:
            others.append(line)
    return found, others


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _public(version: str) -> str:
    return version.partition("+")[0]
